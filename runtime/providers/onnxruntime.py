"""ONNX Runtime on the CPU.

An engine of this provider is an ONNX graph in the spelling that ONNX Runtime runs fastest; its weights stay in the
bundle's weight files, which are mapped, handed over by name, and shared with every other graph that refers to them.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np
import onnxruntime as ort
from numpy.typing import NDArray

from ..bundle import Bundle
from ..errors import EngineError

#: ONNX Runtime's severities: 3 is error. Its warnings on our graphs concern optimizer details.
_LOG_ERRORS = 3


class OnnxRuntimeEngine:
    """One ONNX Runtime session."""

    def __init__(self, component: str, session: ort.InferenceSession, outputs: tuple[str, ...]):
        self.component = component
        self._session: ort.InferenceSession | None = session
        self._outputs = outputs

    def run(self, inputs: Mapping[str, NDArray[Any]]) -> dict[str, NDArray[Any]]:
        """Run on host arrays; raises EngineError naming the component when ONNX Runtime refuses."""
        if self._session is None:
            raise EngineError(f"{self.component}: the engine is closed", remedy="load the bundle again")
        try:
            values = self._session.run(self._outputs, inputs)
        except Exception as error:  # ONNX Runtime's errors share no base class
            shapes = ", ".join(f"{name} {value.dtype}{list(value.shape)}" for name, value in inputs.items())
            raise EngineError(f"{self.component}: ONNX Runtime failed: {error}", received=shapes) from error
        return dict(zip(self._outputs, values, strict=True))

    def close(self) -> None:
        """Drop the session and its memory."""
        self._session = None


def session_options(*, threads: int, keep_spinning: bool) -> ort.SessionOptions:
    """Options of every session here.

    Idle workers spin while the next call is microseconds away (the denoising loop) and stop at once elsewhere, so
    that the workers of one component never compete with those of the next for a processor.
    """
    options = ort.SessionOptions()
    options.log_severity_level = _LOG_ERRORS
    options.intra_op_num_threads = threads
    options.add_session_config_entry("session.intra_op.allow_spinning", "1")
    options.add_session_config_entry("session.force_spinning_stop", "0" if keep_spinning else "1")
    return options


def session_from_graph(
    graph: bytes, weights: Mapping[str, memoryview], *, threads: int, keep_spinning: bool = False
) -> ort.InferenceSession:
    """A session for a serialized graph whose external weights are given by the locations it names."""
    options = session_options(threads=threads, keep_spinning=keep_spinning)
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
    graph = bundle.read(record.path)
    weights = {name: bundle.map(name) for name in record.weights}
    try:
        session = session_from_graph(graph, weights, threads=threads, keep_spinning=component == "denoiser")
    except Exception as error:  # ONNX Runtime's errors share no base class
        raise EngineError(f"{component}: ONNX Runtime {ort.__version__} cannot load the engine: {error}") from error
    return OnnxRuntimeEngine(component, session, outputs)
