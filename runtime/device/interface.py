"""What the runtime needs of a device: buffers, streams, graphs of recorded work, kernels by name.

``host`` does it with numpy and ``cuda`` with a GPU. Work is put on a stream and done in order; on the host at once.
What is written here as an error is what both raise.

Engines come in through two more protocols: a ``DeviceEngine`` prepares an ``Execution`` for one set of shapes, which is
bound to buffers once and then put on a stream any number of times. An execution owns no activation memory: it is lent
a workspace, which all executions of a device share, since one stream runs one at a time.
"""

from __future__ import annotations

from collections.abc import Mapping
from contextlib import AbstractContextManager
from dataclasses import dataclass
from typing import Any, Protocol, Self

import numpy as np
from numpy.typing import DTypeLike, NDArray


class Buffer(Protocol):
    """Contiguous memory of a device with a shape and a dtype. Views share the memory; whoever allocated it frees it.

    A buffer goes out by DLPack: ``torch.from_dlpack(buffer)`` is the same memory, not a copy.
    """

    @property
    def shape(self) -> tuple[int, ...]: ...
    @property
    def dtype(self) -> np.dtype[Any]: ...
    @property
    def nbytes(self) -> int: ...
    @property
    def pointer(self) -> int:
        """The address of the first byte, of the device's memory."""

    def __getitem__(self, rows: slice) -> Buffer:
        """The rows ``start:stop`` of the first axis: a view."""

    def view(self, shape: tuple[int, ...], dtype: DTypeLike | None = None) -> Buffer:
        """The same memory, or the beginning of it, in another shape and dtype."""

    def __dlpack__(
        self,
        *,
        stream: Any = None,
        max_version: tuple[int, int] | None = None,
        dl_device: tuple[int, int] | None = None,
        copy: bool | None = None,
    ) -> Any: ...
    def __dlpack_device__(self) -> tuple[int, int]: ...

    def close(self) -> None:
        """Free the memory; its views with it. A view frees nothing."""


class Staging(Protocol):
    """Host memory that a device reads and writes by itself, while the host does something else."""

    @property
    def array(self) -> NDArray[Any]: ...
    def close(self) -> None: ...


class Event(Protocol):
    """A point in a stream's work: the last one that ``Stream.record`` put it at."""

    def synchronize(self) -> None:
        """Wait until the stream has come to it."""


class Launch(Protocol):
    """A kernel with its arguments and its grid: made once, put on a stream any number of times."""


class Graph(Protocol):
    """Recorded work, which a stream repeats with the same addresses."""

    def launch(self, stream: Stream) -> None: ...
    def close(self) -> None: ...


class Capture(Protocol):
    """Work being recorded; ``graph`` is there when the recording is over."""

    @property
    def graph(self) -> Graph: ...


class Stream(Protocol):
    """A queue of work on a device.

    Raises:
        DeviceError: the device failed; what is on it is lost. Where the host runs ahead, a later call may raise it.
    """

    @property
    def handle(self) -> int:
        """The address of the ``cudaStream_t``; 0 on the host."""

    def upload(self, target: Buffer, source: NDArray[Any]) -> None:
        """Copy a contiguous array of the same size and dtype.

        The host goes on at once if that is a ``Staging`` array, which must not change before the copy is done; it waits
        for any other, which may change then.
        """

    def download(self, source: Buffer, target: NDArray[Any]) -> None:
        """Copy into a contiguous array of the same size and dtype; it is there after ``synchronize``."""

    def copy(self, target: Buffer, source: Buffer) -> None:
        """Copy between buffers of the same size."""

    def fill_zero(self, target: Buffer) -> None: ...

    def launch(self, launch: Launch) -> None: ...

    def record(self, event: Event) -> None: ...

    def capture(self) -> AbstractContextManager[Capture]:
        """Record what is put on the stream inside the block instead of doing it.

        Raises:
            CaptureError: something in the block cannot be recorded. The stream goes on as if nothing had been.
            DeviceMemoryError: there is no memory for the graph, or for what is in the block; the same holds then.
        """

    def synchronize(self) -> None:
        """Wait until all work is done."""


