"""Grids of the samplers whose levels are sigmas: k-diffusion's exploding states, DPM-Solver's preserving ones.

Each function is one way that diffusers' schedulers lay out a run; its keyword parameters are the settings it honours.
"""

from __future__ import annotations

import math
from dataclasses import replace
from functools import partial

import numpy as np

from ..errors import RequestError
from .grid import Floats, Grid, exploding_point, points_of, preserving_point
from .model_schedule import TrainingSchedule
from .parameterization import Point
from .ramps import RAMPS
from .spacing import explicit_sigmas, explicit_timesteps, fractional, last_timestep, without_lowest


def exploding(
    training: TrainingSchedule,
    steps: int,
    *,
    timestep_spacing: str,
    steps_offset: int,
    prediction_type: str,
    ramp: str | None,
    interpolation_type: str = "linear",
    sigma_min: float | None = None,
    sigma_max: float | None = None,
    timestep_type: str = "discrete",
    final_sigmas_type: str = "zero",
    timesteps: tuple[float, ...] | None = None,
    sigmas: tuple[float, ...] | None = None,
) -> Grid:
    """States x0 + sigma eps: sigmas interpolated at fractional timesteps, then ``ramp``ed (Euler, Heun, LMS, ...)."""
    count = training.num_train_timesteps
    logarithmic = timestep_type == "continuous" and prediction_type == "v_prediction"
    if sigmas is not None:
        levels = explicit_sigmas(sigmas)
        times = training.timestep_of(levels[:-1])
    else:
        if timesteps is not None:
            times = explicit_timesteps(timesteps, count, whole=False)
        else:
            times = fractional(count, steps, timestep_spacing, steps_offset)
        levels = np.interp(times, np.arange(count), training.sigmas)
        if interpolation_type == "log_linear":
            levels = np.exp(np.linspace(training.log_sigmas[-1], training.log_sigmas[0], steps + 1))
        if ramp is not None:
            highest = levels[0] if sigma_max is None else sigma_max
            lowest = levels[-1] if sigma_min is None else sigma_min
            levels = RAMPS[ramp](training, float(highest), float(lowest), steps)
            times = training.timestep_of(levels)
        if len(levels) == steps or logarithmic:
            # log_linear has its own last level, which diffusers passes on models whose timesteps are logarithms
            levels = np.append(levels, training.sigmas[0] if final_sigmas_type == "sigma_min" else 0.0)
    if logarithmic:
        if timesteps is not None:
            raise RequestError(
                "this checkpoint's timesteps are log(sigma) / 4", received="timesteps", expected="sigmas"
            )
        times = 0.25 * np.log(levels[:-1])
    highest = float(levels.max())
    scale = highest if timestep_spacing in ("linspace", "trailing") else math.hypot(highest, 1.0)
    return Grid(points_of(exploding_point, times, levels), scale, point_of=partial(between, training))


def exploding_whole_karras(
    training: TrainingSchedule,
    steps: int,
    *,
    timestep_spacing: str,
    steps_offset: int,
    prediction_type: str,
    ramp: str | None,
) -> Grid:
    """As ``exploding``, with the timesteps of a karras ramp rounded (DPM2)."""
    grid = exploding(
        training,
        steps,
        timestep_spacing=timestep_spacing,
        steps_offset=steps_offset,
        prediction_type=prediction_type,
        ramp=ramp,
    )
    if ramp != "karras":
        return grid
    return replace(grid, points=tuple(point._replace(timestep=float(round(point.timestep))) for point in grid.points))


def between(training: TrainingSchedule, sigma: float) -> Point:
    """A point at ``sigma`` where a two-stage solver evaluates inside a step."""
    return exploding_point(float(training.timestep_of(np.asarray(sigma))), sigma)


def preserving(
    training: TrainingSchedule,
    steps: int,
    *,
    timestep_spacing: str,
    steps_offset: int,
    ramp: str | None,
    final_sigmas_type: str,
    lambda_min_clipped: float = -math.inf,
    timesteps: tuple[float, ...] | None = None,
    sigmas: tuple[float, ...] | None = None,
) -> Grid:
    """DPM-Solver's states alpha x0 + sigma alpha eps: whole timesteps, the lowest training one left out."""
    return solver_grid(
        training,
        steps,
        timestep_spacing,
        steps_offset,
        ramp,
        final_sigmas_type,
        lambda_min=lambda_min_clipped,
        rounded=training.beta_schedule != "squaredcos_cap_v2",
        timesteps=timesteps,
        sigmas=sigmas,
    )


