"""The host as a device: buffers are numpy arrays, kernels the numpy references, and work is done at once.

What runs on a GPU runs here too, so everything above the device is tested where there is none.
"""

from __future__ import annotations

import os
import weakref
from collections.abc import Callable, Iterator, Mapping
from contextlib import AbstractContextManager, contextmanager, nullcontext
from typing import Any

import numpy as np
from numpy.typing import DTypeLike, NDArray

from ...kernels.host import KERNELS
from ..errors import CaptureError, EngineError, RequestError
from ..owner import Owner
from .dlpack import DLPACK_DEVICES, ON_HOST
from .interface import Buffer, Counts, Event, Launch, Stream
from .memory import not_enough_memory

ALIGNMENT = 256

Work = Callable[[], None]


class HostBuffer:
    """An array as a buffer; ``array`` is the memory itself."""

    def __init__(self, array: NDArray[Any], release: Work | None = None):
        self.array = array
        self._release = None if release is None else weakref.finalize(self, release)

    @property
    def shape(self) -> tuple[int, ...]:
        return self.array.shape

    @property
    def dtype(self) -> np.dtype[Any]:
        return self.array.dtype

    @property
    def nbytes(self) -> int:
        return self.array.nbytes

    @property
    def pointer(self) -> int:
        return self.array.ctypes.data

    def __getitem__(self, rows: slice) -> HostBuffer:
        return HostBuffer(self.array[rows])

    def view(self, shape: tuple[int, ...], dtype: DTypeLike | None = None) -> HostBuffer:
        kind = self.dtype if dtype is None else np.dtype(dtype)
        size = int(np.prod(shape)) * kind.itemsize
        return HostBuffer(self.array.reshape(-1).view(np.uint8)[:size].view(kind).reshape(shape))

    def __dlpack__(self, **options: Any) -> Any:
        return self.array.__dlpack__(**{name: value for name, value in options.items() if name != "stream"})

    def __dlpack_device__(self) -> tuple[int, int]:
        return self.array.__dlpack_device__()

    def close(self) -> None:
        if self._release is not None:
            self._release()


class HostStaging:
    """Host memory of the host: any array."""

    def __init__(self, array: NDArray[Any]):
        self.array = array

    def close(self) -> None:
        """The array is garbage collected."""


class HostEvent:
    """All work is done when it has been put on the stream, so there is nothing to wait for."""

    def synchronize(self) -> None:
        """There is nothing to wait for."""


class HostGraph:
    """Recorded calls, done again by ``launch``."""

    def __init__(self) -> None:
        self.work: list[Work] = []

    def launch(self, stream: Stream) -> None:
        assert isinstance(stream, HostStream)
        for one in self.work:
            stream.submit(one)

    def close(self) -> None:
        self.work.clear()


class HostLaunch:
    """A kernel's work on its arguments."""

    def __init__(self, work: Work):
        self.work = work


class HostCapture:
    """A recording; ``graph`` fills while the block runs."""

    def __init__(self) -> None:
        self.graph = HostGraph()


class HostStream:
    """Does its work at once, or records it."""

    handle = 0

    def __init__(self, counts: Counts):
        self._counts = counts
        self._recording: list[Work] | None = None

    def submit(self, work: Work) -> None:
        """Do something now, or when the graph that is being recorded is launched."""
        if self._recording is None:
            work()
        else:
            self._recording.append(work)

    def upload(self, target: Buffer, source: NDArray[Any]) -> None:
        array = _array(target)
        self.submit(lambda: np.copyto(array, source.reshape(array.shape), casting="no"))

    def download(self, source: Buffer, target: NDArray[Any]) -> None:
        array = _array(source)
        self.submit(lambda: np.copyto(target, array.reshape(target.shape), casting="no"))

    def copy(self, target: Buffer, source: Buffer) -> None:
        to, of = _array(target), _array(source)
        self.submit(lambda: np.copyto(to, of.reshape(to.shape), casting="no"))

    def fill_zero(self, target: Buffer) -> None:
        array = _array(target)
        self.submit(lambda: array.fill(0))

    def launch(self, launch: Launch) -> None:
        assert isinstance(launch, HostLaunch)
        self.submit(launch.work)

    def record(self, event: Event) -> None:
        """Nothing comes after what is done already."""

    @contextmanager
    def capture(self) -> Iterator[HostCapture]:
        if self._recording is not None:
            raise CaptureError("a graph inside of a graph")
        capture = HostCapture()
        self._recording = capture.graph.work
        try:
            yield capture
        finally:
            self._recording = None
        self._counts.captures += 1

    def synchronize(self) -> None:
        self._counts.synchronizations += 1


class HostDevice(Owner):
    """The host's memory, of which ``limit`` bytes may be taken (by default what the machine has)."""

    def __init__(self, limit: int | None = None):
        self.name = "the host"
        self.counts = Counts()
        self.stream = HostStream(self.counts)
        self._limit = limit if limit is not None else os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES")
        self._taken = 0

    def allocate(self, shape: tuple[int, ...], dtype: DTypeLike) -> HostBuffer:
        size = int(np.prod(shape)) * np.dtype(dtype).itemsize
        if size > self._limit - self._taken:
            raise not_enough_memory(self.name, self._limit - self._taken, size)
        memory = np.empty(size + ALIGNMENT, np.uint8)
        first = -memory.ctypes.data % ALIGNMENT
        self._taken += size
        self.counts.allocations += 1

        def release() -> None:
            self._taken -= size

        return HostBuffer(memory[first : first + size].view(dtype).reshape(shape), release)

    def staging(self, shape: tuple[int, ...], dtype: DTypeLike) -> HostStaging:
        self.counts.allocations += 1
        return HostStaging(np.empty(shape, dtype))

    def event(self) -> HostEvent:
        return HostEvent()

    def active(self) -> AbstractContextManager[None]:
        """Every thread's work goes to the host."""
        return nullcontext()

    def from_dlpack(self, tensor: Any, name: str = "a tensor") -> HostBuffer:
        kind, _ = tensor.__dlpack_device__()
        if kind not in ON_HOST:
            raise RequestError(name, received=f"on {DLPACK_DEVICES.get(kind, kind)}", expected=f"on {self.name}")
        return HostBuffer(np.ascontiguousarray(np.from_dlpack(tensor)))

    def bind(
        self, kernel: str, arguments: Mapping[str, Buffer | int], *, elements: int, outer: int, dtype: str | None = None
    ) -> HostLaunch:
        if kernel not in KERNELS:
            raise EngineError(f"{kernel}: no such kernel", expected=", ".join(KERNELS))
        values = {name: one if isinstance(one, int) else _array(one) for name, one in arguments.items()}
        return HostLaunch(KERNELS[kernel](values))

    def memory(self) -> tuple[int, int]:
        return self._limit - self._taken, self._limit

    def close(self) -> None:
        """The arrays are garbage collected."""


def _array(buffer: Buffer) -> NDArray[Any]:
    assert isinstance(buffer, HostBuffer)
    return buffer.array
