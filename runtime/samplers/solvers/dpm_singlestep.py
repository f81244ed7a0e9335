"""DPM-Solver and DPM-Solver++, singlestep: steps in groups of one, two, three that share a starting state."""

from __future__ import annotations

from collections.abc import Sequence

from ..linear_form import ZERO, LinearForm
from ..parameterization import EPS, X0, Point
from ..trace import Trace
from .dpm_multistep import check_algorithm, step


def dpm_singlestep(
    run: Trace,
    x: LinearForm,
    *,
    solver_order: int,
    algorithm_type: str,
    solver_type: str,
    lower_order_final: bool,
    final_sigmas_type: str,
) -> LinearForm:
    """Lu et al. 2022 (arXiv:2206.00927 algorithms 1 and 2, arXiv:2211.01095 for the ``++`` types)."""
    check_algorithm(run, algorithm_type, final_sigmas_type)
    data, stochastic = algorithm_type.endswith("++"), algorithm_type.startswith("sde-")
    orders = order_list(run.count, solver_order, lower_order_final, final_sigmas_type)
    outputs: list[LinearForm] = []
    base = x
    for i in run.steps():
        here, there = run.points[i], run.points[i + 1]
        x, output = run.predict(X0 if data else EPS, x, here)
        outputs.append(output)
        order = min(orders[i], len(outputs))
        if order == 1:
            base = x
        noise = run.noise(here, there) if stochastic else ZERO
        points = run.points[i - order + 1 : i + 1]
        terms = derivatives(outputs[-order:], points, there, solver_type)
        # Third-order steps have exact weights for either ``solver_type``; ``slip`` is diffusers', as in dpm_multistep.
        curve, eta = "heun" if order == 3 else solver_type, float(stochastic)
        x = step(base, terms, noise, points[0], there, data=data, eta=eta, curve=curve, slip=eta)
    return x


def derivatives(
    outputs: Sequence[LinearForm], points: Sequence[Point], there: Point, solver_type: str
) -> tuple[LinearForm, LinearForm, LinearForm]:
    """The output at the oldest of up to three ``points``, with its slope and curvature in units of the whole step."""
    lambdas = [point.half_log_snr for point in points]
    h = there.half_log_snr - lambdas[0]
    gaps = [value - lambdas[0] for value in lambdas[1:]]
    if not gaps or len({0.0, *gaps}) <= len(gaps):  # levels that repeat have no slope
        return outputs[0], ZERO, ZERO
    slopes = [h / gap * (output - outputs[0]) for gap, output in zip(gaps, outputs[1:], strict=True)]
    if len(slopes) == 1 or solver_type == "midpoint":
        return outputs[0], slopes[-1], ZERO
    near, far = gaps
    slope = (far * slopes[0] - near * slopes[1]) / (far - near)
    return outputs[0], slope, 2 * h / (far - near) * (slopes[1] - slopes[0])


def order_list(count: int, order: int, lower_order_final: bool, final_sigmas_type: str) -> list[int]:
    """The order of every step: groups 1, 2, ..., ``order``, with shorter ones at the end where that is needed."""
    groups = list(range(1, order + 1))
    if final_sigmas_type == "zero" or count % order or lower_order_final:
        if order == 3:
            orders = groups * (count // 3 - (count % 3 == 0)) + {0: [1, 2, 1], 1: [1], 2: [1, 2]}[count % 3]
        elif order == 2:
            orders = groups * (count // 2 - (count % 2 == 0)) + {0: [1, 1], 1: [1]}[count % 2]
        else:
            orders = groups * count
    else:
        orders = groups * (count // order)
    return [*orders[:-1], 1] if final_sigmas_type == "zero" else orders
