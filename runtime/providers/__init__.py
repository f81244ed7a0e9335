"""What runs engines: one module per provider, imported only when a bundle is loaded with it."""

from __future__ import annotations

import importlib
import os
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Protocol

from numpy.typing import NDArray

from ..bundles.bundle import Bundle
from ..bundles.manifest import EngineRecord
from ..device.interface import Device, DeviceEngine
from ..errors import MissingDependencyError


@dataclass(frozen=True)
class ProviderInfo:
    """A provider's ``module`` in this package, and the ``libraries`` any of which it can use: Python module -> what to
    install; the first of them also builds engines. ``extra`` is LatentRT's extra that brings that one.

    ``precision`` is what its engines compute in unless another is asked for. ``has_options`` says that its library has
    settings which ``load`` passes on.
    """

    module: str
    libraries: Mapping[str, str]
    extra: str
    precision: str = "fp16"
    needs_gpu: bool = True
    has_options: bool = False


_NVIDIA_INDEX = "with NVIDIA's package index as an extra index: --extra-index-url https://pypi.nvidia.com"

#: Every provider by its name, in order of preference.
PROVIDERS = {
    "tensorrt": ProviderInfo(
        "tensorrt",
        {
            "tensorrt": f"pip install 'latentrt[tensorrt]', {_NVIDIA_INDEX}",
            "tensorrt_lean": "pip install 'latentrt[tensorrt-lean]'",
        },
        "tensorrt",
    ),
    "tensorrt-rtx": ProviderInfo("tensorrt", {"tensorrt_rtx": "pip install 'latentrt[tensorrt-rtx]'"}, "tensorrt-rtx"),
    "onnxruntime-cuda": ProviderInfo(
        "onnxruntime_cuda", {"onnxruntime": "pip install 'latentrt[cuda]'"}, "cuda", has_options=True
    ),
    "onnxruntime-cpu": ProviderInfo(
        "onnxruntime", {"onnxruntime": "pip install 'latentrt[cpu]'"}, "cpu", precision="fp32", needs_gpu=False
    ),
}


class Engine(DeviceEngine, Protocol):
    """One loaded engine. Safe to call from several threads at once."""

    def run(self, inputs: Mapping[str, NDArray[Any]]) -> dict[str, NDArray[Any]]:
        """Run on the inputs of the component's contract; returns its outputs by name."""

    def close(self) -> None:
        """Release what the engine holds, once the calls that are in it have ended. A closed engine cannot run."""


class Provider(Protocol):
    """What a provider's module offers."""

    def check(self, records: Iterable[EngineRecord]) -> None:
        """Check that the provider's library, as it is installed here, can run these engines.

        Raises:
            MissingDependencyError: none of its libraries is installed.
            EngineError: what is installed cannot run them.
        """

    def open_device(self, *bundles: Bundle) -> Device:
        """The device that the engines of these bundles run on.

        Raises:
            EngineError: there is none, or its driver refuses.
        """

    def load_engine(
        self, bundle: Bundle, record: EngineRecord, *, device: Device, threads: int, options: Mapping[str, str]
    ) -> Engine:
        """Load one engine of a bundle. ``options`` are the library's own, by its names for them.

        Raises:
            EngineError: the provider's library refuses it.
        """


def import_provider(name: str) -> Provider:
    """The module of a provider.

    Raises:
        MissingDependencyError: its library is not installed.
    """
    info = PROVIDERS[name]
    try:
        provider: Provider = importlib.import_module(f".{info.module}", __name__)
    except ModuleNotFoundError as error:
        if error.name not in info.libraries:
            raise
        raise missing_library(name) from None
    return provider


def missing_library(name: str) -> MissingDependencyError:
    """The error for a provider none of whose libraries is installed."""
    libraries = PROVIDERS[name].libraries
    remedy = "install it: " + " or ".join(libraries.values())
    return MissingDependencyError(f"the provider {name} needs {' or '.join(libraries)}", remedy=remedy)


def available_threads() -> int:
    """Processors this process may use: the scheduler's affinity, and the CPU quota of a container (cgroup v2)."""
    count = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
    try:
        quota, period = Path("/sys/fs/cgroup/cpu.max").read_text(encoding="ascii").split()
    except (OSError, ValueError):
        return count
    return count if quota == "max" else max(1, min(count, int(quota) // int(period)))
