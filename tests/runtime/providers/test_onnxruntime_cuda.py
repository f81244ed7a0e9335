"""ONNX Runtime's CUDA provider as far as it goes without a GPU: what is asked of the library."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import onnxruntime as ort
import pytest

from latentrt.runtime.bundles.bundle import open_bundle
from latentrt.runtime.device.host import HostDevice
from latentrt.runtime.errors import DeviceMemoryError
from latentrt.runtime.providers.onnxruntime_cuda import OnnxRuntimeCudaEngine


def test_a_session_that_cannot_be_made_is_not_made_again_for_the_processor(
    emoji_bundle: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    asked: list[Any] = []

    def fail(session: ort.InferenceSession, providers: Any, *_: Any) -> None:
        asked.append(providers)
        raise RuntimeError("CUDA failure 2: out of memory ; GPU=0")

    monkeypatch.setattr(ort.InferenceSession, "_create_inference_session", fail)
    contract = open_bundle(emoji_bundle, verify=False).manifest.components["vae_decoder"]
    with pytest.raises(DeviceMemoryError, match=r"vae_decoder: ONNX Runtime .* cannot load the engine .*out of memory"):
        OnnxRuntimeCudaEngine("vae_decoder", contract, b"", {}, HostDevice(limit=1 << 30), {})
    assert [[name for name, _ in providers] for providers in asked] == [["CUDAExecutionProvider"]]
