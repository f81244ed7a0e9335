"""Precision plans: which number format each component computes in, and what stays in fp32 all the same.

A plan says what; ``typed_graph`` writes it into the ONNX graph, and checks it there.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

PRECISIONS = ("fp32", "fp16", "bf16")

#: Operators that hold nearly all of the arithmetic, on the units that are fast in half precision. They sum in fp32.
MATRIX_OPERATORS = frozenset({"Attention", "Conv", "ConvTranspose", "Einsum", "Gemm", "MatMul"})

#: Islands: statistics, sinusoids and whatever else loses its range or its sense in half precision. They are a small
#: part of the arithmetic, and compilers fuse them with the casts around them.
FP32_OPERATORS = frozenset({
    "Cos", "CumSum", "Exp", "InstanceNormalization", "Log", "LogSoftmax", "LpNormalization",
    "MeanVarianceNormalization", "Pow", "Range", "Reciprocal", "ReduceL1", "ReduceL2", "ReduceLogSumExp", "ReduceMean",
    "ReduceProd", "ReduceSum", "ReduceSumSquare", "Sin", "Softmax", "Sqrt",
})  # fmt: skip

#: Islands inside an operator: the attribute by which it takes half precision in and out and computes its statistics
#: (Attention: its softmax) in the given ONNX type.
FP32_INSIDE = {
    "Attention": "softmax_precision",
    "GroupNormalization": "stash_type",
    "LayerNormalization": "stash_type",
    "RMSNormalization": "stash_type",
}


@dataclass(frozen=True)
class PrecisionPlan:
    """What one component computes in.

    ``compute`` is the format of every operator of ``MATRIX_OPERATORS`` and of all that only passes values between them.
    ``io`` is the dtype, as numpy calls it, of its floating-point inputs and outputs: numpy has no bfloat16.

    ``fp32_weights`` are endings of parameter names whose product is computed in fp32. ``fp32_sums`` are endings of
    parameter names whose product (or looked-up row) starts a residual sum that is kept in fp32.
    """

    compute: str = "fp32"
    fp32_attention: bool = False
    fp32_weights: tuple[str, ...] = ()
    fp32_sums: tuple[str, ...] = ()

    @property
    def io(self) -> str:
        return "float16" if self.compute == "fp16" else "float32"


def plan_for(component: str, precision: str, config: dict[str, Any], *, force_upcast: bool) -> PrecisionPlan:
    """The plan of one component of a bundle of the given precision, from the component's config.

    ``force_upcast`` says that the setting of that name counts in this family: diffusers writes it, as true, into the
    config of every autoencoder, and heeds it for SDXL's only.

    - SDXL's original autoencoder overflows in fp16 (``force_upcast``): fp32 then.
    - SD 2's attention scores overflow in fp16 (``upcast_attention``): fp32 attention, whatever comes before and after.
    - T5's feed-forward output overflows in fp16 (transformers keeps ``wo`` in fp32), and so does what it is added to.
    - The residual sum of MMDiT's text tokens leaves the range of fp16 (diffusers clips it there): summed in fp32.

    bf16 has the range of fp32, so none of these needs an island there.
    """
    if precision != "fp16":
        return PrecisionPlan(precision)
    if component.startswith("vae"):
        return PrecisionPlan("fp32" if force_upcast and config.get("force_upcast", True) else "fp16")
    if config.get("model_type") == "t5":
        return PrecisionPlan("fp16", fp32_weights=(".wo.weight",), fp32_sums=("embed_tokens.weight", "shared.weight"))
    if config.get("_class_name") == "SD3Transformer2DModel":
        return PrecisionPlan("fp16", fp32_sums=("context_embedder.weight",))
    return PrecisionPlan("fp16", fp32_attention=bool(config.get("upcast_attention")))
