"""The rules by which precision plans are written into a graph, on small graphs that say what they test."""

from __future__ import annotations

from typing import Any

import numpy as np
import onnx
import onnx_ir as ir
import onnxruntime as ort
import pytest
from numpy.typing import NDArray

from latentrt.export.graphs.precision import PrecisionPlan
from latentrt.export.graphs.typed_graph import check_precision, transpose_weights, write_precision
from latentrt.runtime.bundles.spec import TensorSpec
from latentrt.runtime.errors import ExportError

HALF = PrecisionPlan("fp16")


def graph(body: str, inputs: str = "float[2,4] x", output: str = "float[2,4] y", **weights: NDArray[Any]) -> ir.Model:
    """An fp32 graph; ``weights`` become its initializers."""
    declared = ", ".join(
        f"{'float' if array.dtype == np.float32 else 'int64'}{list(array.shape) or ''} {name}"
        for name, array in weights.items()
    )
    proto = onnx.parser.parse_model(f"""
        <ir_version: 10, opset_import: ["" : 23]>
        toy ({inputs}{", " + declared if declared else ""}) => ({output}) {{ {body} }}""")
    proto = onnx.shape_inference.infer_shapes(proto, strict_mode=True)
    model = ir.from_proto(proto)
    for value in [value for value in model.graph.inputs if value.name in weights]:
        value.const_value = ir.tensor(weights[value.name], name=value.name)
        model.graph.inputs.remove(value)
        model.graph.register_initializer(value)
    return model


def typed(model: ir.Model, plan: PrecisionPlan = HALF, *, float32: tuple[str, ...] = ()) -> ir.Model:
    """The graph with a plan in it, checked by the check and by ONNX. ``float32`` inputs stay what they are."""

    def specs(values: list[ir.Value]) -> list[TensorSpec]:
        return [
            TensorSpec(value.name, "float32" if value.name in float32 else plan.io, tuple(value.shape))
            if value.dtype == ir.DataType.FLOAT
            else TensorSpec(value.name, "bool", tuple(value.shape))
            for value in values
        ]

    write_precision(model, plan, specs(model.graph.inputs), specs(model.graph.outputs))
    check_precision(model, plan)
    onnx.checker.check_model(ir.to_proto(model), full_check=True)
    return model


def types(model: ir.Model) -> list[str]:
    """``Operator:type`` of every node, in order."""
    short = {ir.DataType.FLOAT: "fp32", ir.DataType.FLOAT16: "fp16", ir.DataType.BFLOAT16: "bf16"}
    return [f"{node.op_type}:{short[node.outputs[0].dtype]}" for node in model.graph]


def run(model: ir.Model, **inputs: NDArray[Any]) -> NDArray[Any]:
    session = ort.InferenceSession(ir.to_proto(model).SerializeToString(), providers=["CPUExecutionProvider"])
    return session.run(None, inputs)[0]


def matrix(seed: int = 0, scale: float = 1.0) -> NDArray[np.float32]:
    return (np.random.default_rng(seed).standard_normal((4, 4)) * scale).astype(np.float32)


# --- rules ------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("compute", "stored", "borders"),
    [("fp16", ir.DataType.FLOAT16, ([], [])), ("bf16", ir.DataType.BFLOAT16, (["Cast:bf16"], ["Cast:fp32"]))],
)
def test_matrix_operators_take_the_plans_format_and_what_is_between_them_follows(
    compute: str, stored: ir.DataType, borders: tuple[list[str], list[str]]
) -> None:
    model = graph("a = MatMul(x, w)  b = Add(a, v)  c = Sigmoid(b)  y = MatMul(c, w)", w=matrix(), v=matrix()[0])
    typed(model, PrecisionPlan(compute))
    inside = [f"{operator}:{compute}" for operator in ("MatMul", "Add", "Sigmoid", "MatMul")]
    assert types(model) == [*borders[0], *inside, *borders[1]]
    assert {name: value.dtype for name, value in model.graph.initializers.items()} == {"w": stored, "v": stored}


def test_fp32_changes_no_type() -> None:
    model = graph("a = MatMul(x, w)  y = Softmax(a)", w=matrix())
    assert types(typed(model, PrecisionPlan("fp32"))) == ["MatMul:fp32", "Softmax:fp32"]


def test_a_softmax_is_an_island() -> None:
    model = typed(graph("a = MatMul(x, w)  b = Softmax(a)  y = MatMul(b, w)", w=matrix()))
    assert types(model) == ["MatMul:fp16", "Cast:fp32", "Softmax:fp32", "Cast:fp16", "MatMul:fp16"]


