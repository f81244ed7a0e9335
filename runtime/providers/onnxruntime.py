"""ONNX Runtime on the CPU.

An engine of this provider is an ONNX graph in the spelling that ONNX Runtime runs fastest; its weights stay in the
bundle's weight files, which are mapped, handed over by name, and shared with every other graph that refers to them.
"""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterable, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor, wait
from functools import partial
from itertools import pairwise
from typing import Any, TypeVar

import numpy as np
import onnxruntime as ort
from numpy.typing import NDArray

from ..bundles.bundle import Bundle
from ..bundles.manifest import Component, EngineRecord
from ..device.host import HostDevice
from ..device.interface import Buffer, Device, Stream
from ..errors import EngineError, LatentRTError
from .contract import axis_sizes, check_buffers, output_shapes
from .run_once import run_once
from .usage import Usage

#: ONNX Runtime's severities: 3 is error. Its warnings on our graphs concern optimizer details.
_LOG_ERRORS = 3

#: Denoisers with fewer bytes of weights than this run each row on a thread of its own. Their operators are so short
#: that sharing each among threads costs more than it gives: 2 rows of the emoji denoiser take 4.9 ms on two threads of
#: their own and 6.7 ms shared. Large ones are bound by arithmetic, and a second session would double their memory.
_SMALL_WEIGHTS = 256 << 20

OpenSession = Callable[[int], ort.InferenceSession]
T = TypeVar("T")


