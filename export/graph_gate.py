"""The gate of portable graphs: each runs as it is, in its own precision, in ONNX Runtime's CPU provider."""

from __future__ import annotations

import contextlib
import os
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import onnx_ir as ir

from ..runtime.manifest import Component, GateRecord
from ..runtime.providers import Engine
from .onnxruntime_compiler import engine_from_graph
from .tensorrt.resources import available_memory
from .verify import LARGE_COMPONENT, gate, samples
from .weights import GRAPH_FOLDER

#: Bytes of memory for each weight while a graph runs: ONNX Runtime computes half precision in fp32, on copies.
_RUN_BYTES = {"fp32": 8, "fp16": 6}


def cannot_run(record: Component) -> str:
    """Why ONNX Runtime's CPU provider cannot run a component's portable graph on this machine; empty if it can."""
    if record.precision not in _RUN_BYTES:
        return f"ONNX Runtime's CPU provider does not compute in {record.precision}"
    needed, available = record.parameters * _RUN_BYTES[record.precision], available_memory()
    if needed > available:
        return f"it takes about {needed / 1e9:.1f} GB of memory, and {available / 1e9:.1f} GB are available"
    return ""


@contextlib.contextmanager
def open_graph(component: str, record: Component, folder: Path) -> Iterator[Engine]:
    """A portable graph of the bundle in ``folder``, to be run."""
    views = {
        os.path.relpath(name, GRAPH_FOLDER): np.memmap(folder / name, np.uint8, "r").data for name in record.weights
    }
    outputs = tuple(spec.name for spec in record.outputs)
    engine = engine_from_graph(component, (folder / record.onnx).read_bytes(), views, outputs)
    try:
        yield engine
    finally:
        engine.close()


def gate_against_graph(component: str, record: Component, folder: Path, engine: Engine) -> tuple[GateRecord, ...]:
    """Compare an engine with the portable graph that it was built from.

    Raises:
        GateError: it differs.
    """
    large = is_large(record, folder)
    with open_graph(component, record, folder) as graph:
        expected = samples(record, graph.run, vocabulary=_vocabulary(folder / record.onnx), large=large)
    return gate(component, record, expected, engine.run)


def is_large(record: Component, folder: Path) -> bool:
    """Whether a component has so many weights that it is compared at one size only."""
    return sum((folder / name).stat().st_size for name in record.weights) > LARGE_COMPONENT


def _vocabulary(path: Path) -> int:
    """How many token ids a graph knows: the rows of the table that it looks ``input_ids`` up in; 0 without those."""
    values = [value for value in ir.load(path).graph.inputs if value.name == "input_ids"]
    for value in values:
        for use in value.uses():
            if use.node.op_type == "Gather" and use.idx == 1:
                return int(use.node.inputs[0].shape[0])
            if use.node.op_type == "Reshape" and use.idx == 0:
                values.append(use.node.outputs[0])
    return 0
