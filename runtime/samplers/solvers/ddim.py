"""Solvers on training timesteps: DDIM, DDPM, and those of distilled models, LCM and TCD."""

from __future__ import annotations

from math import floor, hypot, sqrt

import numpy as np

from ...errors import RequestError
from ..linear_form import LinearForm
from ..parameterization import X0
from ..trace import Trace


def ddim(run: Trace, x: LinearForm, *, eta: float = 0.0) -> LinearForm:
    """Equation 12 of Song et al. 2020 (arXiv:2010.02502); ``eta`` = 1 is its equation 16, DDPM's own variance."""
    check_eta(eta, "as much noise as DDPM")
    for i in run.steps():
        here, there = run.points[i], run.grid.targets[i]
        x, x0 = run.predict(X0, x, here)
        eps = (x - here.signal * x0) / here.noise
        # eta² (1 - a') / (1 - a) (1 - a / a'), with a = signal² here and a' = signal² there
        variance = eta**2 * (there.noise / here.noise) ** 2 * (1 - (here.signal / there.signal) ** 2)
        x = there.signal * x0 + sqrt(max(there.noise**2 - variance, 0.0)) * eps
        if eta > 0:
            x = x + sqrt(variance) * run.noise(here, there)
    return x


def ddpm(run: Trace, x: LinearForm, *, variance_type: str = "fixed_small") -> LinearForm:
    """Equation 7 of Ho et al. 2020 (arXiv:2006.11239), the posterior; ``fixed_large`` takes beta as its variance."""
    for i in run.steps():
        here, there = run.points[i], run.points[i + 1]
        x, x0 = run.predict(X0, x, here)
        beta = 1 - (here.signal / there.signal) ** 2
        x = there.signal * beta / here.noise**2 * x0 + here.signal / there.signal * (there.noise / here.noise) ** 2 * x
        if here.timestep > 0:
            variance = beta if variance_type == "fixed_large" else max((there.noise / here.noise) ** 2 * beta, 1e-20)
            x = x + sqrt(variance) * run.noise(here, there)
    return x


def lcm(run: Trace, x: LinearForm, *, timestep_scaling: float) -> LinearForm:
    """Multistep consistency sampling (Luo et al. 2023, arXiv:2310.04378, algorithm 3) with its boundary condition."""
    sigma_data = 0.5
    for i in run.steps():
        here, there = run.points[i], run.points[i + 1]
        x, x0 = run.predict(X0, x, here)
        scaled = here.timestep * timestep_scaling
        norm = hypot(scaled, sigma_data)
        x = scaled / norm * x0 + (sigma_data / norm) ** 2 * x
        if i < run.count - 1:
            x = there.signal * x + there.noise * run.noise(here, there)
    return x


def tcd(run: Trace, x: LinearForm, *, eta: float = 0.3) -> LinearForm:
    """Strategic stochastic sampling (Zheng et al. 2024, arXiv:2402.19159, algorithm 4); ``eta`` is its gamma."""
    check_eta(eta, "multistep consistency sampling")
    for i in run.steps():
        here = run.points[i]
        there = run.points[i + 1] if i < run.count - 1 else run.point_of(0.0)
        below = run.point_of(floor(np.float32(1 - eta) * np.float32(there.timestep)))  # a float32 product in diffusers
        x, x0 = run.predict(X0, x, here)
        x = below.signal * x0 + below.noise / here.noise * (x - here.signal * x0)
        if eta > 0 and i < run.count - 1:
            ratio = there.signal / below.signal
            x = ratio * x + sqrt(1 - ratio**2) * run.noise(here, there)
    return x


def check_eta(eta: float, full: str) -> None:
    """Refuses an ``eta`` outside 0..1; ``full`` says what 1 means."""
    if not 0 <= eta <= 1:
        raise RequestError("eta out of range", received=eta, expected=f"0 (deterministic) to 1 ({full})")
