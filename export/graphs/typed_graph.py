"""A precision plan written into an fp32 ONNX graph, and an independent check that it is in there."""

from __future__ import annotations

import functools
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field

import onnx
import onnx_ir as ir
import torch
from onnx_ir.passes.common import RemoveUnusedNodesPass
from onnx_ir.tensor_adapters import TorchTensor

from ...runtime.bundles.spec import TensorSpec
from ...runtime.errors import ExportError
from .precision import FP32_INSIDE, FP32_OPERATORS, MATRIX_OPERATORS, PrecisionPlan

#: The ending that a weight's name gets when it is stored transposed.
TRANSPOSED = ".T"

_FLOAT = ir.DataType.FLOAT
_TYPES = {"fp32": _FLOAT, "fp16": ir.DataType.FLOAT16, "bf16": ir.DataType.BFLOAT16}
_IO_TYPES = {"float32": _FLOAT, "float16": ir.DataType.FLOAT16}
_TORCH_DTYPES = {ir.DataType.FLOAT16: torch.float16, ir.DataType.BFLOAT16: torch.bfloat16}


def write_precision(
    model: ir.Model, plan: PrecisionPlan, inputs: Sequence[TensorSpec], outputs: Sequence[TensorSpec]
) -> None:
    """Give every value of an fp32 graph the type that the plan says, with casts where types meet. In place.

    Matrix operators take the plan's format, islands take fp32, and everything else takes the widest of what it is
    given: values stay in fp32 from an island to the next matrix operator. Weights follow their operator, and are
    converted when their content is asked for.
    """
    for node in model.graph:
        if node.domain == "" and node.op_type in FP32_INSIDE:
            node.attributes.add(ir.AttrInt64(FP32_INSIDE[node.op_type], int(_FLOAT)))
    if plan.compute == "fp32":
        return
    typing = _Typing(model.graph, plan, model.opset_imports)
    for value, spec in zip(model.graph.inputs, inputs, strict=True):
        _set_type(value, _IO_TYPES.get(spec.dtype, value.dtype))
    for node in list(model.graph):
        typing.visit(node)
    for index, spec in enumerate(outputs):
        typing.set_output(index, _IO_TYPES.get(spec.dtype))
    typing.register_weights()