def test_an_fp32_input_stays_fp32_to_the_first_matrix_operator() -> None:
    model = graph(
        "a = Mul(t, f)  b = Sin(a)  c = Cos(a)  d = Concat<axis=1>(b, c)  y = MatMul(d, w)",
        inputs="float[2,1] t", f=np.array([1, 0.001], np.float32), w=matrix(),
    )  # fmt: skip
    typed(model, float32=("t",))
    assert types(model) == ["Mul:fp32", "Sin:fp32", "Cos:fp32", "Concat:fp32", "Cast:fp16", "MatMul:fp16"]
    assert model.graph.initializers["f"].dtype == ir.DataType.FLOAT
    t = np.array([[999.0], [998.0]], np.float32)  # whose products with 0.001 fp16 cannot tell apart
    angles = t.astype(np.float64) * [1, 0.001]
    expected = np.concatenate([np.sin(angles), np.cos(angles)], 1) @ matrix()
    np.testing.assert_allclose(run(model, t=t), expected, atol=5e-3)


def test_squares_that_leave_the_range_of_fp16_do_not_matter() -> None:
    model = typed(graph(
        "s = Mul(x, hundred)  a = Pow(s, two)  b = ReduceMean<keepdims=1>(a, axes)  c = Sqrt(b)  y = Div(s, c)",
        hundred=np.array(100, np.float32), two=np.array(2, np.float32), axes=np.array([-1]),
    ))  # fmt: skip
    x = matrix()[:2].astype(np.float16) * 10
    expected = x.astype(np.float64) / np.sqrt((x.astype(np.float64) ** 2).mean(-1, keepdims=True))
    np.testing.assert_allclose(run(model, x=x), expected, rtol=5e-3)


@pytest.mark.parametrize("compute", ["fp32", "fp16", "bf16"])
def test_norms_and_attention_keep_their_statistics_in_fp32(compute: str) -> None:
    model = graph(
        """a = LayerNormalization(x, s, s)  b = RMSNormalization(a, s)  c = Reshape(b, shape)
           d = Attention(c, c, c)  e = Reshape(d, flat)  y = GroupNormalization<num_groups=2>(e, s, s)""",
        s=np.ones(4, np.float32), shape=np.array([2, 2, 1, 2]), flat=np.array([2, 4]),
    )  # fmt: skip
    typed(model, PrecisionPlan(compute))
    inside = {
        name: attribute.as_int()
        for node in model.graph
        for name, attribute in node.attributes.items()
        if name in ("stash_type", "softmax_precision")
    }
    assert inside == {"stash_type": 1, "softmax_precision": 1}
    assert f"Attention:{compute}" in types(model)


def test_attention_in_fp32_has_casts_around_it() -> None:
    plan = PrecisionPlan("fp16", fp32_attention=True)
    model = graph(
        "a = MatMul(x, w)  b = Attention(a, a, a)  y = MatMul(b, w)",
        inputs="float[1,2,2,4] x", output="float[1,2,2,4] y", w=matrix(),
    )  # fmt: skip
    assert types(typed(model, plan)) == ["MatMul:fp16", "Cast:fp32", "Attention:fp32", "Cast:fp16", "MatMul:fp16"]


def test_a_product_that_the_plan_wants_in_fp32() -> None:
    body = "a = MatMul(x, w)  b = MatMul(a, wo)  y = Mul(b, small)"
    model = graph(body, w=matrix(1, 300), wo=matrix(2, 300), small=np.array(1e-3, np.float32))
    typed(model, PrecisionPlan("fp16", fp32_weights=("wo",)))
    assert types(model) == ["MatMul:fp16", "Cast:fp32", "MatMul:fp32", "Mul:fp32", "Cast:fp16"]
    x = np.ones((2, 4), np.float16)
    product = x.astype(np.float64) @ matrix(1, 300) @ matrix(2, 300)
    assert np.abs(product).max() > np.finfo(np.float16).max
    np.testing.assert_allclose(run(model, x=x), product * 1e-3, rtol=5e-3)


def test_a_residual_sum_stays_in_fp32_from_its_start() -> None:
    body = "a = MatMul(x, start)  b = MatMul(a, w)  c = Add(a, b)  d = MatMul(c, w)  e = Add(c, d)  y = MatMul(e, w)"
    model = typed(graph(body, start=matrix(1), w=matrix(2)), PrecisionPlan("fp16", fp32_sums=("start",)))
    operators = [name for name in types(model) if not name.startswith("Cast")]
    assert operators == ["MatMul:fp16", "MatMul:fp16", "Add:fp32", "MatMul:fp16", "Add:fp32", "MatMul:fp16"]


def test_a_mask_gets_the_lowest_number_of_the_format() -> None:
    model = typed(graph(
        "y = Where(mask, x, lowest)", inputs="float[2,4] x, bool[4] mask",
        lowest=np.array(np.finfo(np.float32).min, np.float32),
    ))  # fmt: skip
    y = run(model, x=np.ones((2, 4), np.float16), mask=np.array([True, False, True, True]))
    assert y[0].tolist() == [1, np.finfo(np.float16).min, 1, 1]


