"""Noise levels and what a denoiser predicts at them.

A state of any convention is ``x = signal x0 + noise eps``: ``(1, sigma)`` for the variance-exploding states of
k-diffusion, ``(alpha, sigma)`` with ``alpha² + sigma² = 1`` for variance-preserving ones, ``(1 - sigma, sigma)`` for
rectified flow. A model output is ``m = u x0 + w eps``. Two equations, two unknowns: whatever a solver wants to keep is
a weighted sum of ``x`` and ``m``, for every prediction type with the same formula.
"""

from __future__ import annotations

import math
from typing import NamedTuple

from ..errors import RequestError


class Mixture(NamedTuple):
    """``x0 * signal + eps * noise``."""

    signal: float
    noise: float


X0 = Mixture(1.0, 0.0)
EPS = Mixture(0.0, 1.0)
FLOW = Mixture(-1.0, 1.0)  # the velocity of x = (1 - sigma) x0 + sigma eps


class Point(NamedTuple):
    """One noise level of a run: where a state lives and what the denoiser is told there."""

    timestep: float
    sigma: float  # noise over signal; for rectified flow the share of noise
    signal: float
    noise: float
    input_scale: float = 1.0  # the denoiser sees input_scale * x

    @property
    def half_log_snr(self) -> float:
        """lambda = log(signal / noise) (Lu et al. 2022); infinite where either vanishes."""
        if self.noise == 0:
            return math.inf
        return math.log(self.signal / self.noise) if self.signal > 0 else -math.inf


def model_output(prediction_type: str, point: Point) -> Mixture:
    """What a denoiser of ``prediction_type`` predicts at ``point``.

    ``v_prediction`` is ``alpha eps - sigma x0`` of the variance-preserving state (Salimans and Ho 2022), whatever the
    convention of the solver's own state.
    """
    if prediction_type == "epsilon":
        return EPS
    if prediction_type == "sample":
        return X0
    if prediction_type == "flow_prediction":
        return FLOW
    norm = math.hypot(point.signal, point.noise)
    return Mixture(-point.noise / norm, point.signal / norm)


def conversion(wanted: Mixture, output: Mixture, point: Point) -> tuple[float, float]:
    """``(p, q)`` with ``wanted = p x + q m`` at ``point``.

    Raises:
        RequestError: the model output and the state hold the same information, as ``epsilon`` does where no signal is
            left (zero terminal SNR).
    """
    determinant = point.signal * output.noise - point.noise * output.signal
    if determinant == 0:
        raise RequestError(
            f"the model output says nothing about the image at timestep {point.timestep:g}",
            received="epsilon prediction where the signal is zero" if output == EPS else "prediction without noise",
            expected="v_prediction or sample for schedules with zero terminal SNR",
        )
    p = (wanted.signal * output.noise - wanted.noise * output.signal) / determinant
    q = (wanted.noise * point.signal - wanted.signal * point.noise) / determinant
    return p, q
