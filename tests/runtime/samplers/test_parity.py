"""Our linear map from (initial state, model outputs, noises) to every state equals diffusers', for every option."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest

from latentrt.runtime.errors import InputError
from latentrt.runtime.samplers import SamplerTable, build_table, model_schedule_from_config
from latentrt.runtime.samplers.settings import training_schedule

from .diffusers_probe import Probed, double_arithmetic, keep_sigmas_float32, make, probe, row_error
from .parity_cases import STEPS, Case, pairwise_cases, sampled_cases

pytestmark = [
    # torch tensors that diffusers hands to numpy
    pytest.mark.filterwarnings("ignore:__array__ implementation doesn't accept a copy:DeprecationWarning"),
    pytest.mark.filterwarnings("ignore:__array_wrap__ must accept context:DeprecationWarning"),
    # diffusers dividing by zero, on the way to what the test recognises as not finite
    pytest.mark.filterwarnings("ignore:(divide by zero|invalid value) encountered:RuntimeWarning:diffusers"),
]

CASES = list({case.name: case for case in pairwise_cases()}.values())

# How far two computations of the same formula may be apart in float32.
FLOAT32_BOUND = 1e-5


def float64_bound(case: Case) -> float:
    """How far diffusers, computing in float64, may be from our table: 1e-7, and most agree within 1e-12.

    Both start from the same float32 numbers, the signal powers and the sigmas of the run, except in three schedulers
    where a float32 number in between is not rounded in float64 arithmetic, or not by diffusers at all:

    - DPMSolverSDEScheduler takes sigmas at float64 timesteps, where the others and our table have float32 ones;
    - log_linear sigmas lie evenly between two logarithms of float32 sigmas, which float64 arithmetic does not round.
      With fifty beta quantiles between such ends, neighbours that are nearly equal make 1e-5 of it;
    - so do those of use_lu_lambdas, whose run ends in a step from such a sigma to the lowest one: h is a rounding error
      and the noise of an SDE step is sqrt(2 h).
    """
    if case.config.get("use_lu_lambdas"):
        return 1e-4
    if case.config.get("interpolation_type") == "log_linear":
        return 2e-5
    return 1e-6 if case.class_name == "DPMSolverSDEScheduler" else 1e-7


def middle_timesteps_follow_sigma_down(case: Case) -> bool:
    """DPM2 ancestral: sigma_down² = sigma_to² - sigma_up², which cancels in float32 where a step is long."""
    return case.class_name == "KDPM2AncestralDiscreteScheduler"


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
        keep_sigmas_float32(scheduler)
        return probe(scheduler, **case.step)


def assert_equal_to_diffusers(case: Case, steps: int) -> None:
    """One case with one step count: refused by both, or equal.

    Our table is no further from diffusers in float32 than diffusers is from itself in float64, and equals the latter.
    That is looked at with three and ten steps and wherever the float32 computation differs from the table by more than
    ``FLOAT32_BOUND``, which some do by much (dividing by a signal of 1e-3, second differences of nearly equal sigmas).
    """
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
    rounding = 0.0
    if error > FLOAT32_BOUND or steps in (3, 10) or middle_timesteps_follow_sigma_down(case):
        exact = diffusers_run_in_float64(case, steps)
        if np.isfinite(exact.states).all():  # DDIM at eta = 1 takes roots of ±1e-17
            assert row_error(ours, exact.states) <= float64_bound(case), steps
            rounding = row_error(exact.states, reference.states)
        if middle_timesteps_follow_sigma_down(case):
            reference = replace(reference, timesteps=exact.timesteps, input_scale=exact.input_scale)
    assert error <= max(FLOAT32_BOUND, float64_bound(case)) + rounding, steps
    assert_timesteps_equal(table, reference)
    np.testing.assert_array_equal(table.draws_noise, reference.draws_noise)
    np.testing.assert_allclose(table.input_scale, reference.input_scale, rtol=3e-6)
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


def assert_timesteps_equal(table: SamplerTable, reference: Probed) -> None:
    """Whole timesteps are equal; fractional ones are looked up in float32 tables, to about 1e-3 of a timestep."""
    np.testing.assert_allclose(
        table.timesteps, reference.timesteps, rtol=0, atol=0 if reference.whole_timesteps else 2e-3
    )


@pytest.mark.parametrize("case", CASES, ids=lambda case: case.name)
def test_equals_diffusers(case: Case):
    for steps in STEPS:
        assert_equal_to_diffusers(case, steps)


@pytest.mark.slow
@pytest.mark.parametrize("seed", range(20))
def test_samples_of_all_combinations_equal_diffusers(seed: int):
    for case in sampled_cases(50, seed):
        for steps in STEPS:
            assert_equal_to_diffusers(case, steps)
