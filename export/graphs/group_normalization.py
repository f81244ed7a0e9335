"""Group normalisation as ONNX Runtime runs it fast, and adds it up well.

It has no kernel for ``GroupNormalization``: it expands it into fifteen element-wise passes, and takes the variance for
E[x^2] - E[x]^2.
"""

from __future__ import annotations

import math
from collections.abc import Mapping

import numpy as np
import onnx_ir as ir

from .editing import constant, replace_value
from .flops import axis_size

#: Values of a group beyond which ``InstanceNormalization`` is not used on the CPU. There it adds them up one by one in
#: fp32: 65 thousand cost a relative error of 2e-7 to 2e-6, a million 1e-5, four million 8e-5 (by axes 4e-8 to 4e-7).
SUM_LIMIT = 1 << 17


def lower_group_normalization(
    model: ir.Model, largest: Mapping[str, int] | None = None, *, on_gpu: bool = False
) -> int:
    """``GroupNormalization`` -> operators that ONNX Runtime has; returns how many were rewritten.

    Where a group has few values at the ``largest`` sizes of the axes, that is one ``InstanceNormalization`` over
    ``[rows, groups, -1]``; where it has many, and without sizes, means are taken axis by axis. Scale and bias are one
    pass as a ``BatchNormalization`` of mean 0 and variance 1: the same bits as Mul and Add. In fp16 the statistics are
    fp32, as GroupNormalization's stash type says.

    ``on_gpu`` it is the first of these two for any size, and fp16 stays what it is: cuDNN takes the statistics of fp16
    in fp32, and adds up in many threads.
    """
    rewritten = 0
    for node in list(model.graph):
        if node.op_type != "GroupNormalization" or node.domain != "":
            continue
        x, scale, bias = node.inputs
        if x is None or x.shape is None or x.dtype not in (ir.DataType.FLOAT, ir.DataType.FLOAT16):
            continue
        channels = x.shape[1]
        if not isinstance(channels, int) or scale is None or bias is None:
            continue
        build = _Nodes(model, node.outputs[0].name)
        groups = node.attributes["num_groups"].as_int()
        epsilon = node.attributes["epsilon"].as_float() if "epsilon" in node.attributes else 1e-5
        wide = build("Cast", x, to=ir.DataType.FLOAT) if x.dtype == ir.DataType.FLOAT16 and not on_gpu else x
        if on_gpu or (largest is not None and _values(x.shape, groups, largest) <= SUM_LIMIT):
            kind = x.dtype.numpy() if on_gpu else np.dtype(np.float32)
            normalized = _instance_normalization(build, wide, groups, epsilon, kind)
        else:
            normalized = _by_axes(build, wide, groups, x.shape, epsilon)
        if wide is not x:
            normalized = build("Cast", normalized, to=x.dtype)
        normalized.dtype, normalized.shape = x.dtype, x.shape
        zero, one = (build.constant(values(channels, x.dtype.numpy())) for values in (np.zeros, np.ones))
        build("BatchNormalization", normalized, scale, bias, zero, one, epsilon=0.0)
        replace_value(node.outputs[0], build.nodes)
        rewritten += 1
    return rewritten


class _Nodes:
    """Nodes that are made one after the other for one place in a graph."""

    def __init__(self, model: ir.Model, name: str):
        self.nodes: list[ir.Node] = []
        self._model, self._name, self._constants = model, name, 0

    def __call__(self, operator: str, *inputs: ir.Value, **attributes: float | list[int]) -> ir.Value:
        self.nodes.append(ir.node(operator, inputs, attributes))
        return self.nodes[-1].outputs[0]

    def constant(self, values: np.ndarray) -> ir.Value:
        value = constant(f"{self._name}.{self._constants}", values)
        self._constants += 1
        self._model.graph.register_initializer(value)
        return value

    def numbers(self, *values: int) -> ir.Value:
        return self.constant(np.array(values, np.int64))


def _values(shape: ir.Shape, groups: int, sizes: Mapping[str, int]) -> int:
    """How many values of ``[rows, C, ...]`` a group has."""
    each = (size if isinstance(size, int) else axis_size(str(size.value), sizes) for size in shape[1:])
    return math.prod(each) // groups


def _instance_normalization(build: _Nodes, x: ir.Value, groups: int, epsilon: float, kind: np.dtype) -> ir.Value:
    ones, zeros = (build.constant(values(groups, kind)) for values in (np.ones, np.zeros))
    grouped = build("Reshape", x, build.numbers(0, groups, -1))
    return build("Reshape", build("InstanceNormalization", grouped, ones, zeros, epsilon=epsilon), build("Shape", x))


def _by_axes(build: _Nodes, x: ir.Value, groups: int, shape: ir.Shape, epsilon: float) -> ir.Value:
    """Means over one axis after another, and last over a group's channels: no sum has more values than one axis."""
    last, channels = len(shape) - 1, shape[1]
    grouped, spread = build.numbers(0, groups, -1), build.numbers(1, 1, channels // groups)
    of_channels = build.numbers(0, channels, *[1] * (last - 1))
    axes = {axis: build.numbers(axis) for axis in range(last, 1, -1)}

    def mean(values: ir.Value) -> ir.Value:  # [rows, C, h, w] -> [rows, groups, 1]
        for axis in axes.values():
            values = build("ReduceMean", values, axis, keepdims=1)
        return build("ReduceMean", build("Reshape", values, grouped), axes[2], keepdims=1)

    def of_each_channel(values: ir.Value) -> ir.Value:  # [rows, groups, 1] -> [rows, C, 1, 1]
        return build("Reshape", build("Expand", values, spread), of_channels)

    centered = build("Sub", x, of_each_channel(mean(x)))
    variance = mean(build("Mul", centered, centered))
    deviation = build("Sqrt", build("Add", variance, build.constant(np.array(epsilon, np.float32))))
    return build("Mul", centered, of_each_channel(build("Reciprocal", deviation)))
