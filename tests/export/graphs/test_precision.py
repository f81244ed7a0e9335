"""Precision plans: what of a component stays in fp32, by what its config says."""

from __future__ import annotations

from typing import Any

import pytest

from latentrt.export.graphs.precision import PrecisionPlan, plan_for

HALF = PrecisionPlan("fp16")

UNET, MMDIT, T5 = (
    {"_class_name": "UNet2DConditionModel"},
    {"_class_name": "SD3Transformer2DModel"},
    {"model_type": "t5"},
)


@pytest.mark.parametrize(
    ("component", "config", "force_upcast", "expected"),
    [
        ("denoiser", UNET, False, HALF),
        ("denoiser", {**UNET, "upcast_attention": True}, False, PrecisionPlan("fp16", fp32_attention=True)),
        ("denoiser", MMDIT, False, PrecisionPlan("fp16", fp32_sums=("context_embedder.weight",))),
        ("text_encoder", {"model_type": "clip_text_model"}, False, HALF),
        ("vae_decoder", {"force_upcast": True}, True, PrecisionPlan("fp32")),
        ("vae_encoder", {}, True, PrecisionPlan("fp32")),  # diffusers' default
        ("vae_decoder", {"force_upcast": False}, True, HALF),
        ("vae_decoder", {"force_upcast": True}, False, HALF),  # not SDXL's
    ],
)
def test_plans_in_half_precision(
    component: str, config: dict[str, Any], force_upcast: bool, expected: PrecisionPlan
) -> None:
    assert plan_for(component, "fp16", config, force_upcast=force_upcast) == expected


def test_t5_keeps_its_feed_forward_output_and_its_sum_in_fp32() -> None:
    plan = plan_for("text_encoder_3", "fp16", T5, force_upcast=False)
    assert plan.compute == "fp16"
    assert "encoder.block.0.layer.1.DenseReluDense.wo.weight".endswith(plan.fp32_weights)
    assert "encoder.embed_tokens.weight".endswith(plan.fp32_sums)


@pytest.mark.parametrize("config", [{**UNET, "upcast_attention": True}, MMDIT, T5, {"force_upcast": True}])
@pytest.mark.parametrize("precision", ["fp32", "bf16"])
def test_formats_with_the_range_of_fp32_need_no_islands_for_it(precision: str, config: dict[str, Any]) -> None:
    component = "vae_decoder" if "force_upcast" in config else "denoiser"
    assert plan_for(component, precision, config, force_upcast=True) == PrecisionPlan(precision)


def test_inputs_and_outputs_are_what_numpy_has() -> None:
    assert {compute: PrecisionPlan(compute).io for compute in ("fp32", "fp16", "bf16")} == {
        "fp32": "float32",
        "fp16": "float16",
        "bf16": "float32",
    }
