"""One clear error for each thing that cannot be done."""

from __future__ import annotations

import pytest

from latentrt.runtime.errors import CheckpointError, RequestError
from latentrt.runtime.samplers import build, build_table, model_schedule_from_config

from .parity_cases import STABLE_DIFFUSION

SD = model_schedule_from_config({"_class_name": "EulerDiscreteScheduler", **STABLE_DIFFUSION})
SDE = {"algorithm_type": "sde-dpmsolver", "final_sigmas_type": "sigma_min"}
ZERO_SNR = {"_class_name": "DDIMScheduler", **STABLE_DIFFUSION, "clip_sample": False, "rescale_betas_zero_snr": True}
FLOW = model_schedule_from_config({"_class_name": "FlowMatchEulerDiscreteScheduler", "shift": 3.0})
SHIFTED = model_schedule_from_config({"_class_name": "FlowMatchEulerDiscreteScheduler", "use_dynamic_shifting": True})


@pytest.mark.parametrize(
    ("limit", "sampler", "received"),
    [("HISTORY", "lms", "4 model outputs"), ("DRAWS", "dpmpp_sde", "2 draws of noise")],
)
def test_more_than_the_kernels_keep(limit: str, sampler: str, received: str, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr(build, limit, 1)
    build.table_from_request.cache_clear()
    with pytest.raises(RequestError, match=f"longer history .* received: {received} .* at most 1"):
        build_table(sampler, None, 20, SD)


@pytest.mark.parametrize("steps", [0, -1, 2.5, True, "20", None])
def test_steps(steps: object):
    with pytest.raises(RequestError, match="num_inference_steps"):
        build_table("euler", None, steps, SD)  # type: ignore[arg-type]


@pytest.mark.parametrize(
    ("sampler", "options", "words"),
    [
        ("dpmpp_2m", {"solver_order": 4}, "solver_order.*4.*1 or 2 or 3"),
        ("unipc", {"solver_order": 0}, "solver_order"),
        ("deis", {"solver_order": 4}, "solver_order"),
        ("sa_solver", {"predictor_order": 5}, "predictor_order"),
        ("ddim", {"eta": -0.1}, "eta.*-0.1"),
        ("ddim", {"eta": 1.1}, "eta"),
        ("tcd", {"eta": -1}, "eta"),
        ("dpmpp_3m_sde", {"eta": -1}, "eta"),
        ("dpmpp_2m", {"algorithm_type": "dpmsolver"}, "sigma 0"),
        ("dpmpp_2m", {"algorithm_type": "deis"}, "algorithm_type.*deis"),
        ("dpmpp_2m", {**SDE, "solver_order": 3}, "no third order"),
        ("unipc", {"lower_order_final": False}, "first order only"),
        ("unipc", {"predict_x0": False}, "x0 only"),
        ("sa_solver", {"tau": -1.0}, "tau"),
        ("euler", {"eta": 0.5}, "no option eta"),
        ("euler", {"solver_ordr": 2}, "no option solver_ordr"),
        ("dpmpp_2m", {"solver_ordr": 2}, "solver_order"),
        ("dpmpp_2m", {"thresholding": True}, "thresholding.*not linear"),
        ("ddim", {"clip_sample": True}, "clip_sample.*not linear"),
        ("euler", {"noise": "brownian"}, "no Brownian noise"),
        ("dpmpp_sde", {"noise": "pink"}, "unknown noise"),
        ("euler", {"prediction_type": "flow_prediction"}, "prediction_type"),
        ("euler_a", {"prediction_type": "sample"}, "prediction_type.*sample"),
        ("euler", {"timestep_spacing": "uniform"}, "timestep_spacing.*uniform"),
        ("euler", {"steps_offset": 1.5}, "steps_offset.*whole number"),
        ("lcm", {"original_inference_steps": 5}, "distilled"),
        ("lcm", {"original_inference_steps": 2000}, "original_inference_steps"),
        ("dpmpp_2m", {"mu": 0.8}, "no option mu"),
        ("dpmpp_2m", {"beta_start": 0.001}, "no option beta_start"),
        ("dpmpp_2m", {"use_flow_sigmas": True}, "no option use_flow_sigmas"),
        ("euler", {"ramp": "karras"}, "no option ramp"),
        ("euler", {"strength": {"a": 1}}, "strength is no number"),
        ("euler", {"steps_offset": -5}, "steps_offset is out of range"),
        ("euler", {"use_karras_sigmas": True, "sigma_max": 0.0}, "sigma_max is out of range"),
        ("euler", {"use_karras_sigmas": True, "sigma_min": float("nan")}, "sigma_min is not finite"),
        ("euler", {"use_karras_sigmas": True, "sigma_min": 100.0}, "no falling sigmas"),
        ("unipc", {"use_karras_sigmas": True, "sigma_min": 100.0}, "no falling sigmas"),
        ("ddim", {"eta": None}, "eta.*number"),
        ("ddim", {"eta": "much"}, "eta.*number"),
        ("ddim", {"eta": float("inf")}, "eta is not finite"),
        ("sa_solver", {"tau": "x"}, "tau.*number"),
        ("sa_solver", {"tau": (0.5,)}, "tau.*number"),
        ("sa_solver", {"tau_timesteps": 3}, "tau_timesteps is not a list"),
        ("sa_solver", {"tau_timesteps": [1.0]}, "two timesteps"),
        ("unipc", {"disable_corrector": 3}, "disable_corrector is not a list"),
        ("lcm", {"timestep_scaling": -1.0}, "timestep_scaling is out of range"),
        ("lcm", {"original_inference_steps": 0}, "original_inference_steps is out of range"),
        ("dpmpp_2m", {"lambda_min_clipped": 100.0}, "leaves no timestep"),
        ("dpmpp_2m", {"lambda_min_clipped": float("nan")}, "lambda_min_clipped is not finite"),
        ("euler", {"strength": "half"}, r"strength \| received: 'half' \| expected: a number from 0 to 1"),
    ],
)
def test_options(sampler: str, options: dict[str, object], words: str):
    with pytest.raises(RequestError, match=f"(?s){words}"):
        build_table(sampler, None, 10, SD, **options)  # type: ignore[arg-type]


@pytest.mark.parametrize(
    ("options", "words"),
    [
        ({"timesteps": [100, 500, 900]}, "do not decrease"),
        ({"timesteps": [900, 900, 100]}, "do not decrease"),
        ({"timesteps": [1000, 500]}, "training range"),
        ({"timesteps": [500, -1]}, "training range"),
        ({"timesteps": []}, "training range"),
        ({"timesteps": [float("nan"), 1.0]}, "training range"),
        ({"timesteps": 5}, "not a list"),
        ({"sigmas": [1.0, 5.0, 0.0]}, "do not decrease"),
        ({"sigmas": [5.0, 1.0, -1.0]}, "range"),
        ({"sigmas": [5.0, 0.0], "timesteps": [500]}, "exclude each other"),
        ({"sigmas": [True, False]}, "not a list of numbers"),
        ({"sigmas": [5.0]}, "no step"),
        ({"sigmas": [0.0]}, "no step"),
        ({"sigmas": []}, "range"),
    ],
)
def test_explicit_schedules(options: dict[str, object], words: str):
    with pytest.raises(RequestError, match=words):
        build_table("euler", None, None, SD, **options)  # type: ignore[arg-type]


def test_explicit_schedules_leave_nothing_to_count_or_space():
    with pytest.raises(RequestError, match="exclude each other"):
        build_table("euler", None, 3, SD, timesteps=[900, 500, 100])
    with pytest.raises(RequestError, match="nothing to space"):
        build_table("euler", "karras", None, SD, timesteps=[900, 500, 100])
    with pytest.raises(RequestError, match="whole numbers"):
        build_table("dpmpp_2m", None, None, SD, timesteps=[900.5, 500])
    with pytest.raises(RequestError, match="no option timesteps"):
        build_table("ddim", None, None, SD, timesteps=[900, 500])
    with pytest.raises(RequestError, match="range"):
        build_table("flow_euler", None, None, FLOW, sigmas=[1.5, 0.5])
    with pytest.raises(RequestError, match="no step"):
        build_table("flow_euler", None, None, FLOW, sigmas=[0.0])
    with pytest.raises(RequestError, match="no step starts at timestep 0"):
        build_table("flow_euler", None, None, FLOW, timesteps=[500.0, 0.0])


@pytest.mark.parametrize(("sampler", "schedule"), [("ddim", "karras"), ("lcm", "trailing"), ("dpmpp_2s", "leading")])
def test_schedules_that_a_sampler_does_not_have(sampler: str, schedule: str):
    with pytest.raises(RequestError, match=f"{sampler} cannot honour"):
        build_table(sampler, schedule, 10, SD)


def test_a_schedule_and_a_flag_exclude_each_other():
    with pytest.raises(RequestError, match="beside a schedule"):
        build_table("dpmpp_2m", "exponential", 10, SD, use_karras_sigmas=True)
    assert build_table("dpmpp_2m", None, 10, SD, use_karras_sigmas=True).schedule == "karras"


def test_more_steps_than_timesteps():
    for sampler in ("ddim", "ddpm", "plms"):
        with pytest.raises(RequestError, match="more inference steps"):
            build_table(sampler, None, 1001, SD)
    with pytest.raises(RequestError, match="more inference steps"):
        build_table("dpmpp_2m", "leading", 1000, SD)
    with pytest.raises(RequestError, match="beyond the training range"):
        build_table("ddim", "ddim_uniform", 1000, SD)


@pytest.mark.parametrize("sampler", ["dpmpp_2m", "unipc", "deis", "dpmpp_2s", "sa_solver"])
@pytest.mark.parametrize("schedule", ["karras", "exponential", "beta"])
def test_ramps_with_flow_sigmas(sampler: str, schedule: str):
    with pytest.raises(RequestError, match="flow sigmas have their own spacing"):
        build_table(sampler, schedule, 10, FLOW)


def test_flow_schedules():
    with pytest.raises(RequestError, match="not defined for rectified flow"):
        build_table("flow_euler", "ays_sd1", 10, FLOW)
    with pytest.raises(RequestError, match="cannot honour timestep_spacing"):
        build_table("flow_euler", "trailing", 10, FLOW)
    with pytest.raises(RequestError, match="shifted by the image size"):
        build_table("flow_euler", None, 10, SHIFTED)
    with pytest.raises(RequestError, match="not shifted by the image size"):
        build_table("flow_euler", None, 10, FLOW, image_seq_len=4096)
    with pytest.raises(RequestError, match="two steps or more"):
        build_table("flow_euler", None, 1, FLOW, shift_terminal=0.1)
    with pytest.raises(RequestError, match="shift_terminal"):
        build_table("flow_euler", None, 5, FLOW, shift_terminal=1.0)
    with pytest.raises(RequestError, match="shift is out of range"):
        build_table("flow_euler", None, 5, FLOW, shift=0.0)
    with pytest.raises(RequestError, match="image_seq_len is out of range"):
        build_table("flow_euler", None, 5, SHIFTED, image_seq_len=0)
    with pytest.raises(RequestError, match="out of range"):
        build_table("flow_euler", None, 5, SHIFTED, mu=800.0)
    with pytest.raises(RequestError, match="final_sigmas_type"):
        build_table("sa_solver", None, 5, FLOW, final_sigmas_type="low")


@pytest.mark.parametrize(
    ("options", "words"),
    [({"rho": 0.1}, "no falling sigmas"), ({"rho": 0.0}, "rho is out of range"), ({"sigma_data": -1.0}, "sigma_data")],
)
def test_edm_schedules(options: dict[str, float], words: str):
    with pytest.raises(RequestError, match=words):
        build_table(None, None, 5, model_schedule_from_config({"_class_name": "EDMEulerScheduler"}), **options)


def test_a_shift_that_leaves_no_noise():
    with pytest.raises(RequestError, match="no falling sigmas"):
        build_table("heun", None, 1, SHIFTED, shift=1e-30)


def test_sigmas_at_which_a_solver_is_not_defined():
    with pytest.raises(RequestError, match="not defined with these settings"):
        build_table("sa_solver", None, None, SD, sigmas=[1e-12, 0.0])


def test_samplers_and_models_that_do_not_go_together():
    with pytest.raises(RequestError, match="does not run this kind of model"):
        build_table("flow_euler", None, 10, SD)
    with pytest.raises(RequestError, match="does not run this kind of model"):
        build_table("ddim", None, 10, FLOW)
    with pytest.raises(RequestError, match="does not run this kind of model"):
        build_table("euler", None, 10, model_schedule_from_config({"_class_name": "EDMEulerScheduler"}))
    with pytest.raises(RequestError, match="prediction_type"):
        build_table("dpmpp_2m", None, 10, FLOW, prediction_type="v_prediction")


def test_epsilon_without_signal():
    model = model_schedule_from_config({**ZERO_SNR, "timestep_spacing": "trailing"})
    with pytest.raises(RequestError, match="says nothing about the image at timestep 999"):
        build_table(None, None, 10, model)
    assert build_table(None, None, 10, model, prediction_type="v_prediction").evaluations == 10


def test_zero_snr_schedules_whose_sigmas_do_not_decrease():
    betas = {"beta_start": 0.0001, "beta_end": 0.02, "beta_schedule": "linear", "rescale_betas_zero_snr": True}
    model = model_schedule_from_config(
        {"_class_name": "DDIMScheduler", "clip_sample": False, "prediction_type": "v_prediction", **betas}
    )
    assert build_table(None, None, 10, model).evaluations == 10
    with pytest.raises(RequestError, match="do not decrease"):
        build_table("euler", None, 10, model)


@pytest.mark.parametrize(
    ("config", "words"),
    [
        ({}, "unknown scheduler class"),
        ({"_class_name": "EulerDiscretScheduler"}, "EulerDiscreteScheduler"),
        ({"_class_name": ["EulerDiscreteScheduler"]}, "unknown scheduler class"),
        ({"_class_name": "EulerDiscreteScheduler", "beta_stat": 0.1}, "unknown field.*beta_start"),
        ({"_class_name": "EulerDiscreteScheduler", "beta_schedule": "quadratic"}, "beta_schedule.*quadratic"),
        ({"_class_name": "EulerDiscreteScheduler", "beta_start": "0.1"}, "beta_start.*number"),
        ({"_class_name": "EulerDiscreteScheduler", "beta_start": None}, "beta_start.*number"),
        ({"_class_name": "EulerDiscreteScheduler", "num_train_timesteps": 10.5}, "num_train_timesteps.*whole"),
        ({"_class_name": "EulerDiscreteScheduler", "use_karras_sigmas": "yes"}, "use_karras_sigmas.*true or false"),
        ({"_class_name": "EulerDiscreteScheduler", "beta_end": {"a": 1}}, "beta_end.*dict"),
        ({"_class_name": "EulerDiscreteScheduler", "trained_betas": ["a"]}, "trained_betas"),
        ({"_class_name": "EulerDiscreteScheduler", "trained_betas": 0.1}, "trained_betas is not a list"),
        ({"_class_name": "EulerDiscreteScheduler", "steps_offset": -1}, "steps_offset is out of range"),
        ({"_class_name": "EDMEulerScheduler", "rho": 0}, "rho is out of range"),
        ({"_class_name": "FlowMatchEulerDiscreteScheduler", "shift": float("nan")}, "shift is not finite"),
        ({"_class_name": "DDPMScheduler", "clip_sample": False, "beta_schedule": "sigmoid"}, "cannot be honoured"),
        (
            {"_class_name": "LMSDiscreteScheduler", "use_karras_sigmas": True, "use_beta_sigmas": True},
            "more than one",
        ),
        ({"_class_name": "EulerDiscreteScheduler", "prediction_type": "flow_prediction"}, "flow"),
        ({"_class_name": "EulerDiscreteScheduler", "num_train_timesteps": 0}, "num_train_timesteps"),
        ({"_class_name": "EulerDiscreteScheduler", "beta_start": -0.1}, "betas"),
        ({"_class_name": "EulerDiscreteScheduler", "beta_end": 1.5}, "betas"),
        ({"_class_name": "EulerDiscreteScheduler", "trained_betas": [0.1, 0.2]}, "trained_betas.*2"),
        ({"_class_name": "EulerDiscreteScheduler", "trained_betas": [2.0] * 1000}, "betas"),
        ({"_class_name": "DDIMScheduler"}, "clip_sample"),
        ({"_class_name": "DDIMScheduler", "clip_sample": False, "thresholding": True}, "thresholding"),
        ({"_class_name": "DDPMScheduler", "clip_sample": False, "variance_type": "learned"}, "variance_type.*learned"),
        ({"_class_name": "DDPMScheduler", "clip_sample": False, "variance_type": "fixed_large_log"}, "variance_type"),
        ({"_class_name": "DPMSolverMultistepScheduler", "variance_type": "learned_range"}, "variance_type"),
        ({"_class_name": "DPMSolverMultistepScheduler", "thresholding": True}, "thresholding.*not linear"),
        ({"_class_name": "DPMSolverMultistepScheduler", "solver_order": 4}, "solver_order"),
        ({"_class_name": "DPMSolverMultistepScheduler", "prediction_type": "flow_prediction"}, "flow sigmas"),
        ({"_class_name": "DPMSolverMultistepScheduler", "use_flow_sigmas": True, "use_karras_sigmas": True}, "spacing"),
        (
            {"_class_name": "DPMSolverMultistepScheduler", "use_flow_sigmas": True, "prediction_type": "v_prediction"},
            "prediction_type",
        ),
        ({"_class_name": "EulerAncestralDiscreteScheduler", "prediction_type": "sample"}, "prediction_type"),
        ({"_class_name": "PNDMScheduler"}, "skip_prk_steps"),
        ({"_class_name": "UniPCMultistepScheduler", "solver_p": "DDIMScheduler"}, "solver_p"),
        ({"_class_name": "SASolverScheduler", "tau_func": "linear"}, "tau_func"),
        ({"_class_name": "DPMSolverSDEScheduler", "noise_sampler_seed": 7}, "noise_sampler_seed"),
        ({"_class_name": "FlowMatchEulerDiscreteScheduler", "invert_sigmas": True}, "invert_sigmas"),
        ({"_class_name": "FlowMatchEulerDiscreteScheduler", "time_shift_type": "cubic"}, "time_shift_type"),
        ({"_class_name": "IPNDMScheduler", "trained_betas": [0.1, 0.2]}, "trained_betas"),
    ],
)
def test_configs(config: dict[str, object], words: str):
    with pytest.raises(CheckpointError, match=f"(?s){words}"):
        model_schedule_from_config(config)
