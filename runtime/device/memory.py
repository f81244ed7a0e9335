"""Memory of a device: what is taken and freed together, and how much there is and is needed, said in one way."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from contextlib import ExitStack, contextmanager
from typing import Any

import numpy as np
from numpy.typing import DTypeLike, NDArray

from ..errors import DeviceMemoryError
from .interface import Buffer, Device, DeviceEngine, Execution, Staging, Stream

#: What helps where memory is short.
REMEDY = "lower width, height or num_images_per_prompt, load with offload='text', or free what others hold"


#: No context and no graph takes more of a device: what does was taken by another process meanwhile.
_MOST_TAKEN = 512 << 20


def gigabytes(size: int) -> str:
    """Bytes for people."""
    return f"{size / 1e9:.3g} GB"


def not_enough_memory(device: str, free: int, needed: int) -> DeviceMemoryError:
    """The error where ``needed`` bytes are more than a device gives, of which it says that ``free`` are free."""
    return DeviceMemoryError(
        f"{device}: not enough memory",
        received=f"{gigabytes(free)} free",
        expected=gigabytes(needed),
        remedy=REMEDY,
    )


def taken_since(device: Device, free: int) -> int:
    """Bytes that a library has taken for itself since ``free`` were free, as far as the device tells."""
    return min(max(0, free - device.memory()[0]), _MOST_TAKEN)


class Staged:
    """A buffer and the host's side of it, an array of its shape and dtype, for what goes up or down again and again.

    The array must not be written to, nor be read, before the device has done what was asked with it last.
    """

    def __init__(self, stream: Stream, buffer: Buffer, array: NDArray[Any]):
        self._stream = stream
        self.buffer = buffer
        self.array = array

    def upload(self, values: Any, rows: slice | None = None) -> None:
        """Upload a number, or values of another shape or dtype, into the buffer or into some of its first axis."""
        array, buffer = (self.array, self.buffer) if rows is None else (self.array[rows], self.buffer[rows])
        array[...] = values if np.isscalar(values) else np.reshape(values, array.shape)
        self._stream.upload(buffer, array)

    def download(self, rows: slice | None = None) -> NDArray[Any]:
        """What the buffer or some of its first axis holds, which is in the array when the stream is done."""
        array, buffer = (self.array, self.buffer) if rows is None else (self.array[rows], self.buffer[rows])
        self._stream.download(buffer, array)
        return array


class Memory:
    """Buffers and staging that are freed together. ``nbytes`` is what they, and executions, take."""

    def __init__(self, device: Device):
        self._device = device
        self._opened = ExitStack()
        self.nbytes = 0

    def buffer(self, shape: tuple[int, ...], dtype: DTypeLike) -> Buffer:
        """A buffer; see ``Device.allocate``."""
        buffer = self._device.allocate(shape, dtype)
        self._opened.callback(buffer.close)
        self.nbytes += buffer.nbytes
        return buffer

    def staging(self, shape: tuple[int, ...], dtype: DTypeLike) -> NDArray[Any]:
        """A staging array; see ``Device.staging``."""
        staging: Staging = self._device.staging(shape, dtype)
        self._opened.callback(staging.close)
        return staging.array

    def staged(self, shape: tuple[int, ...], dtype: DTypeLike) -> Staged:
        """A buffer and the host's side of it."""
        return Staged(self._device.stream, self.buffer(shape, dtype), self.staging(shape, dtype))

    def execution(self, engine: DeviceEngine, shapes: Mapping[str, tuple[int, ...]]) -> Execution:
        """An execution, which whoever asked for it closes; see ``DeviceEngine.prepare``."""
        free, _ = self._device.memory()
        execution = engine.prepare(shapes)
        self.nbytes += taken_since(self._device, free)
        return execution

    @contextmanager
    def filled(self, *executions: Execution) -> Iterator[None]:
        """Free what the block took, and close the executions that it was for, if it cannot have all that it needs."""
        held, before = self._opened, self.nbytes
        self._opened = ExitStack()
        try:
            yield
        except BaseException:
            self._opened.close()
            self._opened, self.nbytes = held, before
            for execution in executions:
                execution.close()
            raise
        held.push(self._opened)
        self._opened = held

    def close(self) -> None:
        """Free everything."""
        self._opened.close()
