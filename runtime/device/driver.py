"""What the CUDA driver says of this machine's GPUs, without a CUDA library being installed."""

from __future__ import annotations

import ctypes

from ..errors import EngineError

_DRIVER = "libcuda.so.1"
_MAJOR, _MINOR = 75, 76  # CU_DEVICE_ATTRIBUTE_COMPUTE_CAPABILITY_MAJOR and _MINOR


def gpu_target(device: int = 0) -> str | None:
    """The compute capability of a GPU as engines name it (``"sm89"`` is 8.9), or None without a driver or that GPU."""
    try:
        driver = ctypes.CDLL(_DRIVER)
    except OSError:
        return None
    handle, major, minor = ctypes.c_int(), ctypes.c_int(), ctypes.c_int()
    failed = (
        driver.cuInit(0)
        or driver.cuDeviceGet(ctypes.byref(handle), device)
        or driver.cuDeviceGetAttribute(ctypes.byref(major), _MAJOR, handle)
        or driver.cuDeviceGetAttribute(ctypes.byref(minor), _MINOR, handle)
    )
    return None if failed else f"sm{major.value}{minor.value}"


def driver_version() -> tuple[int, int] | None:
    """The newest CUDA version that the driver supports, or None without a driver."""
    try:
        driver = ctypes.CDLL(_DRIVER)
    except OSError:
        return None
    version = ctypes.c_int()
    return None if driver.cuDriverGetVersion(ctypes.byref(version)) else parsed_version(version.value)


def parsed_version(number: int) -> tuple[int, int]:
    """CUDA's number of a version: 13020 is 13.2."""
    return number // 1000, number % 1000 // 10


def check_driver(needed: tuple[int, int], found: tuple[int, int] | None = None) -> None:
    """Refuse a machine whose driver (by default the one that is ``found`` here) cannot run what is installed.

    Raises:
        EngineError: there is no driver, or it is too old.
    """
    found = found or driver_version()
    expected = f"a driver for CUDA {needed[0]}.{needed[1]} or newer"
    if found is None:
        raise EngineError(
            "no NVIDIA driver was found",
            received=f"no {_DRIVER}",
            expected=expected,
            remedy="install it (in a container: run it with --gpus all), or load with provider='onnxruntime-cpu'",
        )
    if found < needed:
        raise EngineError(
            "the NVIDIA driver is too old",
            received=f"one for CUDA {found[0]}.{found[1]}",
            expected=expected,
            remedy="install a newer driver, or an older cuda-bindings",
        )
