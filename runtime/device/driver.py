"""What the CUDA driver says of this machine's GPUs, without a CUDA library being installed."""

from __future__ import annotations

import ctypes

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
