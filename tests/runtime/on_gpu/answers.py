"""What each provider answered on this machine's GPU, kept in a file whatever becomes of the tests."""

from __future__ import annotations

import json
import os
import platform
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import Any

from latentrt.export.machine import gpus
from latentrt.runtime.device.driver import driver_version, gpu_target

FOLDER_VARIABLE = "LATENTRT_GPU_ANSWERS"
_FOLDER = Path(__file__).parents[3] / "build" / "gpu-tests"

_PACKAGES = (
    "torch", "triton", "cuda-core", "cuda-bindings", "numpy", "diffusers", "transformers", "onnx", "onnxruntime",
    "onnxruntime-gpu", "tensorrt", "tensorrt-cu12", "tensorrt-cu13", "tensorrt-lean", "tensorrt-rtx",
    "nvidia-cudnn-cu12", "nvidia-cudnn-cu13",
)  # fmt: skip


class Answers:
    """``providers.json`` in the folder that ``LATENTRT_GPU_ANSWERS`` names: the machine, the versions of what is
    installed, and by provider what was asked and what came of it, in that order. Written after each answer."""

    def __init__(self) -> None:
        folder = Path(os.environ.get(FOLDER_VARIABLE) or _FOLDER)
        folder.mkdir(parents=True, exist_ok=True)
        self.file = folder / "providers.json"
        self._content: dict[str, Any] = {
            "gpus": gpus(),
            "target": gpu_target(),
            "driver": driver_version(),
            "python": platform.python_version(),
            "versions": {name: found for name in _PACKAGES if (found := _version(name))},
            "answers": {},
        }

    def keep(self, provider: str, asked: str, answer: object) -> None:
        """Write an answer down."""
        self._content["answers"].setdefault(provider, {})[asked] = answer
        self.file.write_text(json.dumps(self._content, indent=1) + "\n", encoding="utf-8")


def _version(package: str) -> str:
    try:
        return version(package)
    except PackageNotFoundError:
        return ""
