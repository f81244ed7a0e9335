"""Steps: engines and kernels that run together again and again, put on the stream as one graph.

A graph is recorded of addresses and shapes, so what is in a step never changes: the numbers that do are in its buffers.
"""

from __future__ import annotations

import logging
from collections.abc import Iterator, Mapping, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import DTypeLike, NDArray

from ..errors import CaptureError, DeviceMemoryError
from ..timing import Timings
from .interface import Buffer, Device, DeviceEngine, Execution, Graph, Launch, Staging, Stream

if TYPE_CHECKING:
    from .runner import DeviceRunner

LOG = logging.getLogger(__name__)

#: Shapes and dtypes by name.
Tensors = Mapping[str, tuple[tuple[int, ...], np.dtype[Any]]]


class Memory:
    """Buffers and staging that are freed together. ``nbytes`` is what they take of the device."""

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


@dataclass(frozen=True)
class Part:
    """One execution, and what is copied (target, source) before and after it."""

    execution: Execution
    buffers: Mapping[str, Buffer]
    before: Sequence[tuple[Buffer, Buffer]] = ()
    after: Sequence[tuple[Buffer, Buffer]] = ()


def parts_of(
    engine: DeviceEngine, inputs: Mapping[str, Buffer], outputs: Mapping[str, Buffer], limit: int, memory: Memory
) -> list[Part]:
    """What runs an engine on the rows of ``inputs``, no more than ``limit`` at once.

    More rows run one part after another on copies: engines want addresses that are multiples of 256 bytes, which rows
    in the middle of a buffer do not have.
    """
    rows = len_of(inputs)
    if rows <= limit:
        execution = engine.prepare({name: buffer.shape for name, buffer in inputs.items()})
        return [Part(execution, {**inputs, **outputs})]
    whole = {**inputs, **outputs}
    parts: list[Part] = []
    with memory.filled(), ExitStack() as undo:
        held = {name: memory.buffer((limit, *buffer.shape[1:]), buffer.dtype) for name, buffer in whole.items()}
        for start in range(0, rows, limit):
            count = min(limit, rows - start)
            own = {name: buffer[0:count] for name, buffer in held.items()}
            execution = engine.prepare({name: own[name].shape for name in inputs})
            undo.callback(execution.close)
            before = [(own[name], buffer[start : start + count]) for name, buffer in inputs.items()]
            after = [(buffer[start : start + count], own[name]) for name, buffer in outputs.items()]
            parts.append(Part(execution, own, before, after))
        undo.pop_all()
    return parts


def len_of(tensors: Mapping[str, Buffer]) -> int:
    """Rows of the tensors of one engine."""
    return next(iter(tensors.values())).shape[0]


class Step:
    """An engine's parts and the kernels that follow, in this order.

    The first run puts them on the stream one by one, which also lets engines prepare themselves; the second one records
    a graph, and all others launch it. Where the device or the provider cannot record, they stay one by one.
    """

    def __init__(self, runner: DeviceRunner, name: str, parts: Sequence[Part], launches: Sequence[Launch] = ()):
        self._runner = runner
        self._name = name
        self._parts = parts
        self._launches = launches
        self._workspace_bytes = max(part.execution.workspace_bytes for part in parts)
        self._workspace: Buffer | None = None
        self._bound = False
        self._prepared = False
        self._refused = False
        self._graph: Graph | None = None
        self.nbytes = 0  # of the device's memory, for the graph

    def enqueue(self, timings: Timings) -> None:
        """Put one run on the stream."""
        stream = self._runner.device.stream
        self._bind()
        if self._prepared:
            self._record(stream)
        if self._graph is not None:
            with timings.engine():
                self._graph.launch(stream)
            return
        self._put(stream, timings)
        self._prepared = True

    def warm(self) -> None:
        """Run once and record, so that no run has to. What the run does must do no harm."""
        self.enqueue(Timings())
        self._record(self._runner.device.stream)

    def close(self) -> None:
        """Release the graph and the executions."""
        self._drop_graph()
        for part in self._parts:
            part.execution.close()

    def _bind(self) -> None:
        """Give the executions their memory, the first time and when the workspace has moved."""
        workspace = self._runner.workspace(self._workspace_bytes)
        if self._bound and workspace is self._workspace:
            return
        self._drop_graph()
        for part in self._parts:
            part.execution.bind(part.buffers, workspace)
        self._workspace, self._bound, self._prepared = workspace, True, False

    def _put(self, stream: Stream, timings: Timings) -> None:
        for part in self._parts:
            for target, source in part.before:
                stream.copy(target, source)
            with timings.engine():
                part.execution.enqueue(stream)
            for target, source in part.after:
                stream.copy(target, source)
        for launch in self._launches:
            stream.launch(launch)

    def _record(self, stream: Stream) -> None:
        if self._graph is not None or self._refused or not all(part.execution.capturable for part in self._parts):
            return
        device = self._runner.device
        before, _ = device.memory()
        try:
            with stream.capture() as capture:
                self._put(stream, Timings())
        except (CaptureError, DeviceMemoryError) as error:
            level = logging.DEBUG if self._runner.capture_refused else logging.WARNING  # said once is enough
            LOG.log(level, "%s: not recorded, so its work is put on the stream one by one: %s", self._name, error)
            self._refused = self._runner.capture_refused = True
            return
        self._graph = capture.graph
        self.nbytes = max(0, before - device.memory()[0])

    def _drop_graph(self) -> None:
        if self._graph is not None:
            self._graph.close()
            self._graph = None


class EnginePlan:
    """One engine at one set of shapes, with host arrays on both sides."""

    def __init__(self, runner: DeviceRunner, engine: DeviceEngine, inputs: Tensors):
        self._stream = runner.device.stream
        self._name = f"{engine.component} of " + ", ".join(
            f"{name}{list(shape)}" for name, (shape, _) in inputs.items()
        )
        execution = engine.prepare({name: shape for name, (shape, _) in inputs.items()})
        self._memory = Memory(runner.device)
        with self._memory.filled(execution):
            tensors = {**inputs, **execution.outputs}
            self._staged = {name: self._memory.staging(shape, dtype) for name, (shape, dtype) in tensors.items()}
            self._buffers = {name: self._memory.buffer(shape, dtype) for name, (shape, dtype) in tensors.items()}
        self._outputs = tuple(execution.outputs)
        self._step = Step(runner, engine.component, [Part(execution, self._buffers)])

    def __str__(self) -> str:
        return self._name

    @property
    def nbytes(self) -> int:
        return self._memory.nbytes + self._step.nbytes

    def run(self, inputs: Mapping[str, NDArray[Any]], timings: Timings) -> dict[str, NDArray[Any]]:
        """Outputs of the inputs, as new arrays."""
        for name, value in inputs.items():
            np.copyto(self._staged[name], value)
            self._stream.upload(self._buffers[name], self._staged[name])
        self._step.enqueue(timings)
        for name in self._outputs:
            self._stream.download(self._buffers[name], self._staged[name])
        with timings.engine():
            self._stream.synchronize()
        return {name: self._staged[name].copy() for name in self._outputs}

    def close(self) -> None:
        self._step.close()
        self._memory.close()
