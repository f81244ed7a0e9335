"""DPM-Solver and DPM-Solver++, multistep, as ODE and as SDE solvers."""

from __future__ import annotations

from collections.abc import Sequence
from math import exp, expm1, sqrt

from ...errors import RequestError
from ..linear_form import ZERO, LinearForm
from ..parameterization import EPS, FLOW, X0, Point
from ..trace import Trace
from .phi import phi_weights, usable


def dpm_multistep(
    run: Trace,
    x: LinearForm,
    *,
    solver_order: int,
    algorithm_type: str,
    solver_type: str,
    lower_order_final: bool,
    euler_at_final: bool,
    final_sigmas_type: str,
) -> LinearForm:
    """Lu et al. 2022 (arXiv:2206.00927 and, for the ``++`` types, arXiv:2211.01095), in lambda = log(alpha / sigma).

    ``algorithm_type``: ``dpmsolver`` expands eps over the step, ``dpmsolver++`` x0; ``sde-`` adds the reverse SDE's
    noise. ``solver_type``: how the second-order term is approximated, ``midpoint`` or ``heun``.
    """
    check_algorithm(run, algorithm_type, final_sigmas_type)
    if algorithm_type == "sde-dpmsolver" and solver_order == 3:
        raise RequestError("sde-dpmsolver has no third order", received=solver_order, expected="solver_order 1 or 2")
    data, stochastic = algorithm_type.endswith("++"), algorithm_type.startswith("sde-")
    outputs: list[LinearForm] = []
    for i in run.steps():
        here, there = run.points[i], run.points[i + 1]
        x, output = run.predict(X0 if data else EPS, x, here)
        outputs.insert(0, output)
        order = min(solver_order, len(outputs))
        left = run.count - i
        if left == 1 and (euler_at_final or (lower_order_final and run.count < 15) or final_sigmas_type == "zero"):
            order = 1
        elif left == 2 and lower_order_final and run.count < 15:
            order = min(order, 2)
        terms = derivatives(outputs, run.behind(i, order), there)
        noise = run.noise(here, there) if stochastic else ZERO
        # diffusers' third-order SDE step has the wrong sign of a 1/2 in it; dpmpp_3m_sde is the correct formula
        slip = 1.0 if stochastic and order == 3 else 0.0
        x = step(x, terms, noise, here, there, data=data, eta=float(stochastic), curve=solver_type, slip=slip)
    return x


def dpmpp_3m_sde(run: Trace, x: LinearForm, *, eta: float = 1.0) -> LinearForm:
    """Third-order SDE-DPM-Solver++ (k-diffusion ``sample_dpmpp_3m_sde``). ``eta`` scales the noise; 0 is an ODE."""
    if eta < 0:
        raise RequestError("eta is negative", received=eta, expected="0 (deterministic) or more; 1 is the reverse SDE")
    outputs: list[LinearForm] = []
    for i in run.steps():
        here, there = run.points[i], run.points[i + 1]
        x, output = run.predict(X0, x, here)
        outputs.insert(0, output)
        order = min(3, len(outputs)) if there.sigma > 0 else 1
        terms = derivatives(outputs, run.behind(i, order), there)
        noise = run.noise(here, there) if eta > 0 else ZERO
        x = step(x, terms, noise, here, there, data=True, eta=eta, curve="heun")
    return x


def check_algorithm(run: Trace, algorithm_type: str, final_sigmas_type: str) -> None:
    """Refuses what expanding eps cannot do: end at sigma 0, or run a rectified-flow model (in diffusers)."""
    if algorithm_type.endswith("++"):
        return
    if final_sigmas_type == "zero":
        raise RequestError(
            f"algorithm_type {algorithm_type} cannot step to sigma 0",
            received="final_sigmas_type=zero",
            expected="final_sigmas_type=sigma_min, or a ++ algorithm_type",
        )
    if run.output_of(run.points[0]) == FLOW:
        raise RequestError(
            f"algorithm_type {algorithm_type} does not run rectified-flow models", expected="a ++ algorithm_type"
        )


def step(
    x: LinearForm,
    terms: tuple[LinearForm, LinearForm, LinearForm],
    noise: LinearForm,
    here: Point,
    there: Point,
    *,
    data: bool,
    eta: float,
    curve: str,
    slip: float = 0.0,
) -> LinearForm:
    """One step from ``here`` to ``there`` with the output's Taylor ``terms`` (value, slope, curvature) at ``here``.

    ``eta`` is the strength of the added noise: 0 for the ODE, 1 for the reverse SDE.
    """
    h = there.half_log_snr - here.half_log_snr
    w1, w2, w3 = phi_weights((1 + eta) * h if data else -h, 3)
    if curve == "midpoint" and not terms[2].terms:
        w2 = w1 / 2
    drift = w1 * terms[0] + w2 * terms[1] + (w3 - slip) * terms[2]
    if data:
        shrink = exp(-eta * h) if eta else 1.0
        x = there.noise / here.noise * shrink * x + there.signal * drift
    else:
        x = there.signal / here.signal * x + (1 + eta) * there.noise * drift
    if eta:
        x = x + there.noise * sqrt(-expm1(-2 * eta * h) if data else expm1(2 * h)) * noise
    return x


def derivatives(
    outputs: Sequence[LinearForm], points: Sequence[Point], there: Point
) -> tuple[LinearForm, LinearForm, LinearForm]:
    """The output, h times its slope and h² times half its second derivative, at the newest of ``points``.

    ``step`` weighs the last as if it were the whole second derivative. So does the authors' code, and with it diffusers
    and k-diffusion; it makes the third-order multistep solver converge at second order.

    ``outputs`` and ``points`` are newest first; of up to three points, those from where noise levels repeat on are not
    used.
    """
    points = usable(points)
    order = len(points)
    if order == 1:
        return outputs[0], ZERO, ZERO
    lambdas = [point.half_log_snr for point in points[:order]]
    h = there.half_log_snr - lambdas[0]
    gap = lambdas[0] - lambdas[1]
    slope = h / gap * (outputs[0] - outputs[1])
    if order == 2:
        return outputs[0], slope, ZERO
    older = lambdas[1] - lambdas[2]
    change = slope - h / older * (outputs[1] - outputs[2])
    span = gap + older
    return outputs[0], slope + gap / span * change, h / span * change
