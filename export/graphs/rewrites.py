"""Small edits of ONNX graphs, each on its own, that spell an operation the way a provider runs it fastest.

The portable graphs keep the high-level operators of opset 23; a rewrite lowers one of them, which is far easier than
finding it again in a graph of small operators.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import numpy as np
import onnx_ir as ir
from onnx_ir.passes.common import RemoveUnusedNodesPass

from .editing import constant, replace_value
from .group_normalization import lower_group_normalization

#: The domain of ONNX Runtime's own operators.
CONTRIB = "com.microsoft"

_SWAP_HEADS = (0, 2, 1, 3)  # [rows, S, heads, D] <-> [rows, heads, S, D]


def attention_to_multi_head_attention(model: ir.Model, *, on_gpu: bool = False) -> int:
    """``Attention`` between head-splitting and head-joining transposes -> ONNX Runtime's fused ``MultiHeadAttention``.

    It takes ``[rows, S, heads * D]`` as the projections give it, so six transposes and reshapes go away with it, and it
    uses a flash-attention kernel on the CPU. Only plain fp32 attention is rewritten: no mask, no causality, as many
    key heads as query heads. Returns how many were rewritten.

    ``on_gpu`` it has kernels for fp16 as well, with sums in fp32, and nothing else does without a matrix of all scores:
    attention that has other nodes around it gets the transposes that lead there and back.
    """
    rewritten = 0
    types = (ir.DataType.FLOAT, ir.DataType.FLOAT16) if on_gpu else (ir.DataType.FLOAT,)
    for node in list(model.graph):
        if node.op_type != "Attention" or node.domain != "" or not _is_plain(node, types):
            continue
        if on_gpu:
            _join_heads_around(model, node)
        flat = [_before_head_split(value) for value in node.inputs[:3]]
        joined = _head_join(node.outputs[0])
        heads = {_heads(value) for value in node.inputs[:3]}
        if joined is None or None in flat or None in heads or len(heads) != 1:
            continue
        attributes = [ir.AttrInt64("num_heads", heads.pop())]
        if "scale" in node.attributes:
            attributes.append(ir.AttrFloat32("scale", node.attributes["scale"].as_float()))
        fused = ir.Node(CONTRIB, "MultiHeadAttention", flat, attributes, num_outputs=1)
        replace_value(joined, [fused])
        rewritten += 1
    if rewritten:
        model.graph.opset_imports[CONTRIB] = 1
    return rewritten


def _join_heads_around(model: ir.Model, node: ir.Node) -> None:
    """Where an attention node is not between a split and a join of its heads: a join and a split before each of its
    inputs, a join and a split after it."""
    for index, value in enumerate(node.inputs[:3]):
        if _is_split_shape(value) and _before_head_split(value) is None:
            nodes = _joined_and_split(model, value, f"{node.outputs[0].name}.{index}")
            model.graph.insert_before(node, nodes)
            node.replace_input_with(index, nodes[-1].outputs[0])
    output = node.outputs[0]
    if _is_split_shape(output) and _head_join(output) is None:
        uses = list(output.uses())
        nodes = _joined_and_split(model, output, output.name)
        model.graph.insert_after(node, nodes)
        for user, index in uses:
            user.replace_input_with(index, nodes[-1].outputs[0])


def _is_split_shape(value: ir.Value | None) -> bool:
    """Whether a value is ``[rows, heads, S, D]`` with numbers for the heads and their width."""
    return value is not None and _heads(value) is not None and isinstance(value.shape[3], int)


def _joined_and_split(model: ir.Model, value: ir.Value, name: str) -> list[ir.Node]:
    """``value [rows, heads, S, D]`` -> ``[rows, S, heads * D]`` -> the same again."""
    rows, heads, length, width = value.shape
    shapes = {"joined": [0, 0, heads * width], "split": [0, 0, heads, width]}
    wanted = {kind: constant(f"{name}_{kind}", np.array(shape, np.int64)) for kind, shape in shapes.items()}
    for shape in wanted.values():
        model.graph.register_initializer(shape)
    swapped = ir.node("Transpose", [value], {"perm": _SWAP_HEADS})
    joined = ir.node("Reshape", [swapped.outputs[0], wanted["joined"]])
    split = ir.node("Reshape", [joined.outputs[0], wanted["split"]])
    again = ir.node("Transpose", [split.outputs[0]], {"perm": _SWAP_HEADS})
    four = [rows, length, heads, width]
    for node, shape in ((swapped, four), (joined, [rows, length, heads * width]), (split, four), (again, value.shape)):
        node.outputs[0].dtype, node.outputs[0].shape = value.dtype, ir.Shape(shape)
    return [swapped, joined, split, again]


def _is_plain(node: ir.Node, types: Sequence[ir.DataType]) -> bool:
    masked = any(value is not None for value in node.inputs[3:])
    return not masked and not _has_settings(node) and node.outputs[0].dtype in types


def _has_settings(node: ir.Node) -> bool:
    """Whether an attention node is causal, caps its scores, groups its heads, or gives more than its sum."""
    settings = ("is_causal", "softcap", "q_num_heads", "qk_matmul_output_mode")
    changed = any(node.attributes[name].value for name in settings if name in node.attributes)
    return changed or any(value.uses() or value.is_graph_output() for value in node.outputs[1:])


def _heads(value: ir.Value | None) -> int | None:
    """The second dimension of ``[rows, heads, S, D]``, if it is a number."""
    shape = value.shape if value is not None else None
    return shape[1] if shape is not None and len(shape) == 4 and isinstance(shape[1], int) else None


def _before_head_split(value: ir.Value | None) -> ir.Value | None:
    """``x [rows, S, heads * D]`` of a ``value [rows, heads, S, D]`` that is ``Transpose(Reshape(x))``, or None."""
    transpose = _producer(value, "Transpose")
    if transpose is None or tuple(transpose.attributes["perm"].as_ints()) != _SWAP_HEADS:
        return None
    reshape = _producer(transpose.inputs[0], "Reshape")
    flat = reshape.inputs[0] if reshape is not None else None
    return flat if _is_joined(flat, value) else None


def _head_join(value: ir.Value) -> ir.Value | None:
    """``Reshape(Transpose(value [rows, heads, S, D]))`` ``[rows, S, heads * D]``, if nothing else uses it, or None."""
    joined = value
    for operator in ("Transpose", "Reshape"):
        uses = list(joined.uses())
        if joined.is_graph_output() or len(uses) != 1 or uses[0].node.op_type != operator or uses[0].idx != 0:
            return None
        if operator == "Transpose" and tuple(uses[0].node.attributes["perm"].as_ints()) != _SWAP_HEADS:
            return None
        joined = uses[0].node.outputs[0]
    return joined if _is_joined(joined, value) else None


def _producer(value: ir.Value | None, operator: str) -> ir.Node | None:
    node = value.producer() if value is not None else None
    return node if node is not None and node.op_type == operator else None


def _is_joined(flat: ir.Value | None, split: ir.Value | None) -> bool:
    """Whether shapes say ``flat [rows, S, heads * D]`` for ``split [rows, heads, S, D]``. ``S`` is often the same
    expression written in two ways, and follows from the rest."""
    if flat is None or flat.shape is None or split is None or split.shape is None:
        return False
    if len(flat.shape) != 3 or len(split.shape) != 4:
        return False
    rows, heads, _, width = split.shape
    return flat.shape[0] == rows and isinstance(width, int) and flat.shape[2] == heads * width


def for_onnxruntime_cpu(model: ir.Model, largest: Mapping[str, int]) -> ir.Model:
    """A copy of a portable graph in the spelling that ONNX Runtime's CPU provider runs fastest; ``largest`` are the
    axes' sizes that it has to compute well at.
    """
    copy = model.clone()
    attention_to_multi_head_attention(copy)
    lower_group_normalization(copy, largest)
    RemoveUnusedNodesPass()(copy)
    return copy


def attention_to_products(model: ir.Model, kernel_widths: range, *, fp32: bool = False) -> int:
    """``Attention`` in half precision (and in ``fp32``), of heads whose width is not among ``kernel_widths`` -> two
    products, with the softmax between them in fp32.

    A library that has no kernel for a width would spell it out by itself, in a precision that it does not tell.
    Queries are scaled before the product, which keeps it in range. Returns how many were rewritten.
    """
    rewritten = 0
    for node in list(model.graph):
        if node.op_type != "Attention" or node.domain != "" or not _is_spellable(node, kernel_widths, fp32):
            continue
        queries, keys, values = node.inputs[:3]
        name, half, width = node.outputs[0].name, queries.dtype, queries.shape[3]
        scale = node.attributes["scale"].as_float() if "scale" in node.attributes else width**-0.5
        factor = constant(f"{name}_scale", np.array(scale, half.numpy()))
        model.graph.register_initializer(factor)
        scaled = ir.node("Mul", [queries, factor])
        flipped = ir.node("Transpose", [keys], {"perm": [0, 1, 3, 2]})  # [rows, heads, D, T]
        scores = ir.node("MatMul", [scaled.outputs[0], flipped.outputs[0]], name=f"{name}_scores")
        wide = ir.node("Cast", [scores.outputs[0]], {"to": ir.DataType.FLOAT})
        masked = _masked(model, name, wide.outputs[0], node.inputs[3] if len(node.inputs) > 3 else None)
        softmax = ir.node("Softmax", [masked[-1].outputs[0] if masked else wide.outputs[0]], {"axis": -1})
        narrow = ir.node("Cast", [softmax.outputs[0]], {"to": half})
        joined = ir.node("MatMul", [narrow.outputs[0], values], name=f"{name}_joined")
        for product in (scaled, flipped, scores, narrow, joined):
            product.outputs[0].dtype = half
        replace_value(node.outputs[0], [scaled, flipped, scores, wide, *masked, softmax, narrow, joined])
        rewritten += 1
    return rewritten


def _is_spellable(node: ir.Node, kernel_widths: range, fp32: bool) -> bool:
    queries, keys = node.inputs[:2]
    if (queries.dtype == ir.DataType.FLOAT and not fp32) or queries.shape is None or len(queries.shape) != 4:
        return False
    width = queries.shape[3]
    if not isinstance(width, int) or width in kernel_widths or _heads(queries) != _heads(keys):
        return False
    return not _has_settings(node) and not any(value is not None for value in node.inputs[4:])


def _masked(model: ir.Model, name: str, scores: ir.Value, mask: ir.Value | None) -> list[ir.Node]:
    """The nodes that apply a mask (true where it lets through, or numbers to add) to fp32 scores."""
    if mask is None:
        return []
    if mask.dtype != ir.DataType.BOOL:
        wide = ir.node("Cast", [mask], {"to": ir.DataType.FLOAT})
        return [wide, ir.node("Add", [scores, wide.outputs[0]])]
    lowest = constant(f"{name}_masked", np.array(np.finfo(np.float32).min, np.float32))
    model.graph.register_initializer(lowest)
    return [ir.node("Where", [mask, scores, lowest])]


def bfloat16_to_rounded_float32(model: ir.Model) -> int:
    """Operators in bf16 -> the same in fp32 between casts, so that every value is rounded where bf16 rounds it.

    ONNX Runtime's CPU provider casts bf16 but computes nothing in it; hardware sums bf16 products in fp32 as well.
    Returns how many were rewritten.
    """
    rewritten = 0
    wide: dict[ir.Value, ir.Value] = {}
    for node in list(model.graph):
        values = [value for value in (*node.inputs, *node.outputs) if value is not None and _is_bfloat16(value)]
        if not values or node.op_type == "Cast":
            continue
        for index, value in enumerate(node.inputs):
            if value is not None and _is_bfloat16(value):
                if value not in wide:
                    cast = ir.node("Cast", [value], {"to": ir.DataType.FLOAT})
                    wide[value] = cast.outputs[0]
                    cast.outputs[0].type = ir.TensorType(ir.DataType.FLOAT)
                    model.graph.insert_before(node, cast)
                node.replace_input_with(index, wide[value])
        for value in node.outputs:
            if _is_bfloat16(value):
                rounded = ir.node("Cast", [value], {"to": ir.DataType.BFLOAT16})
                value.replace_all_uses_with(rounded.outputs[0])
                rounded.replace_input_with(0, value)
                rounded.outputs[0].type = ir.TensorType(ir.DataType.BFLOAT16)
                value.type = ir.TensorType(ir.DataType.FLOAT)
                model.graph.insert_after(node, rounded)
        rewritten += 1
    return rewritten


def _is_bfloat16(value: ir.Value) -> bool:
    return bool(value.dtype == ir.DataType.BFLOAT16)


#: Head widths for which TensorRT-RTX 1.7 has an attention kernel in half precision, found by building for compute
#: capabilities 7.5, 8.9 and 12.0. There is none in fp32.
TENSORRT_ATTENTION_WIDTHS = range(16, 257)


def for_tensorrt(model: ir.Model) -> ir.Model:
    """A copy of a portable graph in the spelling that TensorRT accepts.

    Its attention has no ``softmax_precision``. Where no kernel fits, it is only accepted with ``TRT_decomposable``.
    """
    copy = model.clone()
    attention_to_products(copy, TENSORRT_ATTENTION_WIDTHS)
    for node in copy.graph:
        if node.op_type == "Attention":
            node.attributes.pop("softmax_precision", None)
            node.attributes["TRT_decomposable"] = ir.AttrInt64("TRT_decomposable", 1)
    return copy
