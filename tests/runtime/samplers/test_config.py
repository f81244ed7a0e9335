"""Scheduler configs: every field of every diffusers scheduler is known, and switching samplers works as from_config."""

from __future__ import annotations

import inspect

import diffusers
import numpy as np
import pytest

from latentrt.runtime.errors import InputError
from latentrt.runtime.samplers import build_table, model_schedule_from_config, sampler_names
from latentrt.runtime.samplers.diffusers_classes import CLASSES
from latentrt.runtime.samplers.registry import BY_NAME

from .diffusers_probe import make, probe, row_error
from .parity_cases import STABLE_DIFFUSION

pytestmark = [
    pytest.mark.filterwarnings("ignore:__array__ implementation doesn't accept a copy:DeprecationWarning"),
    pytest.mark.filterwarnings("ignore:__array_wrap__ must accept context:DeprecationWarning"),
]

# scheduler_config.json files as they are on the hub.
SDXL = {
    "_class_name": "EulerDiscreteScheduler",
    "_diffusers_version": "0.19.0.dev0",
    **STABLE_DIFFUSION,
    "clip_sample": False,
    "interpolation_type": "linear",
    "num_train_timesteps": 1000,
    "prediction_type": "epsilon",
    "sample_max_value": 1.0,
    "set_alpha_to_one": False,
    "skip_prk_steps": True,
    "steps_offset": 1,
    "timestep_spacing": "leading",
    "trained_betas": None,
    "use_karras_sigmas": False,
}
SD1 = {
    "_class_name": "PNDMScheduler",
    "_diffusers_version": "0.6.0",
    **STABLE_DIFFUSION,
    "num_train_timesteps": 1000,
    "set_alpha_to_one": False,
    "skip_prk_steps": True,
    "steps_offset": 1,
    "trained_betas": None,
    "clip_sample": False,
}
SD2 = {
    "_class_name": "DDIMScheduler",
    "_diffusers_version": "0.8.0",
    **STABLE_DIFFUSION,
    "clip_sample": False,
    "num_train_timesteps": 1000,
    "prediction_type": "v_prediction",
    "set_alpha_to_one": False,
    "skip_prk_steps": True,
    "steps_offset": 1,
    "trained_betas": None,
}
SD3 = {"_class_name": "FlowMatchEulerDiscreteScheduler", "num_train_timesteps": 1000, "shift": 3.0}
SANA = {
    "_class_name": "DPMSolverMultistepScheduler",
    "prediction_type": "flow_prediction",
    "use_flow_sigmas": True,
    "flow_shift": 3.0,
    "final_sigmas_type": "zero",
    "solver_order": 2,
    "dynamic_thresholding_ratio": 0.995,
}
CHECKPOINTS = {"sdxl": SDXL, "sd1": SD1, "sd2": SD2}

# How to make a sampler from a checkpoint's config in diffusers, beside its class.
CHANGES: dict[str, dict[str, object]] = {
    "ddim": {"clip_sample": False},
    "ddpm": {"clip_sample": False},
    "plms": {"skip_prk_steps": True},
    "dpmpp_2m": {},
    "dpmpp_3m": {"solver_order": 3},
    "dpmpp_2m_sde": {"algorithm_type": "sde-dpmsolver++"},
    "unipc_bh1": {"solver_type": "bh1", "final_sigmas_type": "sigma_min"},  # diffusers' bh1 is not finite at sigma 0
}
FROM_DIFFUSERS = [
    name for name in sampler_names() if BY_NAME[name].from_diffusers and BY_NAME[name].kinds[0] == "trained"
]


@pytest.mark.parametrize("class_name", CLASSES)
def test_fields_and_defaults_are_those_of_diffusers(class_name: str):
    parameters = list(inspect.signature(getattr(diffusers, class_name).__init__).parameters.values())[1:]
    defaults = {p.name: tuple(p.default) if isinstance(p.default, list) else p.default for p in parameters}
    assert dict(CLASSES[class_name]) == defaults


@pytest.mark.parametrize("class_name", CLASSES)
def test_saved_configs_load(class_name: str):
    """What save_pretrained writes for a scheduler with default fields, where the default can be honoured at all."""
    changes = {"PNDMScheduler": {"skip_prk_steps": True}, "DDIMScheduler": {"clip_sample": False}}
    changes["DDPMScheduler"] = changes["DDIMScheduler"]
    config = dict(make(class_name, changes.get(class_name, {})).config)
    model = model_schedule_from_config({**config, "_class_name": class_name})
    assert BY_NAME[model.sampler].diffusers_class == class_name
    options = {"image_seq_len": 4096} if config.get("use_dynamic_shifting") else {}
    assert build_table(None, None, 4, model, **options).num_inference_steps == 4


