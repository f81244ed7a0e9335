"""Memory of a GPU and of the host for it, and what the driver's and cuda.core's errors mean.

Memory comes from ``cuMemAlloc``, not from a pool: buffers live as long as the plan of a size, and what a dropped plan
gives back is there at once for TensorRT, which allocates by itself.
"""

from __future__ import annotations

import ctypes
import weakref
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, contextmanager
from typing import Any

import numpy as np
from cuda.bindings import driver
from cuda.core import Buffer as CoreBuffer
from cuda.core.utils import StridedMemoryView
from numpy.typing import DTypeLike, NDArray

from ..errors import DeviceError, DeviceMemoryError, EngineError, LatentRTError
from .dlpack import CUDA
from .memory import REMEDY, gigabytes, not_enough_memory


def checked(device: str, result: tuple[Any, ...]) -> Any:
    """The value of a driver call, which returns its status in front of it.

    Raises:
        DeviceMemoryError: there is not enough memory for it.
        DeviceError: the call failed otherwise.
    """
    status, *values = result
    if status != driver.CUresult.CUDA_SUCCESS:
        _, name = driver.cuGetErrorName(status)
        _, text = driver.cuGetErrorString(status)
        raise _error(device, f"{_decoded(name)}: {_decoded(text)}")
    return values[0] if len(values) == 1 else tuple(values)


@contextmanager
def device_errors(device: str) -> Iterator[None]:
    """Errors of cuda.core, whose types it keeps to itself, as ours."""
    try:
        yield
    except LatentRTError:
        raise
    except Exception as error:
        raise _error(device, str(error)) from error


def _error(device: str, reason: str) -> EngineError:
    """Of a failed call: too little memory leaves the device as it is, anything else may not."""
    if "CUDA_ERROR_OUT_OF_MEMORY" in reason:
        return DeviceMemoryError(f"{device}: {reason}", remedy=REMEDY)
    return DeviceError(f"{device}: {reason}")


def memory_figure(device: str) -> tuple[int, int]:
    """Free and total bytes of the current device."""
    free, total = checked(device, driver.cuMemGetInfo())
    return int(free), int(total)


class Allocation:
    """Memory that is freed when it is closed, or when nothing refers to it any more."""

    def __init__(self, pointer: int, free: Callable[[], None]):
        self.pointer = pointer
        self.close = weakref.finalize(self, free)
        self.close.atexit = False  # the driver frees what is left


def device_allocation(device: str, size: int, active: Callable[[], AbstractContextManager[None]]) -> Allocation:
    """Memory of the current device.

    Raises:
        DeviceMemoryError: there is not enough.
    """
    status, pointer = driver.cuMemAlloc(max(size, 1))
    if status == driver.CUresult.CUDA_ERROR_OUT_OF_MEMORY:
        raise not_enough_memory(device, memory_figure(device)[0], size)
    checked(device, (status,))
    address = int(pointer)

    def free() -> None:
        with active():  # whichever thread lets go of it
            checked(device, driver.cuMemFree(address))

    return Allocation(address, free)


class CudaBuffer:
    """Memory of a GPU. It lives as long as the buffer, its views and whoever took it by DLPack, or until ``close``."""

    def __init__(
        self,
        owner: object,
        pointer: int,
        shape: tuple[int, ...],
        dtype: DTypeLike,
        ordinal: int,
        *,
        frees: bool = False,
    ):
        self._owner = owner
        self._frees = frees
        self.pointer = pointer
        self.shape = shape
        self.dtype = np.dtype(dtype)
        self.nbytes = int(np.prod(shape)) * self.dtype.itemsize
        self._ordinal = ordinal

    def __getitem__(self, rows: slice) -> CudaBuffer:
        start, stop, _ = rows.indices(self.shape[0])
        row = self.nbytes // self.shape[0]
        shape = (stop - start, *self.shape[1:])
        return CudaBuffer(self._owner, self.pointer + start * row, shape, self.dtype, self._ordinal)

    def view(self, shape: tuple[int, ...], dtype: DTypeLike | None = None) -> CudaBuffer:
        return CudaBuffer(self._owner, self.pointer, shape, dtype or self.dtype, self._ordinal)

    def __dlpack__(
        self,
        *,
        stream: Any = None,
        max_version: tuple[int, int] | None = None,
        dl_device: tuple[int, int] | None = None,
        copy: bool | None = None,
    ) -> Any:
        memory = CoreBuffer.from_handle(self.pointer, self.nbytes, owner=self._owner)
        view = StridedMemoryView.from_buffer(memory, self.shape, dtype=self.dtype)
        return view.__dlpack__(stream=stream, max_version=max_version, dl_device=dl_device, copy=copy)

    def __dlpack_device__(self) -> tuple[int, int]:
        return CUDA, self._ordinal

    def close(self) -> None:
        if self._frees and isinstance(self._owner, Allocation):
            self._owner.close()


class CudaStaging:
    """Pinned host memory. It lives as long as an array on it, or until ``close``."""

    def __init__(
        self,
        device: str,
        shape: tuple[int, ...],
        dtype: DTypeLike,
        active: Callable[[], AbstractContextManager[None]],
    ):
        kind = np.dtype(dtype)
        size = max(int(np.prod(shape)) * kind.itemsize, 1)
        status, address = driver.cuMemAllocHost(size)
        if status == driver.CUresult.CUDA_ERROR_OUT_OF_MEMORY:
            subject = f"{device}: the host has no {gigabytes(size)} that the GPU could read and write by itself"
            raise DeviceMemoryError(subject, remedy="free memory of the host, or raise the container's limit of it")
        checked(device, (status,))
        pointer = int(address)
        memory = (ctypes.c_ubyte * size).from_address(pointer)
        self.array: NDArray[Any] = np.frombuffer(memoryview(memory), kind, count=int(np.prod(shape))).reshape(shape)

        def free() -> None:
            with active():
                checked(device, driver.cuMemFreeHost(pointer))

        self.close = weakref.finalize(memory, free)
        self.close.atexit = False


def _decoded(text: Any) -> str:
    return text.decode() if isinstance(text, bytes) else str(text)