@dataclass
class _Typing:
    """One pass over a graph, and which of its values exist in which types."""

    graph: ir.Graph
    plan: PrecisionPlan
    opsets: dict[str, int]
    _converted: dict[tuple[ir.Value, ir.DataType], ir.Value] = field(default_factory=dict)

    def visit(self, node: ir.Node) -> None:
        """Cast what a node is given to what it computes in, and type what it gives."""
        inputs, outputs = _type_variables(node, self.opsets[node.domain])
        floats = [i for i, value in enumerate(node.inputs) if value is not None and _is_float(value)]
        if not floats or node.op_type == "Cast":  # typed by itself; what is made of integers is fp32
            return
        computed_in = self._computed_in(node, [node.inputs[i] for i in floats])
        starts_sum = computed_in != _FLOAT and _has_weight(node, self.plan.fp32_sums)
        for i in floats:
            wanted = _FLOAT if inputs[i] == "tensor(float)" else computed_in
            node.replace_input_with(i, self._in_type(node.inputs[i], wanted))
        of_floats = {inputs[i] for i in floats}
        for value, variable in zip(node.outputs, outputs, strict=True):
            if variable in of_floats:
                _set_type(value, computed_in)
        if starts_sum:
            self._keep_sum(node.outputs[0])

    def set_output(self, index: int, wanted: ir.DataType | None) -> None:
        """Give an output of the graph its type, and let it keep its name."""
        value = self.graph.outputs[index]
        if wanted is None or value.dtype == wanted:
            return
        name, value.name = value.name, f"{value.name}_{value.dtype.name.lower()}"
        output = self._cast(value, wanted)
        output.name, self.graph.outputs[index] = name, output

    def register_weights(self) -> None:
        """Put the converted weights into the graph, in place of the originals unless those are used as well."""
        for (original, _), weight in self._converted.items():
            if weight.producer() is not None:
                continue
            if not original.uses():
                del self.graph.initializers[original.name]
                weight.name = original.name
            self.graph.register_initializer(weight)

    def _computed_in(self, node: ir.Node, given: Sequence[ir.Value]) -> ir.DataType:
        if node.op_type in MATRIX_OPERATORS:
            in_fp32 = _has_weight(node, self.plan.fp32_weights)
            in_fp32 |= node.op_type == "Attention" and self.plan.fp32_attention
            return _FLOAT if in_fp32 else _TYPES[self.plan.compute]
        computed = {value.dtype for value in given if not value.is_initializer()}
        return _FLOAT if node.op_type in FP32_OPERATORS or _FLOAT in computed else _TYPES[self.plan.compute]

    def _keep_sum(self, value: ir.Value) -> None:
        uses = list(value.uses())
        wide = self._cast(value, _FLOAT)
        for use in uses:
            use.node.replace_input_with(use.idx, wide)

    def _in_type(self, value: ir.Value, wanted: ir.DataType) -> ir.Value:
        if value.dtype == wanted:
            return value
        if (value, wanted) not in self._converted:
            make = self._weight if value.is_initializer() else self._cast
            self._converted[value, wanted] = make(value, wanted)
        return self._converted[value, wanted]

    def _cast(self, value: ir.Value, wanted: ir.DataType) -> ir.Value:
        cast = ir.node("Cast", [value], {"to": wanted}, name=f"{value.name}_to_{wanted.name.lower()}")
        result = cast.outputs[0]
        result.name, result.dtype, result.shape = cast.name, wanted, value.shape
        producer = value.producer()
        if producer is None:
            self.graph.insert_before(self.graph[0], cast)
        else:
            self.graph.insert_after(producer, cast)
        return result

    def _weight(self, value: ir.Value, wanted: ir.DataType) -> ir.Value:
        tensor, name = value.const_value, f"{value.name}.{wanted.name.lower()}"
        weight = ir.Value(name=name, shape=value.shape, type=ir.TensorType(wanted))
        read = functools.partial(_converted, tensor, wanted)
        weight.const_value = ir.LazyTensor(read, wanted, tensor.shape, name=name)
        return weight


def transpose_weights(model: ir.Model) -> int:
    """Store weights the way their operator wants them: torch's linear layers keep them transposed, and a graph would
    do it again in every session. The name of such a weight ends in ``TRANSPOSED``. Returns how many there are."""
    count = 0
    for node in list(model.graph):
        source = node.inputs[0] if node.op_type == "Transpose" else None
        if source is None or not source.is_initializer() or source.is_graph_input():
            continue
        permutation = tuple(node.attributes["perm"].as_ints())
        tensor, result, name = source.const_value, node.outputs[0], f"{source.name}{TRANSPOSED}"
        shape = ir.Shape([tensor.shape[axis] for axis in permutation])
        value = ir.Value(name=name, shape=shape, type=ir.TensorType(tensor.dtype))
        value.const_value = ir.LazyTensor(
            functools.partial(_transposed, tensor, permutation), tensor.dtype, shape, name=name
        )
        model.graph.register_initializer(value)
        result.replace_all_uses_with(value)
        model.graph.remove(node, safe=True)
        count += 1
    RemoveUnusedNodesPass()(model)
    return count


