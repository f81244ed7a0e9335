"""The gate lets good engines through and names bad ones, with the figures."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import msgspec
import numpy as np
import pytest
from numpy.typing import NDArray

from latentrt.export.gate.verify import LIMITS, WORK_LIMIT, Sample, compare, compared_sizes, gate, samples
from latentrt.runtime.bundles.bundle import open_bundle
from latentrt.runtime.bundles.manifest import Component, GateRecord
from latentrt.runtime.bundles.spec import AxisRange, Profile, TensorSpec, resolve_shape
from latentrt.runtime.errors import GateError

Array = NDArray[Any]

SPEC = TensorSpec("latents", "float32", ("rows", 4, "height", "width"))
OUTPUT = TensorSpec("model_output", "float32", ("rows", 4, "height", "width"))
PROFILE = {"rows": AxisRange(1, 2, 16), "height": AxisRange(4, 8, 16), "width": AxisRange(6, 8, 12)}
RECORD = Component((SPEC,), (OUTPUT,), PROFILE, "fp32", 0, 23, "onnx/denoiser.onnx", (), {})


def sine(inputs: Mapping[str, Array]) -> dict[str, Array]:
    return {"model_output": np.sin(inputs["latents"])}


def latents(sizes: dict[str, int], seed: int) -> dict[str, Array]:
    return {"latents": np.random.default_rng(seed).standard_normal(resolve_shape(SPEC, sizes))}


def expected(profile: Profile = PROFILE) -> tuple[Sample, ...]:
    return samples(sine, latents, compared_sizes(profile, lambda sizes: 0))


def passed(change: Callable[[Array], Array], record: Component = RECORD) -> tuple[GateRecord, ...]:
    """The figures of an engine that gives the reference's result, changed."""
    return gate("denoiser", record, expected(), lambda inputs: {"model_output": change(sine(inputs)["model_output"])})


def refused(change: Callable[[Array], Array], record: Component = RECORD) -> str:
    with pytest.raises(GateError) as error:
        passed(change, record)
    assert error.value.exit_code == 1
    return str(error.value)


def test_a_good_engine_passes_at_the_opt_the_smallest_the_largest_and_an_oblong_size() -> None:
    records = passed(lambda result: result + 1e-6)
    assert [record.sizes for record in records] == [
        {"rows": 2, "height": 8, "width": 8},
        {"rows": 2, "height": 4, "width": 6},
        {"rows": 2, "height": 16, "width": 12},
        {"rows": 2, "height": 4, "width": 12},
    ]
    assert {record.output for record in records} == {"model_output"}
    for record in records:
        assert 0 <= record.cosine_distance < 1e-9
        assert record.max_abs == pytest.approx(1e-6, rel=0.2)
        assert 0.9 < record.reference_max_abs <= 1
        assert record.non_finite == 0


def test_a_profile_of_one_row_is_checked_with_one() -> None:
    profile = {**PROFILE, "rows": AxisRange(1, 1, 1)}
    assert {sample.sizes["rows"] for sample in expected(profile)} == {1}


@pytest.mark.parametrize(
    ("largest", "compared"),
    [
        (WORK_LIMIT / 4, ["8x8", "4x6", "16x12", "4x12"]),
        (WORK_LIMIT / 2, ["8x8", "4x6", "16x12", "4x12"]),
        (WORK_LIMIT, ["8x8", "4x6", "4x12"]),
        (2 * WORK_LIMIT, ["8x8", "4x6"]),
        (4 * WORK_LIMIT, ["4x6"]),
    ],
)
def test_a_component_is_compared_at_as_many_sizes_as_its_work_allows(largest: float, compared: list[str]) -> None:
    def work(sizes: dict[str, int]) -> float:
        return largest * sizes["height"] * sizes["width"] / (16 * 12)

    chosen = compared_sizes(PROFILE, work)
    assert [f"{sizes['height']}x{sizes['width']}" for sizes in chosen] == compared


