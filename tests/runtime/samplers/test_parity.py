"""Our linear map from (initial state, model outputs, noises) to every state equals diffusers', for every option."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace

import numpy as np
import pytest

from latentrt.runtime.errors import InputError
from latentrt.runtime.samplers import SamplerTable, build_table, model_schedule_from_config
from latentrt.runtime.samplers.settings import training_schedule

from .diffusers_probe import Probed, double_arithmetic, make, probe, row_error
from .parity_cases import STEPS, Case, pairwise_cases, sampled_cases

pytestmark = [
    # torch tensors that diffusers hands to numpy
    pytest.mark.filterwarnings("ignore:__array__ implementation doesn't accept a copy:DeprecationWarning"),
    pytest.mark.filterwarnings("ignore:__array_wrap__ must accept context:DeprecationWarning"),
    # diffusers dividing by zero, on the way to what the test recognises as not finite
    pytest.mark.filterwarnings("ignore:(divide by zero|invalid value) encountered:RuntimeWarning:diffusers"),
]

CASES = list({case.name: case for case in pairwise_cases()}.values())

# Against diffusers as it is, in float32.
FLOAT32_BOUND = 1e-5


def expands_eps(case: Case) -> bool:
    """Multiplies the state by alpha_t / alpha_s, which cancels against eps: up to 1e6 times the rounding error."""
    algorithm = case.config.get("algorithm_type")
    return (
        algorithm in ("dpmsolver", "sde-dpmsolver", "noise_prediction")
        or case.config.get("predict_x0") is False
        or case.class_name == "DEISMultistepScheduler"
    )


def starts_without_signal(case: Case) -> bool:
    """Starts at an alpha of 1e-3 or below."""
    config = case.config
    return bool(
        config.get("beta_schedule") == "squaredcos_cap_v2"
        or config.get("rescale_betas_zero_snr")
        or config.get("use_flow_sigmas")
    )


def third_order(case: Case) -> bool:
    """Has curvature terms: second differences over steps in lambda."""
    return 3 in (case.config.get(name) for name in ("solver_order", "predictor_order", "corrector_order"))


def nearly_repeats(case: Case) -> bool:
    """Has neighbouring sigmas that differ by less than a percent, as beta quantiles do at both ends."""
    return bool(case.config.get("use_beta_sigmas"))


def cosine(case: Case) -> bool:
    """Has alphas_cumprod down to 2.4e-9."""
    return case.config.get("beta_schedule") == "squaredcos_cap_v2"


def ancestral_dpm2(case: Case) -> bool:
    """Computes sigma_down² = sigma_to² - sigma_up², which cancels where a step is long."""
    return case.class_name == "KDPM2AncestralDiscreteScheduler"


# Where diffusers' own float32 arithmetic is further from its formula than that, and how far: the largest error of the
# pairwise cases and of 6000 sampled ones, rounded up. In every run beyond FLOAT32_BOUND the same diffusers code,
# computing in float64, has to agree with our table within float64_bound.
FLOAT32_LIMITS: list[tuple[Callable[[Case], bool], float]] = [
    (lambda case: expands_eps(case) and starts_without_signal(case), 1.5),
    (lambda case: third_order(case) and nearly_repeats(case), 0.2),
    (lambda case: ancestral_dpm2(case) and cosine(case), 0.3),
    (ancestral_dpm2, 2e-3),
    (lambda case: case.class_name == "PNDMScheduler" and cosine(case), 2e-3),
    (third_order, 2e-3),
    (nearly_repeats, 2e-4),
    (expands_eps, 2e-4),
    (cosine, 2e-3),
    (lambda case: case.step.get("eta") == 1, 5e-4),  # noise² - variance cancels: steps of no deterministic part
    (lambda case: bool(case.config.get("use_lu_lambdas")), 1e-4),  # the last step is one float32 rounding error long
    (lambda case: True, 2e-5),  # two steps from sigma 14.6 to 0.03, or the noises of fifty: 1.6e-5
]


def float32_limit(case: Case) -> float:
    """How far diffusers' float32 arithmetic may be from its formula."""
    return max(bound for applies, bound in FLOAT32_LIMITS if applies(case))


def float64_bound(case: Case) -> float:
    """1e-7: diffusers computing in float64 from the same float32 sigmas (most agree within 1e-12).

    Some round to float32 (6e-8) what others do not: log_linear logarithms, the SDE's timesteps, the sigmas of EDM and
    flow; fifty steps make that 5e-7. A lu run ends in a step that is one rounding error h long, with noise sqrt(2 h).
    """
    if case.config.get("use_lu_lambdas"):
        return 1e-4
    classes = ("DPMSolverSDEScheduler", "EDMEulerScheduler", "FlowMatchEulerDiscreteScheduler")
    rounded = case.class_name in (*classes, "FlowMatchHeunDiscreteScheduler")
    return 1e-6 if rounded or case.config.get("interpolation_type") == "log_linear" else 1e-7


