"""Adams-Bashforth methods in various variables: LMS, PNDM and IPNDM, DEIS."""

from __future__ import annotations

from ...errors import RequestError
from ..linear_form import LinearForm
from ..parameterization import EPS, Point
from ..trace import Trace
from .phi import adams_weights, usable, weighted_sum

# Adams-Bashforth weights for equal steps, newest first.
ADAMS_BASHFORTH = ((1.0,), (3 / 2, -1 / 2), (23 / 12, -16 / 12, 5 / 12), (55 / 24, -59 / 24, 37 / 24, -9 / 24))


def lms(run: Trace, x: LinearForm, *, solver_order: int = 4) -> LinearForm:
    """Adams-Bashforth in sigma with unequal steps (k-diffusion ``sample_lms``)."""
    slopes: list[LinearForm] = []
    for i in run.steps():
        here, there = run.points[i], run.points[i + 1]
        x, eps = run.predict(EPS, x, here)
        slopes.insert(0, eps)
        nodes = [point.sigma for point in usable(run.behind(i, min(solver_order, len(slopes))))]
        x = x + weighted_sum(lagrange_integrals(nodes, here.sigma, there.sigma), slopes[: len(nodes)])
    return x


def lagrange_integrals(nodes: list[float], start: float, end: float) -> list[float]:
    """Integrals from ``start`` to ``end`` of the Lagrange polynomials of up to four ``nodes``.

    Two-point Gauss-Legendre quadrature is exact for cubics.
    """
    middle, reach = (start + end) / 2, (end - start) / 2
    weights = []
    for i, node in enumerate(nodes):
        total = 0.0
        for at in (middle - reach / 3**0.5, middle + reach / 3**0.5):
            value = reach
            for j, other in enumerate(nodes):
                if j != i:
                    value *= (at - other) / (node - other)
            total += value
        weights.append(total)
    return weights


def plms(run: Trace, x: LinearForm) -> LinearForm:
    """Pseudo linear multistep (Liu et al. 2022, arXiv:2202.09778), started by one step of the improved Euler method.

    The transfer of its equation 11 applies to the mixed model outputs, so those are what is stored.
    """
    outputs: list[LinearForm] = []
    for i in run.steps():
        here, there = run.points[i], run.grid.targets[i]
        x, output = run.predict(None, x, here)
        outputs.insert(0, output)
        if len(outputs) == 1 and i + 1 < run.count:  # the first step twice: the second time with the mean of both ends
            then = run.points[i + 1]
            _, after = run.predict(None, transfer(run, x, output, here, there), then)
            above = run.point_of(then.timestep + here.timestep - there.timestep)
            x = transfer(run, x, 0.5 * (output + after), above, then)
        else:
            weights = ADAMS_BASHFORTH[min(len(outputs), 4) - 1]
            x = transfer(run, x, weighted_sum(weights, outputs[: len(weights)]), here, there)
    return x


def transfer(run: Trace, x: LinearForm, output: LinearForm, here: Point, there: Point) -> LinearForm:
    """Equation 11 of arXiv:2202.09778: DDIM's step, with eps taken from a mixed model output and this state."""
    if here.signal == 0:
        raise RequestError(
            "PLMS cannot start without signal",
            received="a schedule with zero terminal SNR",
            expected="ddim, or leading steps",
        )
    predicted = run.output_of(here)  # epsilon, or v, for which eps = noise x + signal v
    eps = output if predicted == EPS else here.noise * x + here.signal * output
    gap = there.signal**2 - here.signal**2
    scale = here.signal**2 * there.noise + here.signal * here.noise * there.signal
    return there.signal / here.signal * x - gap / scale * eps


def ipndm(run: Trace, x: LinearForm) -> LinearForm:
    """Improved PNDM (Zhang and Chen 2022, arXiv:2204.13902): Adams-Bashforth weights for equal steps on eps."""
    outputs: list[LinearForm] = []
    for i in run.steps():
        here, there = run.points[i], run.points[i + 1]
        x, eps = run.predict(EPS, x, here)
        outputs.insert(0, eps)
        weights = ADAMS_BASHFORTH[min(len(outputs), 4) - 1]
        mean = weighted_sum(weights, outputs[: len(weights)])
        if here.signal == 0:  # pure noise: x is eps, and says nothing about x0
            x = there.noise * mean
        else:
            x = there.signal / here.signal * (x - here.noise * mean) + there.noise * mean
    return x


def deis(run: Trace, x: LinearForm, *, solver_order: int, lower_order_final: bool) -> LinearForm:
    """Log-rho Adams-Bashforth DEIS (Zhang and Chen 2022, arXiv:2204.13902): eps as a polynomial in log(sigma)."""
    outputs: list[LinearForm] = []
    for i in run.steps():
        here, there = run.points[i], run.points[i + 1]
        x, eps = run.predict(EPS, x, here)
        outputs.insert(0, eps)
        order = min(solver_order, len(outputs))
        if lower_order_final and run.count < 15:
            order = min(order, max(1, run.count - i))
        nodes = [point.half_log_snr for point in usable(run.behind(i, order))]
        weights = adams_weights(-1.0, nodes, nodes[0], there.half_log_snr)
        x = there.signal / here.signal * x - there.noise * weighted_sum(weights, outputs[: len(nodes)])
    return x
