"""What holds for any sampler, schedule, prediction type and number of steps."""

from __future__ import annotations

import numpy as np
from hypothesis import assume, given
from hypothesis import strategies as st

from latentrt.runtime.errors import RequestError
from latentrt.runtime.samplers import (
    ModelSchedule,
    build_table,
    model_schedule_from_config,
    sampler_names,
    schedule_names,
)
from latentrt.runtime.samplers.registry import BY_NAME

from .parity_cases import COSINE, LINEAR, STABLE_DIFFUSION

TRAINED = [name for name in sampler_names() if "trained" in BY_NAME[name].kinds]
FLOW = [name for name in sampler_names() if "flow" in BY_NAME[name].kinds]

steps = st.integers(1, 1000)
few_steps = st.integers(1, 60)


@st.composite
def trained_models(draw: st.DrawFn) -> ModelSchedule:
    """A checkpoint trained on betas."""
    betas = draw(st.sampled_from([STABLE_DIFFUSION, LINEAR, COSINE]))
    config = {
        "_class_name": "EulerDiscreteScheduler",
        **betas,
        "prediction_type": draw(st.sampled_from(["epsilon", "v_prediction", "sample"])),
        "timestep_spacing": draw(st.sampled_from(["linspace", "leading", "trailing"])),
        "steps_offset": draw(st.integers(0, 1)),
        "rescale_betas_zero_snr": draw(st.booleans()),
    }
    return model_schedule_from_config(config)


def assert_refused_or_whole(
    name: str, schedule: str | None, count: int, model: ModelSchedule, **options: object
) -> None:
    """A table is refused, or finite, monotone, and goes to the end."""
    try:
        table = build_table(name, schedule, count, model, **options)
    except RequestError:
        return
    arrays = {key: value for key, value in vars(table).items() if isinstance(value, np.ndarray) and "sigmas" not in key}
    for key, value in arrays.items():
        assert np.isfinite(value).all(), key
        assert not value.flags.writeable, key
    first = np.concatenate([[True], np.diff(table.step) > 0])  # the middle evaluation of a step may lie anywhere in it
    sigmas = np.append(table.sigmas[:-1][first], table.sigmas[-1])
    assert (np.diff(sigmas[np.isfinite(sigmas)]) <= 0).all()
    assert np.isfinite(sigmas[1:]).all()
    assert table.sigmas[-1] < 0.2 or table.sigmas[-1] == table.sigmas[-2]
    assert table.steps_run == count
    assert count <= table.evaluations <= 2 * count
    assert table.history_weights.shape[1] <= 5
    assert table.noise_weights.shape[1] <= 2
    if count <= 60:
        assert np.isfinite(table.linear_map()).all()


@given(st.sampled_from(TRAINED), st.sampled_from([None, *schedule_names()]), steps, trained_models())
def test_trained_models(name: str, schedule: str | None, count: int, model: ModelSchedule):
    assert_refused_or_whole(name, schedule, count, model)


@given(st.sampled_from(FLOW), steps, st.floats(0.5, 12.0))
def test_flow_models(name: str, count: int, shift: float):
    model = model_schedule_from_config({"_class_name": "FlowMatchEulerDiscreteScheduler", "shift": shift})
    assert_refused_or_whole(name, None, count, model)


@given(
    st.sampled_from(["dpmpp_2m", "dpmpp_2m_sde", "dpmpp_2s", "deis", "unipc"]),
    st.integers(1, 3),
    st.booleans(),
    few_steps,
    trained_models(),
)
def test_solver_options(name: str, order: int, lower_order_final: bool, count: int, model: ModelSchedule):
    assert_refused_or_whole(name, None, count, model, solver_order=order, lower_order_final=lower_order_final)


# Values of options, many of them wrong in type or range.
ODD_NUMBERS = (
    *(0, 1, -1, 0.5, 2.5, 1e30, 1e-30, 10**400, float("nan"), float("inf")),
    *(True, None, "a", (0.5,), (900, 500, 1)),
)
OPTIONS = (
    *("eta", "tau", "tau_timesteps", "strength", "denoising_start", "denoising_end", "sigmas", "timesteps", "noise"),
    *("sigma_min", "sigma_max", "lambda_min_clipped", "solver_order", "predictor_order", "disable_corrector", "mu"),
    *("original_inference_steps", "timestep_scaling", "image_seq_len", "shift", "flow_shift", "shift_terminal", "rho"),
    *("sigma_data", "lower_order_final", "steps_offset", "final_sigmas_type", "use_karras_sigmas", "predict_x0"),
)
CONFIGS = (
    {"_class_name": "EulerDiscreteScheduler", **STABLE_DIFFUSION},
    {"_class_name": "FlowMatchEulerDiscreteScheduler", "use_dynamic_shifting": True},
    {"_class_name": "EDMEulerScheduler"},
)


@given(
    st.sampled_from([None, *sampler_names()]),
    st.sampled_from([None, *schedule_names()]),
    st.sampled_from([1, 2, 7, None]),
    st.sampled_from(CONFIGS),
    st.dictionaries(st.sampled_from(OPTIONS), st.sampled_from(ODD_NUMBERS), max_size=3),
)
def test_any_arguments_make_a_finite_table_or_one_error(
    name: str | None, schedule: str | None, count: int | None, config: dict[str, object], options: dict[str, object]
):
    try:
        table = build_table(name, schedule, count, model_schedule_from_config(config), **options)
    except RequestError:
        return
    assert np.isfinite(table.linear_map()).all()
    assert np.isfinite(table.timesteps).all()


@given(st.sampled_from(TRAINED), few_steps, trained_models())
def test_a_perfect_denoiser_leads_to_the_image(name: str, count: int, model: ModelSchedule):
    """Of one image x0, every state on the way has its signal times x0 if the model knows it: weights sum to that."""
    assume(name not in ("lcm", "plms"))  # lcm keeps a share of the state; plms mixes outputs of different levels
    # diffusers' ddim steps T // steps timesteps down even where the next one of the run is elsewhere
    assume(name != "ddim" or model.settings["timestep_spacing"] == "leading")
    assume("sample" in BY_NAME[name].prediction_types)
    try:
        table = build_table(name, None, count, model, prediction_type="sample")
    except RequestError:
        return
    states = table.linear_map()
    image = np.asarray([table.start_signal, *np.ones(table.evaluations), *np.zeros(len(table.noise_sigmas))])
    exploding = table.start_signal == 1.0
    signals = np.ones(len(states)) if exploding else 1 / np.hypot(table.sigmas, 1)
    scale = np.abs(states).max(axis=1)
    last = -1 if name == "tcd" else len(states)  # tcd's last state is that of timestep 0
    np.testing.assert_allclose((states @ image / scale)[:last], (signals / scale)[:last], atol=1e-7)


@given(st.sampled_from(TRAINED), few_steps, st.floats(0.05, 1.0))
def test_partial_runs_end_where_whole_runs_end(name: str, count: int, strength: float):
    model = model_schedule_from_config({"_class_name": "EulerDiscreteScheduler", **STABLE_DIFFUSION})
    try:
        part = build_table(name, None, count, model, strength=strength)
    except RequestError:
        assert int(count * strength) < 1 or name in ("lcm", "tcd")
        return
    whole = build_table(name, None, count, model)
    assert part.steps_run == int(count * strength)
    assert part.sigmas[-1] == whole.sigmas[-1]
    np.testing.assert_array_equal(part.timesteps[-1], whole.timesteps[-1])
