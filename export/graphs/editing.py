"""What every edit of an ONNX graph needs: a constant, and nodes in the place of a value."""

from __future__ import annotations

import numpy as np
import onnx_ir as ir


def replace_value(value: ir.Value, nodes: list[ir.Node]) -> None:
    """Put the output of the last of some new nodes in place of a value, with its name: outputs are known by name."""
    old, new = value.producer(), nodes[-1].outputs[0]
    old.graph.insert_after(old, nodes)
    value.replace_all_uses_with(new, replace_graph_outputs=True)
    new.dtype, new.shape = value.dtype, value.shape
    old.graph.remove(old, safe=True)
    new.name = value.name


def constant(name: str, values: np.ndarray) -> ir.Value:
    value = ir.Value(name=name, shape=ir.Shape(values.shape), type=ir.TensorType(ir.DataType.from_numpy(values.dtype)))
    value.const_value = ir.tensor(np.array(values, order="C"), name=name)
    return value
