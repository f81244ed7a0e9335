"""Grids of models that were not trained on betas: rectified flow, x = (1 - sigma) x0 + sigma eps, EDM, angular time."""

from __future__ import annotations

import math
from functools import partial

import numpy as np

from ..errors import RequestError
from .diffusers_classes import DYNAMIC_SHIFT
from .grid import Floats, Grid, descending, float32, flow_point, points_of
from .model_schedule import TrainingSchedule
from .parameterization import Mixture, Point
from .ramps import RAMPS, exponential, karras
from .spacing import brief, explicit_flow_sigmas, explicit_timesteps

LARGEST_MU = 50.0  # a shift by e^50 leaves nothing but noise in float32 sigmas

FLOW_RAMPS = (None, "karras", "exponential", "beta")  # the others look sigmas up in a training schedule


def flow(
    training: TrainingSchedule,
    steps: int,
    *,
    shift: float,
    use_dynamic_shifting: bool = False,
    time_shift_type: str = "exponential",
    base_shift: float = DYNAMIC_SHIFT["base_shift"],
    max_shift: float = DYNAMIC_SHIFT["max_shift"],
    base_image_seq_len: float = DYNAMIC_SHIFT["base_image_seq_len"],
    max_image_seq_len: float = DYNAMIC_SHIFT["max_image_seq_len"],
    shift_terminal: float | None = None,
    ramp: str | None = None,
    mu: float | None = None,
    image_seq_len: int | None = None,
    timesteps: tuple[float, ...] | None = None,
    sigmas: tuple[float, ...] | None = None,
) -> Grid:
    """Evenly spaced sigmas, shifted towards noise (Esser et al. 2024, arXiv:2403.03206, section 5.3.2).

    ``image_seq_len``, the number of latent patches, gives the shift of a schedule with ``use_dynamic_shifting``; or
    ``mu`` gives it directly.
    """
    count = training.num_train_timesteps
    if sigmas is not None:
        levels = explicit_flow_sigmas(sigmas)
    elif timesteps is not None:
        levels = explicit_timesteps(timesteps, count + 1, whole=False) / count
        if levels[-1] == 0:
            raise RequestError("no step starts at timestep 0", received=brief(timesteps), expected="positive numbers")
    else:
        ends = np.asarray([1.0, 1 / count])
        # diffusers spaces its steps between the ends of its already shifted training schedule, and then shifts again
        ends = float32(ends if use_dynamic_shifting else shifted(ends, shift))
        levels = np.linspace(ends[0] * count, ends[1] * count, steps) / count
    if not use_dynamic_shifting and (mu is not None or image_seq_len is not None):
        raise RequestError(
            "this schedule is not shifted by the image size",
            received=f"mu={mu}, image_seq_len={image_seq_len}",
            expected="shift, or use_dynamic_shifting=True",
        )
    if ramp not in FLOW_RAMPS:
        raise RequestError(
            "this spacing is not defined for rectified flow",
            received=ramp,
            expected=", ".join(str(name) for name in FLOW_RAMPS if name),
        )
    if use_dynamic_shifting:
        mu = dynamic_mu(mu, image_seq_len, base_shift, max_shift, base_image_seq_len, max_image_seq_len)
        levels = time_shifted(levels, mu, time_shift_type)
    else:
        levels = shifted(levels, shift)
    if shift_terminal:
        levels = stretched(levels, shift_terminal)
    if ramp is not None:
        levels = RAMPS[ramp](training, float(levels[0]), float(levels[-1]), len(levels))
    levels = float32(levels)
    times = levels * count if timesteps is None else np.asarray(timesteps)
    return Grid(points_of(flow_point, times, np.append(levels, 0.0)))


def flow_solver(
    training: TrainingSchedule,
    steps: int,
    *,
    flow_shift: float,
    final_sigmas_type: str = "repeat",
    use_dynamic_shifting: bool = False,
    time_shift_type: str = "exponential",
    mu: float | None = None,
) -> Grid:
    """``use_flow_sigmas`` of DPM-Solver, DEIS and SA-Solver: the first training step is left out, timesteps truncated.

    The last level: 0, the lowest training sigma (``sigma_min``), or the last one again (DEIS and SA-Solver).
    """
    count = training.num_train_timesteps
    if mu is not None:
        flow_shift = math.exp(shift_exponent(mu, use_dynamic_shifting))
    share = 1.0 - np.linspace(1, 1 / count, steps + 1)
    levels = shifted(share, flow_shift)[::-1][:-1]
    ends = {"zero": 0.0, "sigma_min": float(training.sigmas[0]), "repeat": float(levels[-1])}
    return Grid(points_of(flow_point, np.trunc(levels * count), np.append(levels, ends[final_sigmas_type])))


def flow_unipc(
    training: TrainingSchedule,
    steps: int,
    *,
    flow_shift: float,
    final_sigmas_type: str,
    use_dynamic_shifting: bool,
    time_shift_type: str,
    shift_terminal: float | None,
    mu: float | None = None,
    sigmas: tuple[float, ...] | None = None,
) -> Grid:
    """``use_flow_sigmas`` of UniPC, which starts at pure noise; its logarithms need the first sigma just below 1."""
    count = training.num_train_timesteps
    levels = explicit_flow_sigmas(sigmas) if sigmas is not None else np.linspace(1, 1 / count, steps + 1)[:-1]
    if use_dynamic_shifting:
        levels = time_shifted(levels, required(mu), time_shift_type)
    else:
        levels = shifted(levels, flow_shift)
    if shift_terminal:
        levels = stretched(levels, shift_terminal)
    levels = np.where(np.abs(levels - 1) < 1e-6, levels - 1e-6, levels)
    last = levels[-1] if final_sigmas_type == "sigma_min" else 0.0
    return Grid(points_of(flow_point, np.trunc(levels * count), np.append(levels, last)))


