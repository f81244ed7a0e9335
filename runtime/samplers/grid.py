"""The noise levels and timesteps of a run, which a schedule makes and a solver walks along."""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from ..errors import RequestError
from .model_schedule import TrainingSchedule
from .parameterization import Mixture, Point

Floats = NDArray[np.float64]


@dataclass(frozen=True)
class Grid:
    """The points of a run, one more than it has steps, and the scale of the noise a text-to-image run starts from.

    - ``targets`` [steps]: where each step leads, for schedulers where that is not simply the next point;
    - ``point_of``: a point between the given ones, by its sigma, or by its timestep where those are what counts;
    - ``output_of``: what the denoiser predicts at a point, where the prediction type alone does not say it.
    """

    points: tuple[Point, ...]
    initial_noise_scale: float = 1.0
    targets: tuple[Point, ...] = ()
    point_of: Callable[[float], Point] | None = None
    output_of: Callable[[Point], Mixture] | None = None


def float32(values: Floats) -> Floats:
    """The nearest float32 numbers: diffusers keeps its sigmas in float32, so these are the levels it runs at."""
    return values.astype(np.float32).astype(np.float64)


def exploding_point(timestep: float, sigma: float) -> Point:
    """The state x0 + sigma eps; the denoiser sees it divided by its standard deviation."""
    return Point(timestep, sigma, 1.0, sigma, 1 / math.hypot(sigma, 1.0))


def preserving_point(timestep: float, sigma: float) -> Point:
    """The state alpha x0 + sigma alpha eps with alpha = 1 / sqrt(1 + sigma²)."""
    alpha = 1 / math.hypot(sigma, 1.0)
    return Point(timestep, sigma, alpha, sigma * alpha)


def flow_point(timestep: float, sigma: float) -> Point:
    """The state (1 - sigma) x0 + sigma eps."""
    return Point(timestep, sigma, 1.0 - sigma, sigma)


def trained_point(training: TrainingSchedule, timestep: float, final: float = 1.0) -> Point:
    """The state of a training timestep, sqrt(a) x0 + sqrt(1 - a) eps with a = alphas_cumprod; ``final`` below 0."""
    power = training.alphas_cumprod[int(timestep)] if timestep >= 0 else final
    sigma = math.sqrt((1 - power) / power) if power > 0 else math.inf
    return Point(float(timestep), sigma, math.sqrt(power), math.sqrt(1 - power))


def descending(sigmas: Floats) -> Floats:
    """``sigmas``, which a run has to go down along.

    Raises:
        RequestError: they rise, or reach 0 before the end: the settings of a spacing contradict each other.
    """
    if not np.isfinite(sigmas).all() or (np.diff(sigmas) > 0).any() or (sigmas[:-1] <= 0).any():
        raise RequestError(
            "these settings make no falling sigmas",
            received=f"{len(sigmas)} sigmas from {sigmas[0]:g} to {sigmas[-1]:g}",
            expected="a lowest sigma above 0 and below the highest",
        )
    return sigmas


def points_of(point: Callable[[float, float], Point], timesteps: Floats, sigmas: Floats) -> tuple[Point, ...]:
    """``point(timestep, sigma)`` along a run; ``sigmas`` is one longer, its last one no denoiser is called at."""
    return tuple(
        point(t, sigma)
        for t, sigma in zip(np.append(timesteps, 0.0).tolist(), descending(float32(sigmas)).tolist(), strict=True)
    )
