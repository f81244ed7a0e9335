"""Solvers converge to the solution of the probability-flow ODE at their order, and to the right distribution.

For data from N(mean, deviation²) the optimal denoiser is linear, and everything is known in closed form: states of the
ODE keep their place relative to the marginal N(signal mean, signal² deviation² + noise²).
"""

from __future__ import annotations

from collections.abc import Callable
from functools import partial

import numpy as np
import pytest

from latentrt.runtime.samplers.grid import Grid, exploding_point, flow_point, points_of, preserving_point
from latentrt.runtime.samplers.linear_form import LinearForm, symbol
from latentrt.runtime.samplers.parameterization import Mixture, Point, model_output
from latentrt.runtime.samplers.solvers.dpm2 import dpm2, dpm2_ancestral, dpmpp_2s_ancestral, dpmpp_sde
from latentrt.runtime.samplers.solvers.dpm_multistep import dpm_multistep, dpmpp_3m_sde
from latentrt.runtime.samplers.solvers.dpm_singlestep import dpm_singlestep
from latentrt.runtime.samplers.solvers.euler import euler, euler_ancestral, flow_euler, flow_heun, heun
from latentrt.runtime.samplers.solvers.linear_multistep import deis, ipndm, lms
from latentrt.runtime.samplers.solvers.sa_solver import sa_solver
from latentrt.runtime.samplers.solvers.unipc import unipc
from latentrt.runtime.samplers.trace import Trace

MEAN, DEVIATION = 0.7, 0.6
Moments = tuple[float, float]  # mean and variance


def marginal(point: Point) -> Moments:
    """The distribution of a state at ``point``."""
    return point.signal * MEAN, point.signal**2 * DEVIATION**2 + point.noise**2


def prediction(output: Mixture, point: Point) -> tuple[float, float]:
    """The optimal model output as ``slope x + offset``: the mixture of E[x0 | x] and E[eps | x]."""
    mean, variance = marginal(point)
    gain_x0, gain_eps = point.signal * DEVIATION**2 / variance, point.noise / variance
    slope = output.signal * gain_x0 + output.noise * gain_eps
    return slope, output.signal * MEAN - slope * mean


def trace_moments(trace: Trace, start: Moments) -> Moments:
    """Mean and variance of a run's last state when the denoiser is optimal: the run is linear in start and noises."""
    draws = len(trace.draws)
    width = 2 + draws  # constant, initial state, noises
    states = [np.eye(width)[1]]
    stored: list[np.ndarray] = []
    for k, (evaluation, update) in enumerate(zip(trace.evaluations, trace.updates, strict=True)):
        slope, offset = prediction(trace.output_of(evaluation.point), evaluation.point)
        output = slope * states[k] + offset * np.eye(width)[0]
        stored.append(evaluation.state_to_stored * states[k] + evaluation.output_to_stored * output)
        parts = {"x": states, "d": stored, "z": np.eye(width)[2:]}
        states.append(sum(weight * parts[kind][index] for (kind, index), weight in update.terms.items()))
    final = states[-1]
    return final[0] + final[1] * start[0], final[1] ** 2 * start[1] + float(final[2:] @ final[2:])


def run(
    solver: Callable[..., LinearForm], point: Callable[[float, float], Point], steps: int, **settings: object
) -> float:
    """The error at the end of a run from sigma 10 to 0.1, evenly in log sigma.

    Multistep solvers take their first steps at a low order; these are made shorter (h² instead of h), so that their
    error does not cover that of the others.
    """
    places = np.linspace(0, 1, steps + 1)
    if solver in MULTISTEP_SOLVERS:
        places = np.concatenate([[0, 4 / steps**2, 8 / steps**2], places[1:]])
    sigmas = 10 * np.exp(-np.log(100) * places)
    if point is flow_point:
        sigmas = sigmas / (1 + sigmas)
    grid = Grid(points_of(point, np.ones(len(sigmas) - 1), sigmas), point_of=lambda sigma: point(1.0, sigma))
    trace = Trace(grid, partial(model_output, "flow_prediction" if point is flow_point else "v_prediction"))
    trace.finish(solver(trace, symbol("x", 0), **settings))
    # a point of the distribution, not its mean: the mean alone is no test of the variance's equation
    mean, variance = marginal(grid.points[0])
    end_mean, end_variance = marginal(grid.points[-1])
    reached, spread = trace_moments(trace, (mean + variance**0.5, 0.0))
    if trace.draws:
        reached, spread = trace_moments(trace, (mean, variance))
        return abs(reached - end_mean) + abs(spread - end_variance)
    return abs(reached - end_mean - end_variance**0.5)