def test_a_weight_that_the_format_cannot_hold_is_named_when_it_is_read() -> None:
    weights = matrix()
    weights[1, 2] = 1e5
    model = graph("y = MatMul(x, w)", w=weights)
    write_precision(model, HALF, [TensorSpec("x", "float16", (2, 4))], [TensorSpec("y", "float16", (2, 4))])
    with pytest.raises(ExportError, match=r"w: a weight that float16 cannot hold \| received: .* to 100000 .*bf16"):
        model.graph.initializers["w"].const_value.numpy()


def test_a_weight_that_is_used_in_two_formats_is_there_in_both() -> None:
    model = typed(graph("a = Exp(w)  b = MatMul(x, w)  y = MatMul(b, a)", w=matrix()))
    stored = {name: value.dtype.name for name, value in model.graph.initializers.items()}
    assert stored == {"w": "FLOAT", "w.float16": "FLOAT16"}


def test_what_an_operator_wants_in_fp32_stays_fp32() -> None:
    model = typed(graph(
        'a = Resize<mode="nearest">(x, , scales)  y = Conv(a, k)',
        inputs="float[1,1,2,4] x", output="float[1,1,4,8] y",
        scales=np.array([1, 1, 2, 2], np.float32), k=np.ones((1, 1, 1, 1), np.float32),
    ))  # fmt: skip
    assert types(model) == ["Resize:fp16", "Conv:fp16"]
    assert model.graph.initializers["scales"].dtype == ir.DataType.FLOAT
    assert run(model, x=np.ones((1, 1, 2, 4), np.float16)).shape == (1, 1, 4, 8)


def test_an_output_keeps_its_name_and_gets_its_type() -> None:
    model = typed(graph("a = MatMul(x, w)  y = Exp(a)", w=matrix(scale=0.1)))
    assert types(model) == ["MatMul:fp16", "Cast:fp32", "Exp:fp32", "Cast:fp16"]
    assert [(value.name, value.dtype) for value in model.graph.outputs] == [("y", ir.DataType.FLOAT16)]


def test_weights_are_not_read() -> None:
    def read() -> ir.TensorProtocol:
        raise AssertionError("read")

    model = graph("a = Transpose<perm=[1, 0]>(w)  b = MatMul(x, a)  y = Softmax(b)", w=matrix())
    model.graph.initializers["w"].const_value = ir.LazyTensor(read, ir.DataType.FLOAT, ir.Shape([4, 4]), name="w")
    assert transpose_weights(model) == 1
    write_precision(model, HALF, [TensorSpec("x", "float16", (2, 4))], [TensorSpec("y", "float16", (2, 4))])
    check_precision(model, HALF)
    with pytest.raises(AssertionError, match="read"):
        model.graph.initializers["w.T"].const_value.numpy()


def test_a_linear_layers_weight_is_stored_as_the_product_wants_it() -> None:
    model = graph("a = Transpose<perm=[1, 0]>(w)  y = MatMul(x, a)", w=matrix())
    x = matrix(1)[:2]
    before = run(model, x=x)
    assert transpose_weights(model) == 1
    assert types(model) == ["MatMul:fp32"]
    np.testing.assert_array_equal(model.graph.initializers["w.T"].const_value.numpy(), matrix().T)
    np.testing.assert_array_equal(run(model, x=x), before)


# --- the check --------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("body", "plan", "named"),
    [
        ("y = MatMul(x, w)", HALF, "MatMul y in float"),
        ("y = Softmax(x)", None, "Softmax y in float16"),
        ("y = LayerNormalization<stash_type=10>(x, v, v)", None, "LayerNormalization y in float16"),
        ("y = MatMul(x, w)", PrecisionPlan("fp16", fp32_weights=("w",)), "MatMul y in float16"),
        ("a = MatMul(x, w)  y = Sigmoid(a)", PrecisionPlan("fp16", fp32_sums=("w",)), "MatMul a in float16"),
    ],
)
def test_what_does_not_follow_the_plan_is_named(body: str, plan: PrecisionPlan | None, named: str) -> None:
    model = graph(body, w=matrix(), v=matrix()[0])
    if plan != HALF:
        for value in (*model.graph.inputs, *(node.outputs[0] for node in model.graph)):
            value.dtype = ir.DataType.FLOAT16
    with pytest.raises(ExportError, match=f"does not follow its precision plan .*received: {named} "):
        check_precision(model, plan or HALF)


def test_a_graph_that_is_silently_fp32_fails_with_the_first_names_and_a_count() -> None:
    body = "  ".join(f"x{index + 1} = MatMul(x{index}, w)" for index in range(8)).replace("x0", "x").replace("x8", "y")
    with pytest.raises(ExportError, match=r"MatMul x1 in float, MatMul x2 in float, .* and 3 more"):
        check_precision(graph(body, w=matrix()), HALF)