def edm(
    training: TrainingSchedule,
    steps: int,
    *,
    sigma_min: float,
    sigma_max: float,
    sigma_data: float,
    sigma_schedule: str,
    rho: float,
    final_sigmas_type: str,
    prediction_type: str,
) -> Grid:
    """Karras et al. 2022 (arXiv:2206.00364), table 1: the denoiser is told log(sigma) / 4 and sees c_in x."""
    if sigma_schedule == "karras":
        levels = karras(training, sigma_max, sigma_min, steps, rho)
    else:  # upwards, so that a single step is the lowest level, as in diffusers
        levels = exponential(training, sigma_min, sigma_max, steps)[::-1]
    levels = float32(levels)
    sigmas = descending(np.append(levels, levels[-1] if final_sigmas_type == "sigma_min" else 0.0))

    def point(timestep: float, sigma: float) -> Point:
        return Point(timestep, sigma, 1.0, sigma, 1 / math.hypot(sigma, sigma_data))

    return Grid(
        points_of(point, 0.25 * np.log(levels), sigmas),
        math.hypot(sigma_max, 1.0),
        output_of=partial(edm_output, sigma_data, 1.0 if prediction_type == "epsilon" else -1.0),
    )


def angular(training: TrainingSchedule, steps: int) -> Grid:
    """IPNDM's continuous time t in 0..1: sigma = sin²(pi u / 2) for evenly spaced u, the denoiser is told its angle."""
    noise = np.sin(np.linspace(1, 0, steps + 1) * np.pi / 2) ** 2
    signal = np.sqrt(1 - noise**2)
    times = np.arctan2(noise, signal) / np.pi * 2
    return Grid(
        tuple(
            Point(t, n / s if s > 0 else math.inf, s, n)
            for t, s, n in zip(times.tolist(), signal.tolist(), noise.tolist(), strict=True)
        )
    )


def edm_output(sigma_data: float, sign: float, point: Point) -> Mixture:
    """The network F of x0 = c_skip x + c_out F, with c_out of either ``sign``."""
    norm = math.hypot(point.sigma, sigma_data)
    c_skip, c_out = (sigma_data / norm) ** 2, sign * point.sigma * sigma_data / norm
    return Mixture((1 - c_skip) / c_out, -c_skip * point.sigma / c_out)


def shifted(sigmas: Floats, shift: float) -> Floats:
    """sigma -> shift sigma / (1 + (shift - 1) sigma): the same signal-to-noise ratio at ``shift²`` as many pixels."""
    result: Floats = shift * sigmas / (1 + (shift - 1) * sigmas)
    return result


def time_shifted(sigmas: Floats, mu: float, kind: str) -> Floats:
    """``shifted`` by e^mu (exponential), or by mu itself (linear)."""
    strength = math.exp(mu) if kind == "exponential" else mu
    result: Floats = strength / (strength + (1 / sigmas - 1))
    return result


def stretched(sigmas: Floats, terminal: float) -> Floats:
    """The signal scaled so that the last sigma is ``terminal``."""
    if terminal >= 1:
        raise RequestError("shift_terminal is a share of noise", received=terminal, expected="a number below 1")
    signal = 1 - sigmas
    if signal[-1] <= 0:
        raise RequestError(
            "shift_terminal has no signal to scale", received=f"{len(sigmas)} step(s)", expected="two steps or more"
        )
    result: Floats = 1 - signal / (signal[-1] / (1 - terminal))
    return result


def dynamic_mu(
    mu: float | None,
    image_seq_len: int | None,
    base_shift: float,
    max_shift: float,
    base_image_seq_len: float,
    max_image_seq_len: float,
) -> float:
    """The caller's ``mu``, or the one that grows linearly with the number of latent patches."""
    if mu is None and image_seq_len is not None:
        slope = (max_shift - base_shift) / (max_image_seq_len - base_image_seq_len)
        mu = image_seq_len * slope + base_shift - slope * base_image_seq_len
    return required(mu)


def shift_exponent(mu: float, use_dynamic_shifting: bool) -> float:
    """``mu``, refused where the schedule is not shifted by it."""
    mu = required(mu)
    if not use_dynamic_shifting:
        raise RequestError(
            "mu without a dynamically shifted schedule", received=mu, expected="use_dynamic_shifting=True"
        )
    return mu


def required(mu: float | None) -> float:
    """``mu``, without which a dynamically shifted schedule is not defined."""
    if mu is None:
        raise RequestError(
            "this schedule is shifted by the image size (use_dynamic_shifting)",
            expected="image_seq_len (the number of latent patches) or mu",
        )
    if abs(mu) > LARGEST_MU:
        raise RequestError("the shift by the image size is out of range", received=f"mu={mu:g}", expected="-50 to 50")
    return mu