class OnnxRuntimeEngine:
    """One component, as one session that uses all threads for a call, or one that many threads call, row by row.

    Either is made when a call first needs it. Safe to call from several threads.
    """

    def __init__(self, component: str, record: Component, open_session: OpenSession, *, threads: int, split_rows: bool):
        self.component = component
        self.record = record
        self.usage = Usage(component)
        self._open_session = open_session
        self._threads = threads
        self._split_rows = split_rows and threads > 1
        self._sessions: dict[int, ort.InferenceSession] = {}
        self._opening = threading.Lock()
        self._workers = ThreadPoolExecutor(threads - 1, "latentrt-rows") if self._split_rows else None
        self.parts(2)  # what a picture with guidance uses

    def run(self, inputs: Mapping[str, NDArray[Any]]) -> dict[str, NDArray[Any]]:
        """Run on host arrays; see ``run_once``."""
        with self.usage:
            return run_once(self, HostDevice(), inputs)

    def prepare(self, shapes: Mapping[str, tuple[int, ...]]) -> OnnxRuntimeExecution:
        """An execution on buffers of the host."""
        return OnnxRuntimeExecution(self, axis_sizes(self.component, self.record, shapes))

    def close(self) -> None:
        """Drop the sessions and their memory, once the calls inside have ended."""
        self.usage.close()
        self._sessions.clear()
        if self._workers is not None:
            self._workers.shutdown()

    def parts(self, rows: int) -> tuple[ort.InferenceSession, list[tuple[int, int]]]:
        """The session for so many rows, and the rows of each of its calls, which run side by side."""
        if not (self._split_rows and rows >= self._threads):
            return self._session(self._threads), [(0, rows)]
        return self._session(1), list(pairwise(rows * i // self._threads for i in range(self._threads + 1)))

    def call_parts(self, calls: Sequence[Callable[[], T]]) -> list[T]:
        """Make all calls side by side, the first one in this thread; none is left running when one fails."""
        if self._workers is None:
            return [call() for call in calls]
        others = [self._workers.submit(call) for call in calls[1:]]
        try:
            first = calls[0]()
        finally:
            wait(others)  # whoever is told of an error may free the buffers that they write into
        return [first, *(future.result() for future in others)]

    def failed(self, error: Exception, sizes: Mapping[str, int]) -> EngineError:
        """The error for a call that ONNX Runtime refused; its own errors share no base class."""
        received = ", ".join(f"{axis} {size}" for axis, size in sizes.items())
        return EngineError(f"{self.component}: ONNX Runtime failed: {error}", received=received)

    def _session(self, threads: int) -> ort.InferenceSession:
        with self._opening:
            if threads not in self._sessions:
                try:
                    self._sessions[threads] = self._open_session(threads)
                except LatentRTError:  # the bundle's files
                    raise
                except Exception as error:  # ONNX Runtime's errors share no base class
                    subject = f"{self.component}: ONNX Runtime {ort.__version__} cannot load the engine: {error}"
                    raise EngineError(subject) from error
            return self._sessions[threads]


class OnnxRuntimeExecution:
    """A component at one set of sizes, on buffers of the host: outputs are written where they belong."""

    workspace_bytes = 0
    capturable = False

    def __init__(self, engine: OnnxRuntimeEngine, sizes: Mapping[str, int]):
        self.outputs = output_shapes(engine.record, sizes)
        self._engine = engine
        self._sizes = sizes
        self._calls: list[Callable[[], None]] = []

    def bind(self, buffers: Mapping[str, Buffer], workspace: Buffer | None) -> None:
        """Bind the rows of each part; ONNX Runtime has memory of its own beside them.

        Raises:
            EngineError: a buffer of another shape or dtype, or a closed engine.
        """
        engine = self._engine
        check_buffers(engine.component, engine.record, self._sizes, buffers)
        with engine.usage:
            session, bounds = engine.parts(buffers[engine.record.inputs[0].name].shape[0])
            bindings = [
                binding_of(
                    session, engine.record, {name: buffer[start:stop] for name, buffer in buffers.items()}, "cpu"
                )
                for start, stop in bounds
            ]
        self._calls = [partial(session.run_with_iobinding, binding) for binding in bindings]

    def enqueue(self, stream: Stream) -> None:
        """Run; the outputs are there when it returns.

        Raises:
            EngineError: the engine is closed, or ONNX Runtime refuses; the message names the component.
        """
        with self._engine.usage:
            try:
                self._engine.call_parts(self._calls)
            except Exception as error:
                raise self._engine.failed(error, self._sizes) from error

    def close(self) -> None:
        """Let go of the buffers."""
        self._calls = []


def binding_of(
    session: ort.InferenceSession, record: Component, buffers: Mapping[str, Buffer], device: str
) -> ort.IOBinding:
    """A binding of a component's inputs and outputs to memory of ``device``, ``"cpu"`` or ``"cuda"``."""
    binding = session.io_binding()
    for spec in record.inputs:
        buffer = buffers[spec.name]
        binding.bind_input(spec.name, device, 0, buffer.dtype.type, buffer.shape, buffer.pointer)
    for spec in record.outputs:
        buffer = buffers[spec.name]
        binding.bind_output(spec.name, device, 0, buffer.dtype.type, buffer.shape, buffer.pointer)
    return binding


def session_from_graph(graph: bytes, weights: Mapping[str, memoryview], *, threads: int) -> ort.InferenceSession:
    """A session for a serialized graph whose external weights are given by the locations it names.

    Workers wait for the next operator of a call by spinning, and stop when the call returns: one that kept spinning
    would take a processor from the next component's session, which has workers of its own.
    """
    options = session_options(weights)
    options.intra_op_num_threads = threads
    options.add_session_config_entry("session.intra_op.allow_spinning", "1")
    options.add_session_config_entry("session.force_spinning_stop", "1")
    return ort.InferenceSession(graph, options, providers=["CPUExecutionProvider"])


def session_options(weights: Mapping[str, memoryview]) -> ort.SessionOptions:
    """What sessions of every provider are made with; ``weights`` must be there until the session is."""
    options = ort.SessionOptions()
    options.log_severity_level = _LOG_ERRORS
    if weights:
        views = [np.frombuffer(view, np.uint8) for view in weights.values()]
        options.add_external_initializers_from_files_in_memory(list(weights), views, [view.nbytes for view in views])
    return options


def open_device(*bundles: Bundle) -> HostDevice:
    """The processor."""
    return HostDevice()


def check(records: Iterable[EngineRecord]) -> None:
    """Any processor runs any engine of this provider."""


def load_engine(
    bundle: Bundle, record: EngineRecord, *, device: Device, threads: int, options: Mapping[str, str]
) -> OnnxRuntimeEngine:
    """Load a component's engine.

    Raises:
        EngineError: ONNX Runtime does not accept the graph.
    """

    def open_session(session_threads: int) -> ort.InferenceSession:
        weights = {name: bundle.map(name) for name in record.weights}
        return session_from_graph(bundle.read(record.path), weights, threads=session_threads)

    small = sum(bundle.manifest.files[name].size for name in record.weights) < _SMALL_WEIGHTS
    split_rows = small and record.component == "denoiser"
    contract = bundle.manifest.components[record.component]
    return OnnxRuntimeEngine(record.component, contract, open_session, threads=threads, split_rows=split_rows)
