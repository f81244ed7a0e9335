"""Euler and Heun steps on the probability-flow ODE, and Euler with noise."""

from __future__ import annotations

import math

from ..linear_form import LinearForm
from ..parameterization import EPS, FLOW, X0, Mixture
from ..trace import Trace


def euler(run: Trace, x: LinearForm) -> LinearForm:
    """dx/dsigma = eps: Algorithm 2 of Karras et al. 2022 (arXiv:2206.00364) without churn."""
    for i in run.steps():
        here, there = run.points[i], run.points[i + 1]
        x, eps = run.predict(EPS, x, here)
        x = x + (there.sigma - here.sigma) * eps
    return x


def euler_ancestral(run: Trace, x: LinearForm) -> LinearForm:
    """Euler down to sigma_down, then noise of sigma_up (k-diffusion ``sample_euler_ancestral``)."""
    for i in run.steps():
        here, there = run.points[i], run.points[i + 1]
        x, eps = run.predict(EPS, x, here)
        down, up = ancestral(here.sigma, there.sigma)
        x = x + (down - here.sigma) * eps + up * run.noise(here, there)
    return x


def ancestral(sigma_from: float, sigma_to: float) -> tuple[float, float]:
    """``(sigma_down, sigma_up)`` with sigma_down² + sigma_up² = sigma_to²: the posterior of the forward process."""
    up = sigma_to * math.sqrt(max(sigma_from**2 - sigma_to**2, 0.0)) / sigma_from
    return math.sqrt(max(sigma_to**2 - up**2, 0.0)), up


def heun(run: Trace, x: LinearForm) -> LinearForm:
    """Algorithm 1 of Karras et al. 2022 (arXiv:2206.00364): the mean of the slopes at both ends of a step."""
    return trapezoid(run, x, EPS)


def flow_euler(run: Trace, x: LinearForm, *, stochastic_sampling: bool = False) -> LinearForm:
    """dx/dsigma = velocity (Esser et al. 2024, arXiv:2403.03206), or denoise fully and add new noise at every step."""
    for i in run.steps():
        here, there = run.points[i], run.points[i + 1]
        if stochastic_sampling:
            x, x0 = run.predict(X0, x, here)
            x = there.signal * x0 + there.noise * run.noise(here, there)
        else:
            x, velocity = run.predict(FLOW, x, here)
            x = x + (there.sigma - here.sigma) * velocity
    return x


def flow_heun(run: Trace, x: LinearForm) -> LinearForm:
    """Heun's method on dx/dsigma = velocity."""
    return trapezoid(run, x, FLOW)


def trapezoid(run: Trace, x: LinearForm, slope: Mixture) -> LinearForm:
    """Heun's method where dx/dsigma is ``slope``; the last step, to sigma 0, is an Euler step."""
    for i in run.steps():
        here, there = run.points[i], run.points[i + 1]
        dt = there.sigma - here.sigma
        x, first = run.predict(slope, x, here)
        if there.sigma == 0:
            x = x + dt * first
        else:
            _, second = run.predict(slope, x + dt * first, there)
            x = x + dt / 2 * (first + second)
    return x
