"""Image-to-image starts and the hand-over between a base model and a refiner, by diffusers' pipelines' own rules."""

from __future__ import annotations

from types import SimpleNamespace

import numpy as np
import pytest
from diffusers import StableDiffusion3Img2ImgPipeline, StableDiffusionXLImg2ImgPipeline

from latentrt.runtime.errors import RequestError
from latentrt.runtime.samplers import SamplerTable, build_table, model_schedule_from_config

from .diffusers_probe import Probed, make, probe, row_error
from .parity_cases import STABLE_DIFFUSION

pytestmark = [
    pytest.mark.filterwarnings("ignore:__array__ implementation doesn't accept a copy:DeprecationWarning"),
    pytest.mark.filterwarnings("ignore:__array_wrap__ must accept context:DeprecationWarning"),
]

SDXL = {**STABLE_DIFFUSION, "timestep_spacing": "leading", "steps_offset": 1}
CONFIGS = {
    "EulerDiscreteScheduler": SDXL,
    "EulerAncestralDiscreteScheduler": SDXL,
    "HeunDiscreteScheduler": SDXL,
    "KDPM2DiscreteScheduler": {**SDXL, "use_karras_sigmas": True},
    "KDPM2AncestralDiscreteScheduler": SDXL,
    "DPMSolverSDEScheduler": SDXL,
    "DDIMScheduler": {**SDXL, "clip_sample": False},
    "DDPMScheduler": {**SDXL, "clip_sample": False},
    "LCMScheduler": STABLE_DIFFUSION,
    "TCDScheduler": STABLE_DIFFUSION,
    "DPMSolverMultistepScheduler": {**SDXL, "solver_order": 3, "use_karras_sigmas": True},
    "DPMSolverSinglestepScheduler": {**STABLE_DIFFUSION, "solver_order": 3},
    "DEISMultistepScheduler": SDXL,
    "UniPCMultistepScheduler": {**SDXL, "solver_order": 3},
    "SASolverScheduler": SDXL,
}
FLOW = {
    "FlowMatchEulerDiscreteScheduler": {"shift": 3.0},
    "FlowMatchHeunDiscreteScheduler": {"shift": 3.0},
    "UniPCMultistepScheduler": {"prediction_type": "flow_prediction", "use_flow_sigmas": True, "flow_shift": 3.0},
}


def table(class_name: str, config: dict[str, object], steps: int, **options: float) -> SamplerTable:
    model = model_schedule_from_config({"_class_name": class_name, **config})
    return build_table(None, None, steps, model, **options)


def assert_equal(ours: SamplerTable, theirs: Probed) -> None:
    assert row_error(ours.linear_map(), theirs.states) <= 1e-5
    # the middle timesteps of KDPM2AncestralDiscreteScheduler carry its float32 cancellation
    np.testing.assert_allclose(ours.timesteps, theirs.timesteps, atol=1e-2, rtol=0)
    np.testing.assert_array_equal(ours.draws_noise, theirs.draws_noise)


@pytest.mark.parametrize("strength", [1.0, 0.8, 0.55, 0.34])
@pytest.mark.parametrize("steps", [3, 10, 20])
@pytest.mark.parametrize("class_name", CONFIGS)
def test_strength(class_name: str, steps: int, strength: float):
    scheduler = make(class_name, CONFIGS[class_name])
    scheduler.set_timesteps(steps)
    pipeline = SimpleNamespace(scheduler=scheduler)
    _, run = StableDiffusionXLImg2ImgPipeline.get_timesteps(pipeline, steps, strength, "cpu")
    begin = (steps - run) * scheduler.order
    ours = table(class_name, CONFIGS[class_name], steps, strength=strength)
    theirs = probe(scheduler, begin=begin)
    assert_equal(ours, theirs)
    assert ours.steps_run == run
    assert ours.num_inference_steps == steps
    if class_name != "SASolverScheduler":  # see test_parity
        np.testing.assert_allclose((ours.start_signal, ours.start_noise), theirs.start, rtol=1e-6, atol=1e-6)


@pytest.mark.parametrize("strength", [1.0, 0.8, 0.55, 0.34])
@pytest.mark.parametrize("steps", [3, 10, 20])
@pytest.mark.parametrize("class_name", FLOW)
def test_strength_of_flow_models_rounds_the_other_way(class_name: str, steps: int, strength: float):
    scheduler = make(class_name, FLOW[class_name])
    scheduler.set_timesteps(steps)
    pipeline = SimpleNamespace(scheduler=scheduler)
    _, run = StableDiffusion3Img2ImgPipeline.get_timesteps(pipeline, steps, strength, "cpu")
    ours = table(class_name, FLOW[class_name], steps, strength=strength)
    assert ours.steps_run == run
    assert_equal(ours, probe(scheduler, begin=(steps - run) * scheduler.order))