MULTISTEP_SOLVERS = (lms, deis, dpm_multistep, dpmpp_3m_sde, sa_solver, unipc)
MULTISTEP = {"solver_type": "midpoint", "lower_order_final": False, "final_sigmas_type": "sigma_min"}
DPM = {**MULTISTEP, "euler_at_final": False}
UNIPC = {"lower_order_final": False, "predict_x0": True}
SA = {"lower_order_final": False, "algorithm_type": "data_prediction", "tau_timesteps": (0, 1e9)}
SOLVERS = [
    (euler, exploding_point, {}, 1),
    (euler_ancestral, exploding_point, {}, 1),
    (heun, exploding_point, {}, 2),
    (dpm2, exploding_point, {}, 2),
    (dpm2_ancestral, exploding_point, {}, 2),
    (dpmpp_2s_ancestral, exploding_point, {}, 2),
    (dpmpp_sde, exploding_point, {}, 1),
    (lms, exploding_point, {"solver_order": 1}, 1),
    (lms, exploding_point, {"solver_order": 2}, 2),
    (lms, exploding_point, {"solver_order": 3}, 3),
    (lms, exploding_point, {"solver_order": 4}, 4),
    (ipndm, exploding_point, {}, 2),
    *((deis, preserving_point, {"solver_order": order, "lower_order_final": False}, order) for order in (1, 2, 3)),
    *(
        (dpm_multistep, preserving_point, {**DPM, "algorithm_type": kind, "solver_order": order}, order)
        for kind in ("dpmsolver++", "dpmsolver")
        for order in (1, 2)
    ),
    # the authors' third-order multistep formula has half the curvature of a Taylor series
    (dpm_multistep, preserving_point, {**DPM, "algorithm_type": "dpmsolver++", "solver_order": 3}, 2),
    (dpmpp_3m_sde, preserving_point, {}, 2),
    (dpmpp_3m_sde, preserving_point, {"eta": 0.0}, 2),
    *(
        (dpm_singlestep, preserving_point, {**MULTISTEP, "algorithm_type": kind, "solver_order": order}, order)
        for kind in ("dpmsolver++", "dpmsolver")
        for order in (1, 2, 3)
    ),
    *(
        (unipc, preserving_point, {**UNIPC, "solver_order": order, "solver_type": kind}, order + 1)
        for kind in ("bh1", "bh2")
        for order in (1, 2, 3)
    ),
    (dpm_multistep, preserving_point, {**DPM, "algorithm_type": "sde-dpmsolver++", "solver_order": 2}, 2),
    (sa_solver, preserving_point, {**SA, "predictor_order": 2, "corrector_order": 2}, 2),
    (sa_solver, preserving_point, {**SA, "predictor_order": 3, "corrector_order": 3, "tau": 0.0}, 3),
    (flow_euler, flow_point, {}, 1),
    (flow_heun, flow_point, {}, 2),
    (dpm_multistep, flow_point, {**DPM, "algorithm_type": "dpmsolver++", "solver_order": 2}, 2),
    (unipc, flow_point, {**UNIPC, "solver_order": 2, "solver_type": "bh2"}, 3),
]


@pytest.mark.parametrize(("solver", "point", "settings", "order"), SOLVERS)
def test_order(solver, point, settings, order):
    steps = np.asarray(
        [192, 384] if order < 3 else [384, 768]
    )  # multiples of two and three: whole groups of singlestep solvers
    errors = np.asarray([run(solver, point, int(count), **settings) for count in steps])
    slopes = -np.diff(np.log(errors)) / np.diff(np.log(steps))
    assert slopes[-1] > order - 0.15, errors
