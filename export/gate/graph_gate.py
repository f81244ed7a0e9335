"""The gate of portable graphs: each runs in its own precision, in ONNX Runtime's CPU provider."""

from __future__ import annotations

import contextlib
import importlib.util
import os
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import onnx_ir as ir

from ...runtime.bundles.manifest import Component, GateRecord
from ...runtime.providers import Engine
from ..engines.onnxruntime_compiler import engine_from_graph
from ..graphs.flops import work_of
from ..graphs.group_normalization import lower_group_normalization
from ..graphs.rewrites import bfloat16_to_rounded_float32
from ..graphs.weights import GRAPH_FOLDER
from ..memory import available_memory
from .verify import MakeInputs, compared_sizes, gate, samples

#: Bytes of memory for each weight while a graph runs: ONNX Runtime computes half precision in fp32, on copies.
_RUN_BYTES = {"fp32": 8, "fp16": 6, "bf16": 6}


def cannot_run(record: Component) -> str:
    """Why ONNX Runtime's CPU provider cannot run a component's portable graph on this machine; empty if it can."""
    if importlib.util.find_spec("onnxruntime") is None:
        return "onnxruntime is not installed"
    needed = record.parameters * _RUN_BYTES[record.precision]
    if needed > available_memory():
        return f"it takes about {needed / 1e9:.1f} GB of memory, more than was available"
    return ""


@contextlib.contextmanager
def open_graph(component: str, record: Component, folder: Path) -> Iterator[Engine]:
    """A portable graph of the bundle in ``folder``, to be run. bf16 is computed in fp32 and rounded to bf16."""
    graph = ir.to_proto(runnable_graph(folder / record.onnx)).SerializeToString()
    engine = engine_from_graph(component, graph, mapped_weights(record, folder), record)
    try:
        yield engine
    finally:
        engine.close()


def graph_sizes(record: Component, folder: Path) -> tuple[dict[str, int], ...]:
    """The sizes to compare a component at."""
    graph = ir.load(folder / record.onnx)
    return compared_sizes(record.profile, lambda sizes: work_of(graph, sizes).flops)


def gate_against_graph(
    component: str, record: Component, folder: Path, engine: Engine, inputs: MakeInputs
) -> tuple[GateRecord, ...]:
    """Compare an engine with the portable graph that it was built from.

    Raises:
        GateError: it differs.
    """
    with open_graph(component, record, folder) as graph:
        expected = samples(graph.run, inputs, graph_sizes(record, folder))
    return gate(component, record, expected, engine.run)


def runnable_graph(path: Path) -> ir.Model:
    """A portable graph as ONNX Runtime can run it, and sums the groups of large pictures well enough to be compared."""
    model = ir.load(path)
    bfloat16_to_rounded_float32(model)
    lower_group_normalization(model)
    return model


def mapped_weights(record: Component, folder: Path) -> dict[str, memoryview]:
    """The weights of a portable graph by the locations that it names."""
    return {
        os.path.relpath(name, GRAPH_FOLDER): np.memmap(folder / name, np.uint8, "r").data for name in record.weights
    }