def test_null_is_the_default():
    nulls = ("use_karras_sigmas", "trained_betas", "sigma_min", "thresholding", "variance_type")
    config = {"_class_name": "UniPCMultistepScheduler", **dict.fromkeys(nulls)}
    model = model_schedule_from_config(config)
    plain = model_schedule_from_config({"_class_name": "UniPCMultistepScheduler"})
    np.testing.assert_array_equal(
        build_table(None, None, 5, model).linear_map(), build_table(None, None, 5, plain).linear_map()
    )


@pytest.mark.parametrize(
    ("config", "sampler", "schedule"),
    [
        (SDXL, "euler", "leading"),
        (SD1, "plms", "leading"),
        (SD2, "ddim", "leading"),
        (SD3, "flow_euler", "flow"),
        (SANA, "dpmpp_2m", "linspace"),
        ({"_class_name": "DPMSolverMultistepScheduler", "use_karras_sigmas": True}, "dpmpp_2m", "karras"),
        (
            {"_class_name": "DPMSolverMultistepScheduler", "algorithm_type": "sde-dpmsolver++"},
            "dpmpp_2m_sde",
            "linspace",
        ),
        ({"_class_name": "DPMSolverMultistepScheduler", "solver_order": 3}, "dpmpp_3m", "linspace"),
        ({"_class_name": "DPMSolverMultistepScheduler", "use_lu_lambdas": True}, "dpmpp_2m", "lu"),
        ({"_class_name": "UniPCMultistepScheduler", "solver_type": "bh1"}, "unipc_bh1", "linspace"),
        ({"_class_name": "EDMEulerScheduler"}, "edm_euler", "edm"),
    ],
)
def test_a_config_names_its_sampler_and_schedule(config: dict[str, object], sampler: str, schedule: str):
    model = model_schedule_from_config(config)
    assert (model.sampler, model.schedule) == (sampler, schedule)
    table = build_table(None, None, 5, model)
    assert (table.sampler, table.schedule) == (sampler, schedule)
    assert hash(model) == hash(model_schedule_from_config(dict(reversed(config.items()))))
    assert model == model_schedule_from_config(dict(reversed(config.items())))


@pytest.mark.parametrize(
    ("name", "ramp"),
    [
        *((name, None) for name in FROM_DIFFUSERS),
        *((name, "karras") for name in FROM_DIFFUSERS if "use_karras_sigmas" in CLASSES[BY_NAME[name].diffusers_class]),
    ],
)
@pytest.mark.parametrize("checkpoint", CHECKPOINTS)
def test_switching_samplers_is_from_config(name: str, checkpoint: str, ramp: str | None):
    """``Scheduler.from_config(pipe.scheduler.config, ...)``, the way to change the sampler of a diffusers pipeline."""
    sampler, config = BY_NAME[name], CHECKPOINTS[checkpoint]
    flag = {"use_karras_sigmas": True} if ramp == "karras" else {}
    scheduler = getattr(diffusers, sampler.diffusers_class).from_config(config, **CHANGES.get(name, {}), **flag)
    scheduler.set_timesteps(10)
    options = {"unipc_bh1": {"final_sigmas_type": "sigma_min"}, "tcd": {"eta": 0.3}}.get(name, {})
    table = build_table(name, ramp, 10, model_schedule_from_config(config), **options)
    reference = probe(scheduler, **({"eta": 0.3} if name == "tcd" else {}))
    assert row_error(table.linear_map(), reference.states) <= 1e-5
    np.testing.assert_allclose(table.timesteps, reference.timesteps, atol=2e-3)
    np.testing.assert_allclose(table.initial_noise_scale, reference.initial_noise_scale, rtol=1e-6)


@pytest.mark.parametrize("name", ["dpmpp_2m", "dpmpp_3m", "dpmpp_2m_sde", "dpmpp_2s", "unipc", "deis", "sa_solver"])
def test_switching_samplers_of_a_flow_model(name: str):
    scheduler = getattr(diffusers, BY_NAME[name].diffusers_class)(
        prediction_type="flow_prediction", use_flow_sigmas=True, flow_shift=3.0, **CHANGES.get(name, {})
    )
    scheduler.set_timesteps(10)
    reference = probe(scheduler)
    table = build_table(name, None, 10, model_schedule_from_config(SD3))
    # DEIS starts at a signal of 3e-4, by which it divides in float32
    assert row_error(table.linear_map(), reference.states) <= (5e-4 if name == "deis" else 1e-5)
    np.testing.assert_array_equal(table.timesteps, reference.timesteps)


