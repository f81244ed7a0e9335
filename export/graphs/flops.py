"""The work that an ONNX graph is, at given sizes of its axes: arithmetic and bytes. No weight is read."""

from __future__ import annotations

import ast
import functools
import math
import operator
import re
from collections import defaultdict
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path

import onnx_ir as ir

from ...runtime.errors import ExportError
from .precision import MATRIX_OPERATORS


@dataclass(frozen=True)
class GraphWork:
    """What one run of a graph takes.

    ``flops`` has two for each multiply-add of a convolution, a product or an attention, as is usual: norms, activations
    and sums count as none. ``by_operator`` splits them by type of operator. ``weight_bytes`` is what the graph holds.
    ``activation_bytes`` is what its nodes read and write beside that: what would be moved if nothing were fused.
    """

    flops: int
    weight_bytes: int
    activation_bytes: int
    by_operator: Mapping[str, int]


def graph_work(path: str | Path, sizes: Mapping[str, int]) -> GraphWork:
    """The work of the portable graph in a file, as ``work_of`` has it."""
    return work_of(ir.load(path), sizes)


def work_of(model: ir.Model, sizes: Mapping[str, int]) -> GraphWork:
    """The work of a portable graph. ``sizes`` has the axes of its inputs: ``rows``, ``height`` (of latents), ...

    Raises:
        ExportError: a graph whose shapes do not follow from those axes, or an operator whose work is not known.
    """
    graph = model.graph
    by_operator: dict[str, int] = defaultdict(int)
    moved = 0
    for node in graph:
        shapes = _Shapes(node, sizes)
        if node.op_type in _FLOPS:
            by_operator[node.op_type] += _FLOPS[node.op_type](node, shapes)
        elif node.op_type in MATRIX_OPERATORS and len(node.inputs) > 1:  # an Einsum of one tensor moves it, no more
            raise ExportError(f"{node.name}: how much work {node.op_type} is, nobody has said here yet")
        inputs = (value for value in node.inputs if value is not None and not value.is_initializer())
        moved += sum(shapes.bytes_of(value) for value in (*inputs, *node.outputs))
    weights = sum(value.const_value.nbytes for value in graph.initializers.values() if value.const_value is not None)
    return GraphWork(sum(by_operator.values()), weights, moved, dict(by_operator))


@dataclass(frozen=True)
class _Shapes:
    """The shapes of the values around a node, with numbers for the axes."""

    node: ir.Node
    sizes: Mapping[str, int]

    def input(self, index: int) -> tuple[int, ...]:
        return self.of(self.node.inputs[index])

    def output(self) -> tuple[int, ...]:
        return self.of(self.node.outputs[0])

    def of(self, value: ir.Value) -> tuple[int, ...]:
        if value.shape is None:
            raise ExportError(f"{self.node.name}: the graph does not say which shape {value.name} has")
        return tuple(size if isinstance(size, int) else axis_size(str(size.value), self.sizes) for size in value.shape)

    def bytes_of(self, value: ir.Value) -> int:
        return math.ceil(math.prod(self.of(value)) * float(value.dtype.itemsize))


def _convolution(node: ir.Node, shapes: _Shapes) -> int:
    return 2 * math.prod(shapes.output()) * math.prod(shapes.input(1)[1:])  # kernel: [out, in / groups, ...]


def _transposed_convolution(node: ir.Node, shapes: _Shapes) -> int:
    return 2 * math.prod(shapes.input(0)) * math.prod(shapes.input(1)[1:])  # kernel: [in, out / groups, ...]


def _product(node: ir.Node, shapes: _Shapes) -> int:
    transposed = node.op_type == "Gemm" and "transA" in node.attributes and node.attributes["transA"].as_int()
    return 2 * math.prod(shapes.output()) * shapes.input(0)[0 if transposed else -1]


def _attention(node: ir.Node, shapes: _Shapes) -> int:
    """Scores and weighted sums of ``[rows, heads, S, D]`` or ``[rows, S, heads * D]``, as if nothing were masked."""
    queries, keys, values = (shapes.input(index) for index in range(3))
    return 2 * (math.prod(queries) * keys[-2] + queries[-2] * math.prod(values))


_FLOPS: dict[str, Callable[[ir.Node, _Shapes], int]] = {
    "Attention": _attention,
    "Conv": _convolution,
    "ConvTranspose": _transposed_convolution,
    "Gemm": _product,
    "MatMul": _product,
}

_OPERATIONS: dict[type[ast.operator], Callable[[int, int], int]] = {
    ast.Add: operator.add,
    ast.Sub: operator.sub,
    ast.Mult: operator.mul,
    ast.FloorDiv: operator.floordiv,
    ast.Mod: operator.mod,
    ast.Pow: operator.pow,
}
_FUNCTIONS: dict[str, Callable[..., int]] = {"Max": max, "Min": min}

#: An axis in pixels, as the graph's inputs have it: ``8_height`` is eight times ``height``.
_MULTIPLE = re.compile(r"\b(\d+)_([a-z]\w*)")


def axis_size(expression: str, sizes: Mapping[str, int]) -> int:
    """A dimension as torch writes it, such as ``2*(((height - 1)//2)) + 2``, at the given sizes of the axes.

    Raises:
        ExportError: one that does not follow from them.
    """

    def value(node: ast.expr) -> int:
        match node:
            case ast.Constant(value=int(number)):
                return number
            case ast.Name(id=name) if name in sizes:
                return sizes[name]
            case ast.BinOp(left=left, op=operation, right=right) if type(operation) in _OPERATIONS:
                return _OPERATIONS[type(operation)](value(left), value(right))
            case ast.UnaryOp(op=ast.USub(), operand=operand):
                return -value(operand)
            case ast.Call(func=ast.Name(id=name), args=arguments) if name in _FUNCTIONS:
                return _FUNCTIONS[name](*map(value, arguments))
        raise ExportError(f"{expression}: not a size of the axes", expected=", ".join(sizes))

    return value(_parsed(expression))


@functools.lru_cache(maxsize=4096)  # a graph has a few hundred, each of them many times
def _parsed(expression: str) -> ast.expr:
    return ast.parse(_MULTIPLE.sub(r"(\1*\2)", expression), mode="eval").body