@dataclass
class Counts:
    """What has happened on a device since it was opened. A warm run allocates and captures nothing.

    ``allocations`` are those of buffers and staging; ``synchronizations`` is how often the host waited for the device.
    """

    allocations: int = 0
    captures: int = 0
    synchronizations: int = 0


class Device(Protocol):
    """A device, closed at the end of a ``with`` block or by ``close``. Whoever takes buffers closes those before it."""

    def __enter__(self) -> Self: ...
    def __exit__(self, *raised: Any) -> None: ...

    @property
    def name(self) -> str: ...
    @property
    def counts(self) -> Counts: ...
    @property
    def stream(self) -> Stream:
        """The one stream of the runtime."""

    def allocate(self, shape: tuple[int, ...], dtype: DTypeLike) -> Buffer:
        """Memory aligned to 256 bytes, of undefined content.

        Raises:
            DeviceMemoryError: there is not enough.
        """

    def staging(self, shape: tuple[int, ...], dtype: DTypeLike) -> Staging: ...
    def event(self) -> Event: ...

    def active(self) -> AbstractContextManager[None]:
        """Make the device the one that the calling thread's work goes to: each thread does so before its work.

        After the block its work goes where it went before, if anywhere.
        """

    def from_dlpack(self, tensor: Any, name: str = "a tensor") -> Buffer:
        """Another library's tensor as a buffer: the same memory, held as long as the buffer is.

        Work that the other library has put on its own stream before is done first. ``name`` is for errors.

        Raises:
            RequestError: it is on another device, not contiguous, or of a dtype that numpy does not have.
        """

    def bind(
        self, kernel: str, arguments: Mapping[str, Buffer | int], *, elements: int, outer: int, dtype: str | None = None
    ) -> Launch:
        """A kernel with its arguments, as ``kernels.launch`` names them.

        Args:
            kernel: its name (``"denoise_step"``).
            arguments: every argument by name: buffers and numbers.
            elements: of one slot, image or row (``kernels.launch.grid``).
            outer: how many of those.
            dtype: of the engine's tensors, for kernels that have such a choice.

        Raises:
            EngineError: the bundle has no such kernel for this device.
        """

    def memory(self) -> tuple[int, int]:
        """Free and total bytes."""

    def close(self) -> None: ...


class Execution(Protocol):
    """One engine at one set of shapes. It is used by one stream at a time."""

    @property
    def workspace_bytes(self) -> int:
        """Activation memory that it needs while it runs, lent to it by ``bind``; 0 if it brings its own."""

    @property
    def capturable(self) -> bool:
        """Whether ``enqueue`` may be recorded in a graph, asked after the first run.

        Raises:
            CaptureError: the provider's runs may, and this one may not.
        """

    @property
    def outputs(self) -> Mapping[str, tuple[tuple[int, ...], np.dtype[Any]]]:
        """Shape and dtype of each output."""

    def bind(self, buffers: Mapping[str, Buffer], workspace: Buffer | None) -> None:
        """Give every input and output its buffer, of exactly its shape and dtype, and the workspace."""

    def enqueue(self, stream: Stream) -> None:
        """Put one run on the stream.

        Raises:
            EngineError: the engine refuses.
            DeviceError: the device failed.
        """

    def close(self) -> None: ...


class DeviceEngine(Protocol):
    """An engine that runs on buffers of a device."""

    component: str

    def prepare(self, shapes: Mapping[str, tuple[int, ...]]) -> Execution:
        """An execution for the shapes of the inputs, which picks the profile that suits them.

        Raises:
            EngineError: a shape outside all profiles.
            DeviceMemoryError: no memory for what an execution needs for itself.
        """

    def close(self) -> None: ...
