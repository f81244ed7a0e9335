"""Group normalisation in ONNX Runtime's operators: the same numbers, added up well however many there are."""

from __future__ import annotations

import numpy as np
import onnx_ir as ir
import pytest
from numpy.typing import NDArray

from latentrt.export.graphs.group_normalization import lower_group_normalization

from .text_graphs import operators, parsed, run

SCALE, BIAS = np.array([1, -2, 3, 0.5, 0, 2]), np.array([0, 1, -1, 2, 3, 0])
SMALL = {"rows": 3, "h": 64, "w": 64}


def group_normalization(kind: str = "float") -> ir.Model:
    """Two groups of three channels."""
    return parsed(f"""
        <ir_version: 10, opset_import: ["" : 23]>
        normalization ({kind}[rows,6,h,w] x) => ({kind}[rows,6,h,w] y)
        <float[6] wide_scale = {{1, -2, 3, 0.5, 0, 2}}, float[6] wide_bias = {{0, 1, -1, 2, 3, 0}}> {{
            scale = Cast<to={10 if kind == "float16" else 1}>(wide_scale)
            bias = Cast<to={10 if kind == "float16" else 1}>(wide_bias)
            y = GroupNormalization<num_groups=2, epsilon=0.01>(x, scale, bias)
        }}""")


def by_definition(x: NDArray[np.floating]) -> NDArray[np.float64]:
    groups = x.reshape(len(x), 2, -1).astype(np.float64)
    groups = (groups - groups.mean(-1, keepdims=True)) / np.sqrt(groups.var(-1, keepdims=True) + 0.01)
    return groups.reshape(x.shape) * SCALE[:, None, None] + BIAS[:, None, None]


@pytest.mark.parametrize("shape", [(2, 6, 5, 7), (1, 6, 1, 2), (3, 6, 16, 8)])
@pytest.mark.parametrize("largest", [SMALL, None])
def test_it_is_what_the_operator_is(shape: tuple[int, ...], largest: dict[str, int] | None) -> None:
    model, lowered = group_normalization(), group_normalization()
    assert lower_group_normalization(lowered, largest) == 1
    assert "GroupNormalization" not in operators(lowered)
    assert ("InstanceNormalization" in operators(lowered)) == (largest is not None)
    x = (np.random.default_rng(0).standard_normal(shape) * 3 + 5).astype(np.float32)
    np.testing.assert_allclose(run(lowered, {"x": x}), by_definition(x), rtol=0, atol=2e-5)
    np.testing.assert_allclose(run(lowered, {"x": x}), run(model, {"x": x}), rtol=0, atol=2e-5)


@pytest.mark.parametrize("kind", ["float", "float16"])
def test_on_a_gpu_it_is_one_operator_for_any_size_and_in_its_own_precision(kind: str) -> None:
    lowered = group_normalization(kind)
    before = operators(lowered)
    assert lower_group_normalization(lowered, on_gpu=True) == 1
    added = [name for name in operators(lowered) if name not in before]
    assert added == ["Reshape", "InstanceNormalization", "Shape", "Reshape", "BatchNormalization"]
    dtype = np.float16 if kind == "float16" else np.float32
    x = (np.random.default_rng(0).standard_normal((2, 6, 16, 16)) * 3 + 5).astype(dtype)
    expected = by_definition(x)
    limit = 3 * 2**-10 if kind == "float16" else 1e-5
    np.testing.assert_allclose(run(lowered, {"x": x}), expected, rtol=0, atol=limit * np.abs(expected).max())


@pytest.mark.parametrize("largest", [SMALL, None])
def test_in_half_precision_its_statistics_are_fp32(largest: dict[str, int] | None) -> None:
    lowered = group_normalization("float16")
    assert lower_group_normalization(lowered, largest) == 1
    x = (np.random.default_rng(0).standard_normal((2, 6, 64, 64)) * 3 + 90).astype(np.float16)
    expected = by_definition(x)
    np.testing.assert_allclose(run(lowered, {"x": x}), expected, rtol=0, atol=2**-10 * np.abs(expected).max())


@pytest.mark.parametrize("mean", [0, 3, 30])
def test_large_groups_are_added_up_well(mean: float) -> None:
    """The same by ``InstanceNormalization``: 1e-5; as ONNX Runtime expands the operator, up to 1e-3."""
    lowered = group_normalization()
    assert lower_group_normalization(lowered, {"rows": 1, "h": 512, "w": 512}) == 1
    x = (np.random.default_rng(0).standard_normal((1, 6, 512, 512)) + mean).astype(np.float32)
    expected = by_definition(x)
    assert np.linalg.norm(run(lowered, {"x": x}) - expected) < 4e-6 * np.linalg.norm(expected)


@pytest.mark.parametrize("largest", [{"rows": 2, "s": 9}, None])
def test_it_may_have_one_axis_behind_the_channels(largest: dict[str, int] | None) -> None:
    """As before an autoencoder's attention."""
    model = parsed("""
        <ir_version: 10, opset_import: ["" : 23]>
        normalization (float[rows,6,s] x) => (float[rows,6,s] y)
        <float[6] scale = {1, -2, 3, 0.5, 0, 2}, float[6] bias = {0, 1, -1, 2, 3, 0}> {
            y = GroupNormalization<num_groups=2, epsilon=0.01>(x, scale, bias)
        }""")
    assert lower_group_normalization(model, largest) == 1
    x = (np.random.default_rng(0).standard_normal((2, 6, 9)) * 3 + 5).astype(np.float32)
    np.testing.assert_allclose(run(model, {"x": x})[..., None], by_definition(x[..., None]), rtol=0, atol=2e-5)


def test_an_unknown_number_of_channels_is_left_alone() -> None:
    model = parsed("""
        <ir_version: 10, opset_import: ["" : 23]>
        normalization (float[rows,C,h,w] x, float[C] scale, float[C] bias) => (float[rows,C,h,w] y) {
            y = GroupNormalization<num_groups=2>(x, scale, bias)
        }""")
    assert lower_group_normalization(model) == 0
