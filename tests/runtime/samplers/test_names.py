"""Names that people know samplers and schedules by."""

from __future__ import annotations

import pytest

from latentrt.runtime.errors import RequestError
from latentrt.runtime.samplers import build_table, model_schedule_from_config, sampler_names, schedule_names
from latentrt.runtime.samplers.names import sampler_and_schedule, schedule_called, schedule_for_family
from latentrt.runtime.samplers.registry import SAMPLERS
from latentrt.runtime.samplers.schedule_names import SCHEDULE_ALIASES

from .parity_cases import STABLE_DIFFUSION

SD = model_schedule_from_config({"_class_name": "EulerDiscreteScheduler", **STABLE_DIFFUSION})


@pytest.mark.parametrize(
    ("name", "sampler", "schedule"),
    [
        # A1111, as in diffusers' table
        ("DPM++ 2M", "dpmpp_2m", None),
        ("DPM++ 2M Karras", "dpmpp_2m", "karras"),
        ("DPM++ 2M SDE", "dpmpp_2m_sde", None),
        ("DPM++ 2M SDE Karras", "dpmpp_2m_sde", "karras"),
        ("DPM++ 2M SDE Exponential", "dpmpp_2m_sde", "exponential"),
        ("DPM++ 3M SDE Karras", "dpmpp_3m_sde", "karras"),
        ("DPM++ 2S a", "dpmpp_2s_a", None),
        ("DPM++ 2S a Karras", "dpmpp_2s_a", "karras"),
        ("DPM++ SDE", "dpmpp_sde", None),
        ("DPM++ SDE Karras", "dpmpp_sde", "karras"),
        ("DPM2", "dpm2", None),
        ("DPM2 Karras", "dpm2", "karras"),
        ("DPM2 a", "dpm2_a", None),
        ("DPM2 a Karras", "dpm2_a", "karras"),
        ("Euler", "euler", None),
        ("Euler a", "euler_a", None),
        ("Heun", "heun", None),
        ("LMS", "lms", None),
        ("LMS Karras", "lms", "karras"),
        ("DDIM", "ddim", None),
        ("PLMS", "plms", None),
        ("UniPC", "unipc", None),
        ("LCM", "lcm", None),
        # ComfyUI
        ("euler_ancestral", "euler_a", None),
        ("dpm_2", "dpm2", None),
        ("dpm_2_ancestral", "dpm2_a", None),
        ("dpmpp_2s_ancestral", "dpmpp_2s_a", None),
        ("dpmpp_2m_sde_gpu", "dpmpp_2m_sde", None),
        ("uni_pc", "unipc_bh1", None),
        ("uni_pc_bh2", "unipc", None),
        ("ipndm", "ipndm", None),
        ("deis", "deis", None),
        ("ddpm", "ddpm", None),
        ("sa_solver", "sa_solver", None),
        # diffusers
        ("DPMSolverMultistepScheduler", "dpmpp_2m", None),
        ("EulerAncestralDiscreteScheduler", "euler_a", None),
        ("EulerDiscreteScheduler", "euler", None),
        ("UniPCMultistepScheduler", "unipc", None),
        ("PNDMScheduler", "plms", None),
        ("FlowMatchEulerDiscreteScheduler", "flow_euler", None),
    ],
)
def test_samplers(name: str, sampler: str, schedule: str | None):
    found, included = sampler_and_schedule(name)
    assert (found.name, included) == (sampler, schedule)


@pytest.mark.parametrize(
    ("name", "schedule"),
    [
        ("Karras", "karras"),
        ("SGM Uniform", "trailing"),
        ("sgm_uniform", "trailing"),
        ("simple", "trailing"),
        ("normal", "linspace"),
        ("ddim_uniform", "ddim_uniform"),
        ("DDIM", "ddim_uniform"),
        ("Polyexponential", "exponential"),
        ("Uniform", "linspace"),
        ("Align Your Steps", "ays_sdxl"),
        ("ays", "ays_sdxl"),
        ("KL Optimal", "kl_optimal"),
        ("Beta", "beta"),
        ("exponential", "exponential"),
    ],
)
def test_schedules(name: str, schedule: str):
    assert schedule_called(name) == schedule


def test_every_name_resolves_to_its_own_sampler():
    for sampler in SAMPLERS:
        for name in (sampler.name, sampler.title, *sampler.aliases):
            assert sampler_and_schedule(name)[0] is sampler
    for name in (*schedule_names(), *SCHEDULE_ALIASES):
        assert schedule_called(name) in schedule_names()
    assert len(set(sampler_names())) == len(SAMPLERS)


def test_aliases_build_the_same_table():
    ours = build_table("dpmpp_2m", "karras", 20, SD).linear_map()
    for sampler, schedule in [
        ("DPM++ 2M Karras", None),
        ("DPM++ 2M", "Karras"),
        ("DPM++ 2M Karras", "karras"),
        ("DPMSolverMultistepScheduler", "karras"),
    ]:
        assert (build_table(sampler, schedule, 20, SD).linear_map() == ours).all()


def test_usual_names_mean_the_flow_form_on_flow_models():
    flow = model_schedule_from_config({"_class_name": "FlowMatchEulerDiscreteScheduler", "shift": 3.0})
    assert build_table("euler", None, 5, flow).sampler == "flow_euler"
    assert build_table("Heun", None, 5, flow).sampler == "flow_heun"
    assert (build_table("euler", None, 5, flow).linear_map() == build_table(None, None, 5, flow).linear_map()).all()


@pytest.mark.parametrize(
    ("name", "near"),
    [("dpmp_2m", "dpmpp_2m"), ("euller", "euler"), ("DPM+ 2M", "dpmpp_2m"), ("unicp", "unipc"), ("ddmi", "ddim")],
)
def test_unknown_samplers_answer_with_near_ones(name: str, near: str):
    with pytest.raises(RequestError, match="unknown sampler") as error:
        build_table(name, None, 5, SD)
    assert near in str(error.value.expected)


@pytest.mark.parametrize(("name", "near"), [("karas", "karras"), ("expontial", "exponential"), ("trialng", "trailing")])
def test_unknown_schedules_answer_with_near_ones(name: str, near: str):
    with pytest.raises(RequestError, match="unknown schedule") as error:
        build_table("euler", name, 5, SD)
    assert near in str(error.value.expected)


def test_a_name_like_nothing_else_answers_with_all():
    with pytest.raises(RequestError, match="unknown sampler") as error:
        build_table("qqqq", None, 5, SD)
    assert all(name in str(error.value.expected) for name in sampler_names())


def test_align_your_steps_are_those_of_the_family():
    for name in ("ays", "Align Your Steps"):
        assert schedule_for_family(name, "sd1") == "ays_sd1"
        assert schedule_called(schedule_for_family(name, "sdxl") or "") == "ays_sdxl"
    assert schedule_for_family("ays_sdxl", "sd1") == "ays_sdxl"
    assert schedule_for_family(None, "sd1") is None


def test_two_schedules_are_refused():
    with pytest.raises(RequestError, match="another schedule"):
        build_table("DPM++ 2M Karras", "exponential", 5, SD)