def check_precision(model: ir.Model, plan: PrecisionPlan) -> None:
    """Check what a graph computes in, from nothing but the types of its values.

    Raises:
        ExportError: matrix operators that are not in the plan's format, or islands that are not in fp32, by name.
    """
    wrong = [
        f"{node.op_type} {node.outputs[0].name} in {received.name.lower()}"
        for node in model.graph.all_nodes()
        for received, expected in _formats(node, plan)
        if received != expected
    ]
    if wrong:
        raise ExportError(
            "the graph does not follow its precision plan",
            received=", ".join(wrong[:5]) + (f" and {len(wrong) - 5} more" if wrong[5:] else ""),
            expected=f"matrix operators in {plan.compute}, islands in fp32",
        )


def _formats(node: ir.Node, plan: PrecisionPlan) -> Iterator[tuple[ir.DataType, ir.DataType]]:
    """Pairs of the format that something is computed in and of the one that it should be."""
    computed_in = node.outputs[0].dtype
    if node.op_type in MATRIX_OPERATORS:
        wide = _has_weight(node, plan.fp32_weights) or (node.op_type == "Attention" and plan.fp32_attention)
        yield computed_in, _FLOAT if wide else _TYPES[plan.compute]
    elif node.op_type in FP32_OPERATORS and _is_float(node.outputs[0]):
        yield computed_in, _FLOAT
    if node.op_type in FP32_INSIDE:
        attribute = node.attributes.get(FP32_INSIDE[node.op_type])
        yield ir.DataType(attribute.as_int()) if attribute else computed_in, _FLOAT
    for use in node.outputs[0].uses() if _has_weight(node, plan.fp32_sums) else ():
        yield _FLOAT if use.node.op_type == "Cast" else computed_in, _FLOAT


def _has_weight(node: ir.Node, endings: tuple[str, ...]) -> bool:
    """Whether a node works with a parameter whose name has one of the endings."""
    names = (value.name.split(TRANSPOSED)[0] for value in node.inputs if value is not None and value.is_initializer())
    return bool(endings) and any(name.endswith(endings) for name in names)


def _type_variables(node: ir.Node, opset: int) -> tuple[list[str], list[str]]:
    """The type of every input and output in the operator's definition: the name of a type variable, or a type."""
    schema = onnx.defs.get_schema(node.op_type, opset, node.domain)
    return _repeated(schema.inputs, len(node.inputs)), _repeated(schema.outputs, len(node.outputs))


def _repeated(parameters: Sequence[onnx.defs.OpSchema.FormalParameter], count: int) -> list[str]:
    """One for each of ``count`` values; the last parameter of an operator may stand for any number of them."""
    return [parameters[min(index, len(parameters) - 1)].type_str for index in range(count)]


def _set_type(value: ir.Value, dtype: ir.DataType) -> None:
    value.type = ir.TensorType(dtype)  # a new one: clones of a graph share their values' types


def _is_float(value: ir.Value) -> bool:
    return value.dtype in _TYPES.values()


def _converted(tensor: ir.TensorProtocol, wanted: ir.DataType) -> ir.TensorProtocol:
    """A tensor's content in another format. A single number, which is what masks are made of, is brought into range.

    Raises:
        ExportError: a weight that the format cannot hold.
    """
    content, limits = torch.from_numpy(tensor.numpy()), torch.finfo(_TORCH_DTYPES[wanted])
    if content.numel() == 1:
        content = content.clamp(limits.min, limits.max)
    elif content.numel() > 0:
        least, most = (float(value) for value in content.aminmax())
        if not (limits.min <= least and most <= limits.max):
            raise ExportError(
                f"{tensor.name}: a weight that {wanted.name.lower()} cannot hold",
                received=f"{least:g} to {most:g}",
                expected=f"{limits.min:g} to {limits.max:g}",
                remedy="build with --precision bf16 or fp32",
            )
    return TorchTensor(content.to(_TORCH_DTYPES[wanted]), name=tensor.name)


def _transposed(tensor: ir.TensorProtocol, permutation: tuple[int, ...]) -> ir.TensorProtocol:
    content = torch.from_numpy(tensor.numpy()).permute(permutation).contiguous()
    return TorchTensor(content, name=tensor.name)
