"""Graphs written as text, and run as they are."""

from __future__ import annotations

from typing import Any

import onnx
import onnx_ir as ir
import onnxruntime as ort
from numpy.typing import NDArray


def parsed(text: str) -> ir.Model:
    model = onnx.shape_inference.infer_shapes(onnx.parser.parse_model(text), strict_mode=True)
    onnx.checker.check_model(model)
    return ir.from_proto(model)


def run(model: ir.Model, inputs: dict[str, NDArray[Any]]) -> NDArray[Any]:
    options = ort.SessionOptions()
    options.log_severity_level = 3
    options.graph_optimization_level = ort.GraphOptimizationLevel.ORT_DISABLE_ALL
    session = ort.InferenceSession(ir.to_proto(model).SerializeToString(), options, ["CPUExecutionProvider"])
    wanted = {value.name for value in session.get_inputs()}
    return session.run(["y"], {name: value for name, value in inputs.items() if name in wanted})[0]


def operators(model: ir.Model) -> list[str]:
    return [node.op_type for node in model.graph]
