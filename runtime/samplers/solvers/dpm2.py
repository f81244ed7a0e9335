"""Two-stage solvers that evaluate at the geometric mean of a step's sigmas: DPM2, its ancestral form, DPM++ SDE."""

from __future__ import annotations

from math import sqrt

from ..linear_form import LinearForm
from ..parameterization import EPS, X0, Point
from ..trace import Trace
from .euler import ancestral


def dpm2(run: Trace, x: LinearForm) -> LinearForm:
    """DPM-Solver-2 as in Algorithm 2 of Karras et al. 2022 with rho = 0 (k-diffusion ``sample_dpm_2``)."""
    for i in run.steps():
        here, there = run.points[i], run.points[i + 1]
        x, eps = run.predict(EPS, x, here)
        if there.sigma > 0:
            middle = run.point_of(sqrt(here.sigma * there.sigma))
            _, eps = run.predict(EPS, x + (middle.sigma - here.sigma) * eps, middle)
        x = x + (there.sigma - here.sigma) * eps
    return x


def dpm2_ancestral(run: Trace, x: LinearForm) -> LinearForm:
    """DPM-Solver-2 down to sigma_down, then noise of sigma_up (k-diffusion ``sample_dpm_2_ancestral``)."""
    for i in run.steps():
        here, there = run.points[i], run.points[i + 1]
        x, eps = run.predict(EPS, x, here)
        down, up = ancestral(here.sigma, there.sigma)
        if down == 0:
            x = x + (down - here.sigma) * eps
        else:
            middle = run.point_of(sqrt(here.sigma * down))
            _, eps = run.predict(EPS, x + (middle.sigma - here.sigma) * eps, middle)
            x = x + (down - here.sigma) * eps + up * run.noise(here, there)
    return x


def dpmpp_2s_ancestral(run: Trace, x: LinearForm) -> LinearForm:
    """DPM-Solver++ (2S) down to sigma_down, then noise of sigma_up (k-diffusion ``sample_dpmpp_2s_ancestral``)."""
    for i in run.steps():
        here, there = run.points[i], run.points[i + 1]
        x, x0 = run.predict(X0, x, here)
        down, up = ancestral(here.sigma, there.sigma)
        if down == 0:
            x = x0
        else:
            middle = run.point_of(sqrt(here.sigma * down))
            half = middle.sigma / here.sigma
            _, x0 = run.predict(X0, half * x + (1 - half) * x0, middle)
            x = down / here.sigma * x + (1 - down / here.sigma) * x0 + up * run.noise(here, there)
    return x


def dpmpp_sde(run: Trace, x: LinearForm) -> LinearForm:
    """Stochastic DPM-Solver++ (Lu et al. 2022, arXiv:2211.01095) with r = 1/2: an ancestral step of either stage.

    As in k-diffusion's ``sample_dpmpp_sde``.
    """
    for i in run.steps():
        here, there = run.points[i], run.points[i + 1]
        x, x0 = run.predict(X0, x, here)
        if there.sigma == 0:
            x = x0
        else:
            middle = run.point_of(sqrt(here.sigma * there.sigma))
            _, x0 = run.predict(X0, ancestral_step(run, x, x0, here, middle), middle)
            x = ancestral_step(run, x, x0, here, there)
    return x


def ancestral_step(run: Trace, x: LinearForm, x0: LinearForm, here: Point, there: Point) -> LinearForm:
    """The exact solution down to sigma_down for a constant ``x0``, then noise of sigma_up."""
    down, up = ancestral(here.sigma, there.sigma)
    ratio = down / here.sigma
    return ratio * x + (1 - ratio) * x0 + up * run.noise(here, there)
