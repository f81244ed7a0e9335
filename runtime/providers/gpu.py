"""The GPU that providers share, and what they say when something goes wrong on it."""

from __future__ import annotations

import re

from ...kernels.launch import joined
from ..bundles.bundle import Bundle
from ..bundles.kernels import kernels_of
from ..device.driver import check_driver
from ..device.interface import Device
from ..device.memory import REMEDY, gigabytes
from ..errors import DeviceError, DeviceMemoryError, EngineError, MissingDependencyError

#: How the libraries say that memory is short, and that CUDA or a library upon it failed. (cuDNN's frontend, CUDNN_FE,
#: also fails for a graph that it has no kernel for.)
_NO_MEMORY = re.compile(
    r"out ?of ?memory|failed to allocate memory|smaller than requested bytes|alloc\w*_failed", re.IGNORECASE
)
_FAILURE = re.compile(
    r"cuda runtime|cuda driver|platform \(cuda\)|cask\b.*execution|\b(cuda|cudnn|cublas) failure", re.IGNORECASE
)


def check_cuda() -> None:
    """Check that the GPU can be reached.

    Raises:
        MissingDependencyError: cuda-core or cuda-bindings, which it stands on but does not bring, is not installed.
        EngineError: there is no driver, or it is older than cuda-core wants.
    """
    try:
        import cuda.core  # noqa: F401
        from cuda.bindings import __version__
    except ImportError as error:
        if (error.name or "").partition(".")[0] != "cuda":
            raise
        remedy = "install them: pip install cuda-core cuda-bindings, which each of their extras brings"
        raise MissingDependencyError("providers for GPUs need cuda-core and cuda-bindings", remedy=remedy) from None
    check_driver((int(__version__.split(".")[0]), 0))


def open_gpu(*bundles: Bundle) -> Device:
    """The GPU, with the kernels of these bundles.

    Raises:
        EngineError: there is no driver, or one that is too old.
    """
    from ..device.cuda import CudaDevice

    held = [kernels for bundle in bundles if (kernels := kernels_of(bundle)) is not None]
    return CudaDevice(joined(held) if held else None)


def gpu_error(subject: str, reason: str, device: Device) -> EngineError:
    """The error for a call that a library refused, by what it says: whether the device can still be used."""
    if _NO_MEMORY.search(reason):
        free, total = device.memory()
        received = f"{gigabytes(free)} of {gigabytes(total)} free on {device.name}: {reason}"
        return DeviceMemoryError(subject, received=received, remedy=REMEDY)
    kind = DeviceError if _FAILURE.search(reason) else EngineError
    return kind(subject, received=reason)