def test_inputs_differ_between_sizes_and_never_between_runs() -> None:
    first, again = expected(), expected()
    for sample, same in zip(first, again, strict=True):
        np.testing.assert_array_equal(sample.inputs["latents"], same.inputs["latents"])
        np.testing.assert_array_equal(sample.expected["model_output"], np.sin(sample.inputs["latents"]))
    assert len({float(sample.inputs["latents"].flat[0]) for sample in first}) == len(first)


def test_a_perturbed_engine_is_named_with_both_figures() -> None:
    message = refused(lambda result: result * 0.9)
    assert "denoiser: model_output differs from the reference at rows 2, height 8, width 8" in message
    assert "cosine distance" in message
    assert "max-abs 1.00e-01 (1.0e-01 of the largest value)" in message
    assert "expected: cosine distance <= 1e-06, max-abs <= 1e-03 of the largest value" in message


def test_one_wrong_value_among_many_is_found() -> None:
    def change(result: Array) -> Array:
        result = result.copy()
        result.flat[5] += 0.01
        return result

    assert "max-abs 1.00e-02" in refused(change)


@pytest.mark.parametrize("value", [np.nan, np.inf, -np.inf])
def test_values_that_are_not_finite_are_counted(value: float) -> None:
    def change(result: Array) -> Array:
        result = result.copy()
        result.flat[:3] = value
        return result

    assert "3 values not finite" in refused(change)
    assert "512 values not finite" in refused(lambda result: np.full_like(result, value))


def test_zeros_and_other_shapes_are_refused() -> None:
    assert "cosine distance 1.00e+00" in refused(lambda result: np.zeros_like(result))
    assert "received: shape [2, 4, 64] | expected: [2, 4, 8, 8]" in refused(lambda result: result.reshape(2, 4, 64))


def test_rows_that_leak_into_each_other_are_refused() -> None:
    assert "differs" in refused(lambda result: result[::-1])


def test_a_reference_that_is_not_finite_blames_the_checkpoint() -> None:
    expected = np.array([[1.0, np.nan]], np.float32)
    with pytest.raises(
        GateError, match=r"denoiser: the checkpoint's own .* received: 1 of 2 values of out are NaN .* at rows 1"
    ):
        compare("denoiser", "out", {"rows": 1}, expected, expected)


def test_half_precision_has_wider_limits_and_another_remedy() -> None:
    half = msgspec.structs.replace(RECORD, precision="fp16")
    assert len(passed(lambda result: result + 1e-3, half)) == 4
    assert "build it in bf16 or fp32" in refused(lambda result: result * 0.5, half)
    brain = msgspec.structs.replace(RECORD, precision="bf16")
    assert "build it in fp32" in refused(lambda result: result * 0.5, brain)
    assert "build it in" not in refused(lambda result: result * 0.5)


def test_figures_of_a_bundle_are_within_the_limits_at_all_sizes(tiny_bundle: Path) -> None:
    manifest = open_bundle(tiny_bundle).manifest
    assert len(manifest.engines) == 5
    for name, component in manifest.components.items():
        assert not component.not_run
        assert {record.output for record in component.gate} == {tensor.name for tensor in component.outputs}
        assert max(record.cosine_distance for record in component.gate) <= LIMITS[component.precision][0], name
    for engine in manifest.engines:
        component = manifest.components[engine.component]
        cosine_limit, relative_limit = LIMITS[component.precision]
        sizes = [record.sizes for record in engine.gate if record.output == component.outputs[0].name]
        for axis in set(component.profile) - {"rows", "images", "texts"}:
            allowed = component.profile[axis]
            assert [size[axis] for size in sizes[:3]] == [allowed.opt, allowed.min, allowed.max]
        assert "texts" in component.profile or any(size["height"] != size["width"] for size in sizes)
        assert {record.output for record in engine.gate} == {tensor.name for tensor in component.outputs}
        for record in engine.gate:
            assert record.cosine_distance <= cosine_limit
            assert record.max_abs <= relative_limit * record.reference_max_abs
            assert record.non_finite == 0
