"""Where a graph leaves the range of its precision: what to look at when its outputs are not finite."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path

import numpy as np
import onnx_ir as ir

from ...runtime.bundles.manifest import Component
from ...runtime.providers import available_threads
from ..graphs.flops import graph_work
from ..memory import available_memory
from .examples import Array
from .graph_gate import mapped_weights, runnable_graph

_FLOATS = (ir.DataType.FLOAT, ir.DataType.FLOAT16)


def first_overflow(record: Component, folder: Path, sizes: dict[str, int], inputs: Mapping[str, Array]) -> str:
    """The first node of a portable graph that gives infinity or what is not a number, in words.

    It is empty if there is none, or if what all nodes give does not fit into memory. Minus infinity does not count:
    masks are made of it.
    """
    from ...runtime.providers.onnxruntime import session_from_graph

    if graph_work(folder / record.onnx, sizes).activation_bytes > available_memory():
        return ""
    model = runnable_graph(folder / record.onnx)
    values = [value for node in model.graph for value in node.outputs if value.dtype in _FLOATS]
    model.graph.outputs.extend(value for value in values if value not in set(model.graph.outputs))
    graph = ir.to_proto(model).SerializeToString()
    session = session_from_graph(graph, mapped_weights(record, folder), threads=available_threads())
    given = dict(
        zip((value.name for value in values), session.run([value.name for value in values], inputs), strict=True)
    )
    for value in values:
        content = given[value.name]
        if np.isnan(content).any() or np.isposinf(content).any():
            node = value.producer()
            return f"{node.name or value.name} ({node.op_type})"
    return ""