@pytest.mark.parametrize("fraction", [0.8, 0.5, 0.33])
@pytest.mark.parametrize("steps", [10, 25])
@pytest.mark.parametrize("class_name", CONFIGS)
def test_hand_over(class_name: str, steps: int, fraction: float):
    base = make(class_name, CONFIGS[class_name])
    base.set_timesteps(steps)
    cutoff = round(1000 - fraction * 1000)  # StableDiffusionXLPipeline.__call__
    count = len([timestep for timestep in base.timesteps if timestep >= cutoff])
    first = table(class_name, CONFIGS[class_name], steps, denoising_end=fraction)
    assert first.evaluations == count
    assert_equal(first, probe(base, count=count))

    refiner = make(class_name, CONFIGS[class_name])
    refiner.set_timesteps(steps)
    pipeline = SimpleNamespace(scheduler=refiner)
    timesteps, _ = StableDiffusionXLImg2ImgPipeline.get_timesteps(pipeline, steps, 1.0, "cpu", denoising_start=fraction)
    second = table(class_name, CONFIGS[class_name], steps, denoising_start=fraction)
    assert second.evaluations == len(timesteps)
    assert_equal(second, probe(refiner, begin=len(refiner.timesteps) - len(timesteps)))


@pytest.mark.parametrize("class_name", ["EulerDiscreteScheduler", "DDIMScheduler", "EulerAncestralDiscreteScheduler"])
def test_base_and_refiner_together_are_one_whole_run(class_name: str):
    """First-order solvers have no history to lose: the product of both maps is the map of the whole run."""
    whole, first, second = (
        table(class_name, CONFIGS[class_name], 20, **options)
        for options in ({}, {"denoising_end": 0.8}, {"denoising_start": 0.8})
    )
    assert first.evaluations + second.evaluations == whole.evaluations
    final, head, tail = (part.linear_map()[-1] for part in (whole, first, second))
    np.testing.assert_allclose(final[0], head[0] * tail[0], rtol=1e-12)
    np.testing.assert_allclose(final[1 : 1 + first.evaluations], head[1 : 1 + first.evaluations] * tail[0], rtol=1e-12)
    np.testing.assert_allclose(
        final[1 + first.evaluations : 1 + whole.evaluations], tail[1 : 1 + second.evaluations], rtol=1e-12
    )
    np.testing.assert_allclose(second.sigmas[0], first.sigmas[-1], rtol=1e-12)


@pytest.mark.parametrize(
    ("name", "config"),
    [
        ("plms", {"_class_name": "PNDMScheduler", **SDXL, "skip_prk_steps": True}),
        ("lms", {"_class_name": "LMSDiscreteScheduler", **SDXL}),
    ],
)
def test_multistep_solvers_start_anew_in_the_middle(name: str, config: dict[str, object]):
    """A run of constant eps and x0 is exact from any start.

    Here ours differ from diffusers', which slices timesteps without telling its scheduler: that leaves PNDM a step
    behind, and LMS with the weights of outputs that it does not have.
    """
    model = model_schedule_from_config(config)
    part = build_table(name, None, 20, model, strength=0.5)
    assert part.steps_run == 10
    start = np.asarray([part.start_noise, *np.ones(part.evaluations)])  # x0 = 0 and the model says so: m = eps = 1
    signal = np.asarray([part.start_signal, *np.zeros(part.evaluations)])  # eps = 0: m = 0
    states = part.linear_map()
    levels = np.append(part.sigmas[:-1], part.sigmas[-1])
    preserving = name == "plms"
    noise = levels / np.hypot(levels, 1) if preserving else levels
    np.testing.assert_allclose(states[1:] @ start, noise[1:], atol=1e-9)
    np.testing.assert_allclose(
        states @ signal, 1 / np.hypot(levels, 1) if preserving else np.ones_like(levels), atol=1e-9
    )


@pytest.mark.parametrize(
    "options",
    [
        {"strength": 0.0},
        {"strength": 0.04},
        {"strength": 1.2},
        {"strength": -0.5},
        {"denoising_end": 0.0},
        {"denoising_end": 1.5},
        {"denoising_start": 1.0},
        {"strength": 0.5, "denoising_start": 0.5},
    ],
)
def test_partial_runs_without_steps_are_refused(options: dict[str, float]):
    with pytest.raises(RequestError):
        table("EulerDiscreteScheduler", SDXL, 20, **options)