def test_a_solver_config_with_flow_sigmas_runs_as_flow_euler():
    table = build_table("flow_euler", None, 10, model_schedule_from_config(SANA))
    expected = build_table("flow_euler", None, 10, model_schedule_from_config(SD3))
    np.testing.assert_array_equal(table.linear_map(), expected.linear_map())


@pytest.mark.parametrize("class_name", CLASSES)
def test_every_field_is_honoured_or_refused(class_name: str):
    """Each field at another value changes the table, is refused, or is one that the scheduler ignores too."""
    base = {"_class_name": class_name}
    for name, value in {"clip_sample": False, "skip_prk_steps": True, "beta_schedule": "scaled_linear"}.items():
        if name in CLASSES[class_name]:
            base[name] = value
    other: dict[str, object] = {
        "beta_start": 0.001,
        "beta_end": 0.015,
        "beta_schedule": "squaredcos_cap_v2",
        "prediction_type": "v_prediction",
        "timestep_spacing": "trailing",
        "solver_type": {"DEISMultistepScheduler": "midpoint", "UniPCMultistepScheduler": "bh1"}.get(class_name, "heun"),
        "algorithm_type": {"SASolverScheduler": "noise_prediction"}.get(class_name, "sde-dpmsolver++"),
        "final_sigmas_type": "sigma_min",
        "interpolation_type": "log_linear",
        "timestep_type": "continuous",
        "time_shift_type": "linear",
        "sigma_schedule": "exponential",
        "variance_type": "fixed_large",
        "trained_betas": np.linspace(0.001, 0.01, 1000).tolist(),
        "lambda_min_clipped": -1.0,
        "disable_corrector": [1],
        "sigma_min": 0.05,
        "sigma_max": 9.0,
        "shift_terminal": 0.1,
        "tau_func": "constant",
        "solver_p": "DDIM",
        "noise_sampler_seed": 3,
        "num_train_timesteps": 900,
    }
    ignored = {
        # read by diffusers only with another field that is off here
        *("dynamic_thresholding_ratio", "sample_max_value", "clip_sample_range", "flow_shift", "time_shift_type"),
        *("base_shift", "max_shift", "base_image_seq_len", "max_image_seq_len", "timestep_type"),
        *({"sigma_min", "sigma_max"} if class_name != "EDMEulerScheduler" else ()),
        # never read by these
        *(
            {"steps_offset", "timestep_spacing", "set_alpha_to_one"}
            if class_name in ("LCMScheduler", "TCDScheduler")
            else ()
        ),
        *({"timestep_scaling"} if class_name == "TCDScheduler" else ()),
        *({"num_train_timesteps"} if class_name in ("EDMEulerScheduler", "IPNDMScheduler") else ()),
        # of no effect at this length or spacing
        *({"lower_order_final"} if class_name.startswith("DPMSolver") else ()),
        "euler_at_final",
        *({"steps_offset"} if CLASSES[class_name].get("timestep_spacing") == "linspace" else ()),
    }

    def fingerprint(config: dict[str, object]) -> bytes:
        table = build_table(None, None, 8, model_schedule_from_config(config))
        values = (table.linear_map(), table.timesteps, table.sigmas, [table.initial_noise_scale])
        return b"".join(np.asarray(value).tobytes() for value in values)

    before = fingerprint(base)
    outcomes: dict[str, str] = {}
    for name, default in CLASSES[class_name].items():
        value = other.get(name)
        if value is None:
            value = (not base.get(name, default)) if isinstance(default, bool) else default + 1  # type: ignore[operator]
        try:
            after = fingerprint({**base, name: value})
        except InputError as refusal:
            outcomes[name] = str(refusal)
            continue
        outcomes[name] = "ignored" if after == before else "honoured"
    for name, outcome in outcomes.items():
        if name in ignored:
            assert outcome != "honoured", name
        elif outcome != "honoured":
            reasons = (name, "image size", "sigma 0", "zero terminal SNR")
            assert any(reason in outcome for reason in reasons), (name, outcome)
