"""Ways to space noise levels: ``ramp(training, highest, lowest, n) -> [n]`` sigmas, descending."""

from __future__ import annotations

from collections.abc import Callable
from functools import partial

import numpy as np
from numpy.typing import NDArray

from .beta_quantiles import beta_quantiles
from .model_schedule import TrainingSchedule

Floats = NDArray[np.float64]
Ramp = Callable[[TrainingSchedule, float, float, int], Floats]

# Align Your Steps (Sabour et al. 2024, arXiv:2404.14507): ten steps optimized per model, and where the last one ends
# when more steps are interpolated.
ALIGNED: dict[str, tuple[float, ...]] = {
    "ays_sd1": (14.615, 6.475, 3.861, 2.697, 1.886, 1.396, 0.963, 0.652, 0.399, 0.152, 0.029),
    "ays_sdxl": (14.615, 6.315, 3.771, 2.181, 1.342, 0.862, 0.555, 0.380, 0.234, 0.113, 0.029),
}


def karras(training: TrainingSchedule, highest: float, lowest: float, n: int, rho: float = 7.0) -> Floats:
    """Equal steps in sigma^(1/rho) (Karras et al. 2022, arXiv:2206.00364, equation 5)."""
    ends = highest ** (1 / rho), lowest ** (1 / rho)
    result: Floats = (ends[0] + np.linspace(0, 1, n) * (ends[1] - ends[0])) ** rho
    return result


def exponential(training: TrainingSchedule, highest: float, lowest: float, n: int) -> Floats:
    """Equal steps in log sigma."""
    return np.exp(np.linspace(np.log(highest), np.log(lowest), n))


def lu(training: TrainingSchedule, highest: float, lowest: float, n: int) -> Floats:
    """Equal steps in lambda = -log sigma (Lu et al. 2022, arXiv:2206.00927), between the ends of the log table."""
    top, bottom = training.log_sigmas[-1], training.log_sigmas[0]
    result: Floats = np.exp(top + np.linspace(0, 1, n) * (bottom - top))
    return result


def beta(training: TrainingSchedule, highest: float, lowest: float, n: int) -> Floats:
    """Sigmas at the quantiles of Beta(0.6, 0.6), as diffusers reads Lee et al. 2024 (arXiv:2407.12173)."""
    return lowest + beta_quantiles(1 - np.linspace(0, 1, n)) * (highest - lowest)


def beta_timesteps(training: TrainingSchedule, highest: float, lowest: float, n: int) -> Floats:
    """Timesteps at the quantiles of Beta(0.6, 0.6): the paper's own reading, and ComfyUI's ``beta``."""
    count = training.num_train_timesteps
    quantiles = beta_quantiles(1 - np.linspace(0, 1, n, endpoint=False))
    return np.interp(np.rint(quantiles * (count - 1)), np.arange(count), training.sigmas)


def kl_optimal(training: TrainingSchedule, highest: float, lowest: float, n: int) -> Floats:
    """Equal steps in arctan sigma: least KL divergence for Gaussian data (arXiv:2404.14507, section 3.1)."""
    return np.tan(np.linspace(np.arctan(highest), np.arctan(lowest), n))


def aligned(name: str, training: TrainingSchedule, highest: float, lowest: float, n: int) -> Floats:
    """Align Your Steps, interpolated linearly in log sigma for step counts other than ten."""
    levels = np.log(ALIGNED[name])
    return np.exp(np.interp(np.linspace(0, 1, n + 1), np.linspace(0, 1, len(levels)), levels))[:-1]


RAMPS: dict[str, Ramp] = {
    "karras": karras,
    "exponential": exponential,
    "beta": beta,
    "beta_timesteps": beta_timesteps,
    "lu": lu,
    "kl_optimal": kl_optimal,
    **{name: partial(aligned, name) for name in ALIGNED},
}
