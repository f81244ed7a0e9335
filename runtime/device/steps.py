"""Steps: engines and kernels that run together again and again, put on the stream as one graph.

A graph is recorded of addresses and shapes, so what is in a step never changes: the numbers that do are in its buffers.
"""

from __future__ import annotations

import logging
from collections.abc import Mapping, Sequence
from contextlib import ExitStack, closing
from dataclasses import dataclass

from ..errors import CaptureError, DeviceError, DeviceMemoryError, EngineError
from ..timing import Timings
from .interface import Buffer, DeviceEngine, Execution, Graph, Launch, Stream
from .memory import REMEDY, Memory, gigabytes, taken_since
from .runner import DeviceRunner

logger = logging.getLogger(__name__)


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
        execution = memory.execution(engine, {name: buffer.shape for name, buffer in inputs.items()})
        return [Part(execution, {**inputs, **outputs})]
    whole = {**inputs, **outputs}
    parts: list[Part] = []
    with memory.filled(), ExitStack() as undo:
        held = {name: memory.buffer((limit, *buffer.shape[1:]), buffer.dtype) for name, buffer in whole.items()}
        for start in range(0, rows, limit):
            count = min(limit, rows - start)
            own = {name: buffer[0:count] for name, buffer in held.items()}
            execution = memory.execution(engine, {name: own[name].shape for name in inputs})
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
    a graph, and all others launch it. Where the device or the provider cannot record, they stay one by one; where there
    is no memory for the graph, until plans of others have been dropped.
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
        self._short_at: int | None = None  # how many plans had been dropped when memory was short
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
        try:
            self._put(stream, timings)
        except DeviceError:
            raise
        except EngineError:
            stream.synchronize()  # maybe the engine refused what had failed before it: the device says so here
            raise
        self._prepared = True

    def warm(self) -> None:
        """Run once and record, so that no run has to. What the run does must do no harm."""
        self.enqueue(Timings())
        self._record(self._runner.device.stream)

    def close(self) -> None:
        """Release the graph and the executions."""
        with ExitStack() as closing:
            for part in self._parts:
                closing.callback(part.execution.close)
            self._drop_graph()

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
        if self._graph is not None or self._refused or self._short_at == self._runner.dropped:
            return
        device = self._runner.device
        try:
            if not all(part.execution.capturable for part in self._parts):
                self._refused = True
                return
            before, _ = device.memory()
            self._graph = self._runner.with_room(lambda: self._recorded(stream))
        except DeviceMemoryError as error:
            self._short_at = self._runner.dropped
            self._say(f"{error.subject}: {gigabytes(device.memory()[0])} free; {REMEDY}")
        except CaptureError as error:
            self._refused = True
            self._say(str(error))
        else:
            self.nbytes = taken_since(device, before)

    def _recorded(self, stream: Stream) -> Graph:
        with stream.capture() as capture:
            self._put(stream, Timings())
        return capture.graph

    def _say(self, reason: str) -> None:
        level = logging.DEBUG if self._runner.capture_refused else logging.WARNING  # said once is enough
        self._runner.capture_refused = True
        logger.log(level, "%s: not recorded, so its work is put on the stream one by one: %s", self._name, reason)

    def _drop_graph(self) -> None:
        if self._graph is not None:
            self._graph.close()
            self._graph, self.nbytes = None, 0


class StepPlan:
    """What a plan of one step is to those who keep it; ``name`` says of what, ``memory`` has its buffers."""

    def __init__(self, name: str, memory: Memory, step: Step):
        self._name = name
        self._memory = memory
        self._step = step

    def __str__(self) -> str:
        return self._name

    @property
    def nbytes(self) -> int:
        return self._memory.nbytes + self._step.nbytes

    def close(self) -> None:
        with closing(self._memory):
            self._step.close()
