"""ONNX Runtime on the CPU.

An engine of this provider is an ONNX graph in the spelling that ONNX Runtime runs fastest; its weights stay in the
bundle's weight files, which are mapped, handed over by name, and shared with every other graph that refers to them.
"""

from __future__ import annotations

import threading
from collections.abc import Callable, Mapping
from concurrent.futures import ThreadPoolExecutor
from itertools import pairwise
from typing import Any

import numpy as np
import onnxruntime as ort
from numpy.typing import NDArray

from ..bundle import Bundle
from ..errors import EngineError, LatentRTError

#: ONNX Runtime's severities: 3 is error. Its warnings on our graphs concern optimizer details.
_LOG_ERRORS = 3

#: Denoisers with fewer bytes of weights than this run each row on a thread of its own. Their operators are so short
#: that sharing each among threads costs more than it gives: 2 rows of the emoji denoiser take 4.9 ms on two threads of
#: their own and 6.7 ms shared. Large ones are bound by arithmetic, and a second session would double their memory.
_SMALL_WEIGHTS = 256 << 20

OpenSession = Callable[[int], ort.InferenceSession]


class OnnxRuntimeEngine:
    """One component, as one session that uses all threads for a call, or one that many threads call, row by row.

    Either is made when a call first needs it. Safe to call from several threads.
    """

    def __init__(
        self, component: str, open_session: OpenSession, outputs: tuple[str, ...], *, threads: int, split_rows: bool
    ):
        self.component = component
        self._open_session: OpenSession | None = open_session
        self._outputs = outputs
        self._threads = threads
        self._split_rows = split_rows and threads > 1
        self._sessions: dict[int, ort.InferenceSession] = {}
        self._opening = threading.Lock()
        self._workers = ThreadPoolExecutor(threads - 1, "latentrt-rows") if self._split_rows else None
        self._session(1 if self._splits(rows=2) else threads)  # what a picture with guidance uses

    def run(self, inputs: Mapping[str, NDArray[Any]]) -> dict[str, NDArray[Any]]:
        """Run on host arrays, the first axis of each being the batch.

        Raises:
            EngineError: the engine is closed, or ONNX Runtime refuses; the message names the component.
        """
        rows = len(next(iter(inputs.values())))
        if not self._splits(rows):
            return dict(zip(self._outputs, self._call(self._session(self._threads), inputs), strict=True))
        session = self._session(1)
        bounds = [rows * i // self._threads for i in range(self._threads + 1)]
        parts = [{name: value[start:stop] for name, value in inputs.items()} for start, stop in pairwise(bounds)]
        assert self._workers is not None
        others = [self._workers.submit(self._call, session, part) for part in parts[1:]]
        results = [self._call(session, parts[0]), *(future.result() for future in others)]
        return {name: np.concatenate(values) for name, *values in zip(self._outputs, *results, strict=True)}

    def close(self) -> None:
        """Drop the sessions and their memory."""
        self._open_session = None
        self._sessions.clear()
        if self._workers is not None:
            self._workers.shutdown()

    def _splits(self, rows: int) -> bool:
        return self._split_rows and rows >= self._threads

    def _session(self, threads: int) -> ort.InferenceSession:
        with self._opening:
            if self._open_session is None:
                raise EngineError(f"{self.component}: the engine is closed", remedy="load the bundle again")
            if threads not in self._sessions:
                try:
                    self._sessions[threads] = self._open_session(threads)
                except LatentRTError:  # the bundle's files
                    raise
                except Exception as error:  # ONNX Runtime's errors share no base class
                    subject = f"{self.component}: ONNX Runtime {ort.__version__} cannot load the engine: {error}"
                    raise EngineError(subject) from error
            return self._sessions[threads]

    def _call(self, session: ort.InferenceSession, inputs: Mapping[str, NDArray[Any]]) -> list[NDArray[Any]]:
        try:
            values: list[NDArray[Any]] = session.run(self._outputs, inputs)
        except Exception as error:  # ONNX Runtime's errors share no base class
            shapes = ", ".join(f"{name} {value.dtype}{list(value.shape)}" for name, value in inputs.items())
            raise EngineError(f"{self.component}: ONNX Runtime failed: {error}", received=shapes) from error
        return values


def session_from_graph(graph: bytes, weights: Mapping[str, memoryview], *, threads: int) -> ort.InferenceSession:
    """A session for a serialized graph whose external weights are given by the locations it names.

    Workers wait for the next operator of a call by spinning, and stop when the call returns: one that kept spinning
    would take a processor from the next component's session, which has workers of its own.
    """
    options = ort.SessionOptions()
    options.log_severity_level = _LOG_ERRORS
    options.intra_op_num_threads = threads
    options.add_session_config_entry("session.intra_op.allow_spinning", "1")
    options.add_session_config_entry("session.force_spinning_stop", "1")
    if weights:
        views = [np.frombuffer(view, np.uint8) for view in weights.values()]
        options.add_external_initializers_from_files_in_memory(list(weights), views, [view.nbytes for view in views])
    return ort.InferenceSession(graph, options, providers=["CPUExecutionProvider"])


def load_engine(bundle: Bundle, component: str, *, threads: int) -> OnnxRuntimeEngine:
    """Load a component's engine.

    Raises:
        EngineError: ONNX Runtime does not accept the graph.
    """
    record = bundle.engines("onnxruntime-cpu")[component]
    outputs = tuple(tensor.name for tensor in bundle.manifest.components[component].outputs)

    def open_session(session_threads: int) -> ort.InferenceSession:
        weights = {name: bundle.map(name) for name in record.weights}
        return session_from_graph(bundle.read(record.path), weights, threads=session_threads)

    small = sum(bundle.manifest.files[name].size for name in record.weights) < _SMALL_WEIGHTS
    split_rows = small and component == "denoiser"
    return OnnxRuntimeEngine(component, open_session, outputs, threads=threads, split_rows=split_rows)
