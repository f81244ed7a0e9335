"""SA-Solver."""

from __future__ import annotations

from collections.abc import Sequence
from math import exp, expm1, sqrt

from ...errors import RequestError
from ..linear_form import ZERO, LinearForm
from ..parameterization import EPS, FLOW, X0, Point
from ..trace import Trace
from .phi import adams_weights, usable, weighted_sum


def sa_solver(
    run: Trace,
    x: LinearForm,
    *,
    predictor_order: int,
    corrector_order: int,
    algorithm_type: str,
    lower_order_final: bool,
    tau: float = 1.0,
    tau_timesteps: Sequence[float] = (200.0, 800.0),
) -> LinearForm:
    """Stochastic Adams (Xue et al. 2023, arXiv:2309.05019): exponential Adams-Bashforth, then Adams-Moulton.

    ``tau`` is the share of the reverse SDE's noise, applied between the two ``tau_timesteps``.
    """
    data = algorithm_type == "data_prediction"
    if not data and run.output_of(run.points[0]) == FLOW:
        raise RequestError(
            "SA-Solver runs rectified-flow models on x0 only", received=algorithm_type, expected="data_prediction"
        )
    if len(tau_timesteps) != 2 or tau < 0:
        raise RequestError("tau needs a strength of 0 or more and two timesteps", received=(tau, tuple(tau_timesteps)))
    outputs: list[LinearForm] = []
    before, noise, strength, corrector = x, ZERO, 0.0, 1
    for i in run.steps():
        here, there = run.points[i], run.points[i + 1]
        x, output = run.predict(X0 if data else EPS, x, here)
        outputs.insert(0, output)
        if i > run.begin:
            before = run.in_newest_base(before)
            x = adams_step(before, run.behind(i, corrector), outputs, run.points[i - 1], here, noise, strength, data)
        left = run.count - i if lower_order_final else predictor_order + corrector_order
        predictor = min(predictor_order, left, len(outputs))
        corrector = min(corrector_order, left + 1, len(outputs) + 1)
        before, noise = x, run.noise(here, there)
        strength = tau if tau_timesteps[0] <= here.timestep <= tau_timesteps[1] else 0.0
        x = adams_step(x, run.behind(i, predictor), outputs, here, there, noise, strength, data)
    return x


def adams_step(
    x: LinearForm,
    points: Sequence[Point],
    outputs: Sequence[LinearForm],
    here: Point,
    there: Point,
    noise: LinearForm,
    tau: float,
    data: bool,
) -> LinearForm:
    """From ``here`` to ``there`` with the polynomial through ``outputs`` at ``points`` (newest first)."""
    points = usable(points)
    start, end = here.half_log_snr, there.half_log_snr
    h, rate = end - start, 1 + tau**2
    nodes = [point.half_log_snr for point in points]
    weights = adams_weights(rate if data else -1.0, nodes, start, end)
    if data and len(points) == 2 and h > 0:
        # The authors' code replaces the exact second-order weights by ones that agree with UniPC's.
        change = h * h / 2 - (h * rate + expm1(-h * rate)) / rate**2
        change /= nodes[0] - nodes[1]
        weights = [weights[0] + change, weights[1] - change]
    drift = rate * weighted_sum(weights, outputs[: len(points)])
    if data:
        x = exp(-(tau**2) * h) * there.noise / here.noise * x + there.signal * drift
        return x + there.noise * sqrt(-expm1(-2 * tau**2 * h)) * noise
    x = there.signal / here.signal * x - there.noise * drift
    return x + tau * there.noise * sqrt(expm1(2 * h)) * noise
