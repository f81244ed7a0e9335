"""Small edits of ONNX graphs, each on its own, that spell an operation the way a provider runs it fastest.

The portable graphs keep the high-level operators of opset 23; a rewrite lowers one of them, which is far easier than
finding it again in a graph of small operators.
"""

from __future__ import annotations

import numpy as np
import onnx_ir as ir
from onnx_ir.passes.common import RemoveUnusedNodesPass

_CONTRIB = "com.microsoft"
_HEADS_FIRST = (0, 2, 1, 3)


def attention_to_multi_head_attention(model: ir.Model) -> int:
    """``Attention`` between head-splitting and head-joining transposes -> ONNX Runtime's fused ``MultiHeadAttention``.

    It takes ``[rows, S, heads * D]`` as the projections give it, so six transposes and reshapes go away with it, and it
    uses a flash-attention kernel on the CPU. Only plain attention is rewritten: no mask, no causality.
    Returns how many were rewritten.
    """
    rewritten = 0
    for node in list(model.graph):
        if node.op_type != "Attention" or node.domain not in ("", "ai.onnx") or not _plain_attention(node):
            continue
        flat = [_before_head_split(value) for value in node.inputs[:3]]
        joined = _head_join(node.outputs[0])
        heads = node.inputs[0].shape[1] if node.inputs[0] is not None and node.inputs[0].shape is not None else None
        if joined is None or not isinstance(heads, int) or any(value is None for value in flat):
            continue
        attributes = [ir.AttrInt64("num_heads", heads)]
        if "scale" in node.attributes:
            attributes.append(ir.AttrFloat32("scale", node.attributes["scale"].as_float()))
        fused = ir.Node(_CONTRIB, "MultiHeadAttention", flat, attributes, num_outputs=1, name=f"{node.name}_fused")
        fused.outputs[0].dtype, fused.outputs[0].shape = joined.dtype, joined.shape
        model.graph.insert_after(joined.producer(), fused)
        joined.replace_all_uses_with(fused.outputs[0])
        rewritten += 1
    if rewritten:
        model.graph.opset_imports[_CONTRIB] = 1
    return rewritten


def _plain_attention(node: ir.Node) -> bool:
    masked = any(value is not None for value in node.inputs[3:])
    settings = ("is_causal", "softcap", "q_num_heads", "qk_matmul_output_mode")
    return not masked and not any(node.attributes[name].value for name in settings if name in node.attributes)


def _before_head_split(value: ir.Value | None) -> ir.Value | None:
    """``x [rows, S, heads * D]`` of ``Transpose(Reshape(x))``, or None."""
    transpose = value.producer() if value is not None else None
    if transpose is None or transpose.op_type != "Transpose":
        return None
    if tuple(transpose.attributes["perm"].as_ints()) != _HEADS_FIRST:
        return None
    reshape = transpose.inputs[0].producer() if transpose.inputs[0] is not None else None
    if reshape is None or reshape.op_type != "Reshape" or reshape.inputs[0] is None:
        return None
    flat = reshape.inputs[0]
    return flat if flat.shape is not None and len(flat.shape) == 3 else None


def _head_join(value: ir.Value) -> ir.Value | None:
    """The value of ``Reshape(Transpose(value))`` if that is the only use of the value, or None."""
    for expected in ("Transpose", "Reshape"):
        uses = list(value.uses())
        if len(uses) != 1 or uses[0].node.op_type != expected or uses[0].idx != 0:
            return None
        if expected == "Transpose" and tuple(uses[0].node.attributes["perm"].as_ints()) != _HEADS_FIRST:
            return None
        value = uses[0].node.outputs[0]
    return value if value.shape is not None and len(value.shape) == 3 else None


def group_normalization_to_instance_normalization(model: ir.Model) -> int:
    """``GroupNormalization`` -> ``InstanceNormalization`` over ``[rows, groups, -1]``, then scale and bias per channel.

    ONNX Runtime has no CPU kernel for the former: it expands it into fifteen element-wise passes, the latter is one.
    Returns how many were rewritten.
    """
    rewritten = 0
    for node in list(model.graph):
        if node.op_type != "GroupNormalization" or node.domain not in ("", "ai.onnx"):
            continue
        x, scale, bias = node.inputs
        if x is None or x.shape is None or x.dtype != ir.DataType.FLOAT or scale is None or bias is None:
            continue  # in half precision the statistics need the fp32 of GroupNormalization's stash type
        if scale.const_value is None or bias.const_value is None:
            continue
        groups = node.attributes["num_groups"].as_int()
        per_channel = (-1, *(1 for _ in x.shape[2:]))
        constants = [
            _constant(f"{node.name}_groups", np.array([0, groups, -1], np.int64)),
            _constant(f"{node.name}_one", np.ones(groups, np.float32)),
            _constant(f"{node.name}_zero", np.zeros(groups, np.float32)),
            _constant(f"{node.name}_scale", scale.const_value.numpy().reshape(per_channel)),
            _constant(f"{node.name}_bias", bias.const_value.numpy().reshape(per_channel)),
        ]
        for constant in constants:
            model.graph.register_initializer(constant)
        to_groups, one, zero, channel_scale, channel_bias = constants
        epsilon = node.attributes["epsilon"] if "epsilon" in node.attributes else ir.AttrFloat32("epsilon", 1e-5)
        grouped = ir.node("Reshape", [x, to_groups])
        normalized = ir.node("InstanceNormalization", [grouped.outputs[0], one, zero], {"epsilon": epsilon.as_float()})
        shape = ir.node("Shape", [x])
        restored = ir.node("Reshape", [normalized.outputs[0], shape.outputs[0]])
        scaled = ir.node("Mul", [restored.outputs[0], channel_scale])
        shifted = ir.node("Add", [scaled.outputs[0], channel_bias])
        added = [grouped, normalized, shape, restored, scaled, shifted]
        for part in (restored, scaled, shifted):
            part.outputs[0].dtype, part.outputs[0].shape = x.dtype, x.shape
        model.graph.insert_after(node, added)
        node.outputs[0].replace_all_uses_with(shifted.outputs[0], replace_graph_outputs=True)
        rewritten += 1
    return rewritten


def for_onnxruntime_cpu(model: ir.Model) -> ir.Model:
    """A copy of a portable graph in the spelling that ONNX Runtime's CPU provider runs fastest."""
    copy = model.clone()
    attention_to_multi_head_attention(copy)
    group_normalization_to_instance_normalization(copy)
    RemoveUnusedNodesPass()(copy)
    return copy


def _constant(name: str, values: np.ndarray) -> ir.Value:
    value = ir.Value(name=name, shape=ir.Shape(values.shape), type=ir.TensorType(ir.DataType.from_numpy(values.dtype)))
    value.const_value = ir.tensor(np.ascontiguousarray(values), name=name)
    return value
