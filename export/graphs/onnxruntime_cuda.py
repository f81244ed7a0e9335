"""Graphs in the spelling for which ONNX Runtime's CUDA provider has kernels, from version 1.22 on."""

from __future__ import annotations

import onnx_ir as ir
from onnx_ir.passes.common import RemoveUnusedNodesPass

from .editing import replace_value
from .group_normalization import lower_group_normalization
from .rewrites import CONTRIB, attention_to_multi_head_attention, attention_to_products

#: A kernel that names no last version of its operator runs only the one that it was written for, and operators of which
#: a newer version allows more types, such as Conv (22) and Resize (19), then run on the processor.
#: (https://github.com/microsoft/onnxruntime/issues/26065 and /pull/27415)
OPSET = 18

#: The operators of portable graphs that this opset does not have, or means otherwise.
NEWER = frozenset({"Attention", "Gelu", "GroupNormalization", "RMSNormalization"})


def for_onnxruntime_cuda(model: ir.Model) -> ir.Model:
    """A copy of a portable graph in that spelling."""
    copy = model.clone()
    attention_to_multi_head_attention(copy, on_gpu=True)
    attention_to_products(copy, range(0), fp32=True)  # text encoders', which are masked and short
    lower_group_normalization(copy, on_gpu=True)
    rename_newer_operators(copy)
    RemoveUnusedNodesPass()(copy)
    if not any(node.op_type in NEWER and node.domain == "" for node in copy.graph):
        copy.graph.opset_imports[""] = OPSET
    return copy


def rename_newer_operators(model: ir.Model) -> int:
    """``RMSNormalization`` and ``Gelu`` -> the same by the names that ONNX Runtime had for them before ONNX had any;
    returns how many were renamed.
    """
    renamed = 0
    for node in list(model.graph):
        if node.domain != "":
            continue
        if node.op_type == "RMSNormalization":
            attributes = list(node.attributes.values())
            ours = ir.Node("", "SimplifiedLayerNormalization", node.inputs, attributes, num_outputs=1)
        elif node.op_type == "Gelu":
            approximate = "approximate" in node.attributes and node.attributes["approximate"].as_string() == "tanh"
            ours = ir.Node(CONTRIB, "FastGelu" if approximate else "Gelu", node.inputs, num_outputs=1)
            model.graph.opset_imports[CONTRIB] = 1
        else:
            continue
        replace_value(node.outputs[0], [ours])
        renamed += 1
    return renamed