def preserving_singlestep(
    training: TrainingSchedule,
    steps: int,
    *,
    ramp: str | None,
    final_sigmas_type: str,
    lambda_min_clipped: float,
    timesteps: tuple[float, ...] | None = None,
    sigmas: tuple[float, ...] | None = None,
) -> Grid:
    """As ``preserving``; the singlestep scheduler always spaces its timesteps evenly."""
    return solver_grid(
        training,
        steps,
        "linspace",
        0,
        ramp,
        final_sigmas_type,
        lambda_min=lambda_min_clipped,
        timesteps=timesteps,
        sigmas=sigmas,
    )


def preserving_unipc(
    training: TrainingSchedule,
    steps: int,
    *,
    timestep_spacing: str,
    steps_offset: int,
    ramp: str | None,
    final_sigmas_type: str,
    sigma_min: float | None,
    sigma_max: float | None,
    sigmas: tuple[float, ...] | None = None,
) -> Grid:
    """As ``preserving``; a ramp has its own ends, and ``sigma_min`` as final type repeats its last level."""
    return solver_grid(
        training,
        steps,
        timestep_spacing,
        steps_offset,
        ramp,
        final_sigmas_type,
        stays_at_ramp_end=True,
        lowest=sigma_min,
        highest=sigma_max,
        sigmas=sigmas,
    )


def preserving_to_lowest(
    training: TrainingSchedule,
    steps: int,
    *,
    timestep_spacing: str,
    steps_offset: int,
    ramp: str | None,
    lambda_min_clipped: float = -math.inf,
    sigmas: tuple[float, ...] | None = None,
) -> Grid:
    """As ``preserving``; the run ends at the lowest training sigma, a ramped one where its ramp ends (DEIS, SA)."""
    return solver_grid(
        training,
        steps,
        timestep_spacing,
        steps_offset,
        ramp,
        "sigma_min",
        stays_at_ramp_end=True,
        lambda_min=lambda_min_clipped,
        sigmas=sigmas,
    )


def solver_grid(
    training: TrainingSchedule,
    steps: int,
    spacing: str,
    offset: int,
    ramp: str | None,
    final_sigmas_type: str,
    *,
    stays_at_ramp_end: bool = False,
    lambda_min: float = -math.inf,
    rounded: bool = True,
    lowest: float | None = None,
    highest: float | None = None,
    timesteps: tuple[float, ...] | None = None,
    sigmas: tuple[float, ...] | None = None,
) -> Grid:
    """The grid of a DPM-Solver run: the levels of ``solver_levels``, then 0 or, for ``sigma_min``, the lowest sigma.

    The lowest is that of training, or with ``stays_at_ramp_end`` that of the ramp. Explicit ``sigmas`` have their end.
    """
    times, levels = solver_levels(
        training, steps, spacing, offset, ramp, lambda_min, rounded, lowest, highest, timesteps, sigmas
    )
    if len(levels) == len(times):
        last = 0.0
        if final_sigmas_type == "sigma_min":
            last = float(levels[-1] if stays_at_ramp_end and ramp is not None else training.sigmas[0])
        # a ramp down to the lowest sigma may end a rounding error below it
        levels = np.append(levels, min(last, levels[-1]))
    return Grid(points_of(preserving_point, times, levels))


def solver_levels(
    training: TrainingSchedule,
    steps: int,
    spacing: str,
    offset: int,
    ramp: str | None,
    lambda_min: float,
    rounded: bool,
    lowest: float | None,
    highest: float | None,
    timesteps: tuple[float, ...] | None,
    sigmas: tuple[float, ...] | None,
) -> tuple[Floats, Floats]:
    """``[steps]`` whole timesteps and their sigmas, or ``steps + 1`` sigmas if the caller gave them with their end.

    A ramp spans all training sigmas; ``rounded`` rounds its timesteps (karras, lu), which are truncated otherwise.
    """
    if sigmas is not None:
        levels = explicit_sigmas(sigmas)
        return np.trunc(training.timestep_of(levels[:-1])), levels
    if ramp is not None:
        levels = RAMPS[ramp](
            training,
            float(training.sigmas[-1] if highest is None else highest),
            float(training.sigmas[0] if lowest is None else lowest),
            steps,
        )
        times = training.timestep_of(levels)
        return (times.round() if rounded and ramp in ("karras", "lu") else np.trunc(times)), levels
    count = training.num_train_timesteps
    if timesteps is not None:
        times = explicit_timesteps(timesteps, count, whole=True)
    else:
        times = without_lowest(count, steps, spacing, offset, last_timestep(training, lambda_min))
    return times, np.interp(times, np.arange(count), training.sigmas)
