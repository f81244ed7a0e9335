"""Each rewrite gives the same numbers in ONNX Runtime, and leaves alone what it must."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import onnx
import onnx_ir as ir
import pytest
from numpy.typing import NDArray

from latentrt.export.graphs.group_normalization import lower_group_normalization
from latentrt.export.graphs.onnxruntime_cuda import OPSET, for_onnxruntime_cuda
from latentrt.export.graphs.rewrites import (
    attention_to_multi_head_attention,
    attention_to_products,
    bfloat16_to_rounded_float32,
    for_onnxruntime_cpu,
    for_tensorrt,
)

from .text_graphs import operators, parsed, run

#: Two rows or one, several lengths, other lengths of keys than of queries.
SIZES = [(2, 6, 154), (1, 9, 77), (3, 4, 4), (1, 1, 1)]


def attention(
    inputs: str = "q4, k4, v4",
    attributes: str = "",
    extra_output: str = "",
    key_heads: int = 3,
    flat: str = "float",
    mask: str = "",
) -> ir.Model:
    """Three heads of width 4 over flat queries, keys and values, as diffusers writes it."""
    declared, named = (f", {flat}[rows,3,T,4] {extra_output}", f", {extra_output}") if extra_output else ("", "")
    return parsed(f"""
        <ir_version: 10, opset_import: ["" : 23]>
        attention ({flat}[rows,S,12] q, {flat}[rows,T,{4 * key_heads}] k, {flat}[rows,T,{4 * key_heads}] v,
                   {mask or flat}[rows,1,S,T] mask) => ({flat}[rows,S,12] y {declared}) {{
            q_split = Constant<value_ints=[0, 0, 3, 4]>()
            k_split = Constant<value_ints=[0, 0, {key_heads}, 4]>()
            joined = Constant<value_ints=[0, 0, 12]>()
            q3 = Reshape(q, q_split)  q4 = Transpose<perm=[0, 2, 1, 3]>(q3)
            k3 = Reshape(k, k_split)  k4 = Transpose<perm=[0, 2, 1, 3]>(k3)
            v3 = Reshape(v, k_split)  v4 = Transpose<perm=[0, 2, 1, 3]>(v3)
            a4 {named} = Attention{attributes}({inputs})
            a3 = Transpose<perm=[0, 2, 1, 3]>(a4)
            y = Reshape(a3, joined)
        }}""")


@pytest.mark.parametrize(("rows", "queries", "keys"), SIZES)
@pytest.mark.parametrize("attributes", ["", "<scale = 0.3>"])
def test_plain_attention_is_fused(rows: int, queries: int, keys: int, attributes: str) -> None:
    model = attention(attributes=attributes)
    fused = for_onnxruntime_cpu(model, {})
    assert operators(fused) == ["MultiHeadAttention"]
    assert "Attention" in operators(model)  # the portable graph stays as it was

    rng = np.random.default_rng(0)
    inputs = {
        name: rng.standard_normal((rows, length, 12)).astype(np.float32)
        for name, length in (("q", queries), ("k", keys), ("v", keys))
    }
    inputs["mask"] = np.zeros((rows, 1, queries, keys), np.float32)
    np.testing.assert_allclose(run(fused, inputs), run(model, inputs), rtol=0, atol=1e-6)


@pytest.mark.parametrize(
    "model",
    [
        attention(inputs="q4, k4, v4, mask"),
        attention(attributes="<is_causal = 1>"),
        attention(attributes="<softcap = 20.0>"),
        attention(key_heads=1),
        attention(extra_output="present"),
        attention(flat="float16"),
    ],
    ids=["mask", "causal", "softcap", "fewer key heads", "cache", "fp16"],
)
def test_other_attention_is_left_alone(model: ir.Model) -> None:
    assert attention_to_multi_head_attention(model) == 0
    assert "Attention" in operators(model)


@pytest.mark.parametrize(("rows", "queries", "keys"), SIZES)
@pytest.mark.parametrize("flat", ["float", "float16"])
@pytest.mark.parametrize("masked", [False, True])
def test_on_a_gpu_attention_is_fused_or_spelt_out_in_either_precision(
    rows: int, queries: int, keys: int, flat: str, masked: bool
) -> None:
    """Masks are those of text encoders, which are short. (On the processor ONNX Runtime computes fp16 in fp32.)"""
    inputs = "q4, k4, v4, mask" if masked else "q4, k4, v4"
    model = attention(inputs=inputs, attributes="<softmax_precision = 1, scale = 0.3>", flat=flat)
    ours = for_onnxruntime_cuda(model)
    assert "Attention" not in operators(ours)
    assert operators(ours).count("MatMul" if masked else "MultiHeadAttention") == (2 if masked else 1)
    assert "Attention" in operators(model)
    assert {value.dtype for value in ours.graph.outputs} == {value.dtype for value in model.graph.outputs}

    rng, kind = np.random.default_rng(0), np.dtype(flat.replace("float", "float32") if flat == "float" else flat)
    arrays = {
        name: rng.standard_normal((rows, length, 12)).astype(kind)
        for name, length in (("q", queries), ("k", keys), ("v", keys))
    }
    arrays["mask"] = rng.standard_normal((rows, 1, queries, keys)).astype(kind)
    limit = 1e-6 if flat == "float" else 4e-3
    np.testing.assert_allclose(run(ours, arrays), run(model, arrays), rtol=0, atol=limit)


@pytest.mark.parametrize("kind", ["float", "float16"])
@pytest.mark.parametrize(
    ("operator", "ours"),
    [
        ("Gelu(x)", "Gelu"),
        ('Gelu<approximate = "tanh">(x)', "FastGelu"),
        ("RMSNormalization<axis = -1, epsilon = 0.01>(x, scale)", "SimplifiedLayerNormalization"),
    ],
)
def test_operators_that_are_newer_than_kernels_go_by_their_older_names(operator: str, ours: str, kind: str) -> None:
    model = parsed(f"""
        <ir_version: 10, opset_import: ["" : 23]>
        newer ({kind}[n,6] x, {kind}[6] scale) => ({kind}[n,6] y) {{ y = {operator} }}""")
    older = for_onnxruntime_cuda(model)
    assert operators(older) == [ours]
    assert older.graph.opset_imports[""] == OPSET
    rng, dtype = np.random.default_rng(0), np.float16 if kind == "float16" else np.float32
    arrays = {name: rng.standard_normal(shape).astype(dtype) for name, shape in (("x", (50, 6)), ("scale", (6,)))}
    expected = run(model, arrays).astype(np.float64)
    np.testing.assert_allclose(run(older, arrays), expected, rtol=0, atol=4e-3 if kind == "float16" else 2e-6)


def test_attention_without_head_splits_around_it_is_left_alone() -> None:
    model = parsed("""
        <ir_version: 10, opset_import: ["" : 23]>
        attention (float[rows,3,S,4] q, float[rows,3,S,4] k, float[rows,3,S,4] v) => (float[rows,3,S,4] y) {
            y = Attention(q, k, v)
        }""")
    assert attention_to_multi_head_attention(model) == 0


def test_attention_whose_heads_are_used_elsewhere_is_left_alone() -> None:
    model = attention()
    assert attention_to_multi_head_attention(model.clone()) == 1
    model.graph.outputs.append(next(node.outputs[0] for node in model.graph if node.op_type == "Attention"))
    assert attention_to_multi_head_attention(model) == 0


@pytest.mark.parametrize(("rows", "queries", "keys"), SIZES)
@pytest.mark.parametrize("mask", ["none", "numbers", "booleans"])
@pytest.mark.parametrize("attributes", ["", "<scale = 0.3>"])
def test_attention_without_a_kernel_is_spelt_out_with_an_fp32_softmax(
    rows: int, queries: int, keys: int, mask: str, attributes: str
) -> None:
    inputs = "q4, k4, v4" if mask == "none" else "q4, k4, v4, mask"
    model = attention(inputs=inputs, attributes=attributes, flat="float16", mask="bool" if mask == "booleans" else "")
    spelt = model.clone()
    assert attention_to_products(spelt, range(16, 257)) == 1
    assert "Attention" not in operators(spelt)
    softmax = next(node for node in spelt.graph if node.op_type == "Softmax")
    assert onnx.shape_inference.infer_shapes(ir.to_proto(spelt), strict_mode=True)
    assert softmax.inputs[0].producer().op_type in ("Cast", "Add", "Where")

    rng = np.random.default_rng(1)
    arrays = {
        name: rng.standard_normal((rows, length, 12)).astype(np.float16)
        for name, length in (("q", queries), ("k", keys), ("v", keys))
    }
    numbers = rng.standard_normal((rows, 1, queries, keys))
    arrays["mask"] = numbers.astype(np.float16)
    if mask == "booleans":
        arrays["mask"] = numbers > 0
        arrays["mask"][..., 0] = True  # no row is masked altogether
    np.testing.assert_allclose(run(spelt, arrays), run(model, arrays), rtol=0, atol=4e-3)


def test_attention_that_has_a_kernel_or_is_in_fp32_is_not_spelt_out() -> None:
    assert attention_to_products(attention(flat="float16"), range(4, 5)) == 0
    assert attention_to_products(attention(), range(16, 257)) == 0
    assert attention_to_products(attention(flat="float16", attributes="<is_causal = 1>"), range(16, 257)) == 0


def test_what_tensorrt_refuses_is_not_in_its_spelling() -> None:
    model = attention(attributes="<softmax_precision = 1>")
    rewritten = next(node for node in for_tensorrt(model).graph if node.op_type == "Attention")
    assert "softmax_precision" not in rewritten.attributes
    assert rewritten.attributes["TRT_decomposable"].as_int() == 1
    portable = next(node for node in model.graph if node.op_type == "Attention")
    assert set(portable.attributes) == {"softmax_precision"}


def test_bf16_is_computed_in_fp32_and_rounded_where_bf16_rounds(tmp_path: Path) -> None:
    model = parsed("""
        <ir_version: 10, opset_import: ["" : 23]>
        brain (float[n,4] x) => (float[n,2] y)
        <bfloat16[4,2] weight = {16203, 48971, 16301, 16099, 48801, 16256, 16111, 16333},
         bfloat16[2] bias = {16002, 16203}> {
            narrow = Cast<to=16>(x)
            product = MatMul(narrow, weight)
            sum = Add(product, bias)
            square = Mul(sum, sum)
            y = Cast<to=1>(square)
        }""")
    weight, bias = (value.const_value.numpy().astype(np.float32) for value in model.graph.initializers.values())
    x = np.random.default_rng(0).standard_normal((500, 4)).astype(np.float32)
    assert bfloat16_to_rounded_float32(model) == 3
    onnx.checker.check_model(ir.to_proto(model), full_check=True)
    total = rounded(rounded(rounded(x) @ weight) + bias)
    np.testing.assert_array_equal(run(model, {"x": x}), rounded(total * total))
    assert bfloat16_to_rounded_float32(model) == 0


def rounded(values: NDArray[np.float32]) -> NDArray[np.float32]:
    """The nearest numbers of bf16: those of fp32 whose lower 16 bits are 0, the even ones where two are as near."""
    bits = values.view(np.uint32)
    return ((bits + 0x7FFF + ((bits >> 16) & 1)) & 0xFFFF0000).astype(np.uint32).view(np.float32)


@pytest.mark.parametrize(
    ("component", "attentions", "normalizations"),
    [("denoiser", 14, 30), ("vae_decoder", 1, 22), ("vae_encoder", 1, 14), ("text_encoder_2", 0, 0)],
)
def test_what_is_rewritten_in_the_emoji_bundle(
    emoji_bundle: Path, component: str, attentions: int, normalizations: int
) -> None:
    model = ir.load(emoji_bundle / "onnx" / f"{component}.onnx")
    on_gpu = operators(for_onnxruntime_cuda(model))
    assert not {"Attention", "GroupNormalization"} & set(on_gpu)
    counts = (on_gpu.count("MultiHeadAttention"), on_gpu.count("InstanceNormalization"))
    assert counts == (attentions, normalizations)
    assert attention_to_multi_head_attention(model) == attentions
    assert lower_group_normalization(model) == normalizations
    engine = onnx.load(emoji_bundle / "engines/onnxruntime-cpu" / f"{component}.onnx", load_external_data=False)
    built = [node.op_type for node in engine.graph.node]
    assert built.count("MultiHeadAttention") == attentions
    assert built.count("InstanceNormalization") == normalizations