def table_of(case: Case, steps: int) -> SamplerTable:
    """Our table for a case: its scheduler's own sampler and schedule."""
    model = model_schedule_from_config({"_class_name": case.class_name, **case.config})
    return build_table(None, None, steps, model, **case.set_timesteps, **case.step)


def diffusers_run(case: Case, steps: int) -> Probed | None:
    """What diffusers does, or None where it fails."""
    try:
        scheduler = make(case.class_name, case.config)
        scheduler.set_timesteps(steps, **case.set_timesteps)
        return probe(scheduler, **case.step)
    except (ValueError, UnboundLocalError, IndexError, RuntimeError):
        return None


def diffusers_run_in_float64(case: Case, steps: int) -> Probed:
    """What diffusers does when it computes in float64."""
    model = model_schedule_from_config({"_class_name": case.class_name, **case.config})
    scheduler = make(case.class_name, case.config)
    with double_arithmetic(scheduler, training_schedule(model).alphas_cumprod):
        scheduler.set_timesteps(steps, **case.set_timesteps)
        return probe(scheduler, **case.step)


def compare(case: Case, steps: int) -> None:
    """One case with one step count: refused by both, or equal."""
    reference = diffusers_run(case, steps)
    if reference is None or not np.isfinite(reference.states).all():
        # It fails, or divides by zero: repeated timesteps, no signal at the start, 0 times infinity at the end.
        assert table_is_refused_or_finite(case, steps, must_refuse=reference is None)
        return
    if case.config.get("algorithm_type") == "sde-dpmsolver" and case.config["solver_order"] == 3:
        assert table_is_refused_or_finite(case, steps, must_refuse=True)  # diffusers fails from its fifth step on
        return
    table = table_of(case, steps)
    ours = table.linear_map()
    assert np.isfinite(ours).all()
    error = row_error(ours, reference.states)
    assert error <= float32_limit(case), (steps, error)
    if error > FLOAT32_BOUND or steps in (3, 10):
        exact = diffusers_run_in_float64(case, steps)
        exact_error = row_error(ours, exact.states)
        assert exact_error <= float64_bound(case), (steps, exact_error)
        if ancestral_dpm2(case):  # whose middle timesteps follow sigma_down
            reference = replace(reference, timesteps=exact.timesteps)
        compare_timesteps(table, reference)
    elif not ancestral_dpm2(case):
        compare_timesteps(table, reference)
    np.testing.assert_array_equal(table.draws_noise, reference.draws_noise)
    np.testing.assert_allclose(
        table.input_scale, reference.input_scale, rtol=float32_limit(case) if ancestral_dpm2(case) else 3e-6
    )
    np.testing.assert_allclose(table.initial_noise_scale, reference.initial_noise_scale, rtol=1e-6)
    if case.class_name not in ("SASolverScheduler", "IPNDMScheduler"):
        # SASolverScheduler noises an image at the training timestep, not at the sigma that its run then assumes (up
        # to 4e-4 apart with spaced sigmas, 6e-3 with flow ones); IPNDMScheduler cannot noise an image.
        start = (table.start_signal, table.start_noise)
        np.testing.assert_allclose(start, reference.start, rtol=1e-6, atol=1e-6)


def table_is_refused_or_finite(case: Case, steps: int, *, must_refuse: bool) -> bool:
    """Whether our answer to a run that diffusers cannot do is an error, or (unless it must) finite numbers."""
    try:
        table = table_of(case, steps)
    except InputError:
        return True
    return not must_refuse and bool(np.isfinite(table.linear_map()).all())


def compare_timesteps(table: SamplerTable, reference: Probed) -> None:
    """Whole timesteps are equal; fractional ones are looked up in float32 tables, to about 1e-3 of a timestep."""
    np.testing.assert_allclose(
        table.timesteps, reference.timesteps, rtol=0, atol=0 if reference.whole_timesteps else 2e-3
    )


@pytest.mark.parametrize("case", CASES, ids=lambda case: case.name)
def test_equals_diffusers(case: Case):
    for steps in STEPS:
        compare(case, steps)


@pytest.mark.slow
@pytest.mark.parametrize("seed", range(20))
def test_samples_of_all_combinations_equal_diffusers(seed: int):
    for case in sampled_cases(50, seed):
        for steps in STEPS:
            compare(case, steps)
