"""The phi functions of exponential integrators (Hochbruck and Ostermann 2010, section 2.1), as solvers use them."""

from __future__ import annotations

import math
from collections.abc import Sequence
from itertools import pairwise

from ..linear_form import LinearForm
from ..parameterization import Point


def phi_weights(h: float, count: int) -> list[float]:
    """``[h phi_1(-h), ..., h phi_count(-h)]``: integrals of exp(-h (1 - s)) s^(k-1) / (k-1)! over s in 0..1, times h.

    Over a step of ``h`` in lambda they weigh the output at its start, its slope, its curvature and so on. The first is
    1 - exp(-h); ``h`` may be infinite (a step to the clean image), zero or negative.
    """
    if abs(h) < 1.0:  # the recursion below loses digits to cancellation here, the power series does not
        return [
            h * sum((-h) ** j / math.factorial(j + k) for j in range(20 - k)) for k in range(1, count + 1)
        ]  # the first term left out is below 1e-17
    weights = [-math.expm1(-h)]
    for k in range(1, count):
        weights.append(1 / math.factorial(k) - weights[-1] / h)
    return weights


def adams_weights(rate: float, nodes: Sequence[float], start: float, end: float) -> list[float]:
    """Integrals over lambda from ``start`` to ``end`` of exp(rate (lambda - end)) times each Lagrange polynomial.

    ``nodes`` are the lambdas that the polynomials interpolate at: an exponential Adams method.
    """
    h = end - start
    if h == 0:
        return [0.0] * len(nodes)
    moments = [
        weight * math.factorial(k) / rate for k, weight in enumerate(phi_weights(rate * h, len(nodes)))
    ]  # of s^k, s = (lambda - start) / h
    places = [(node - start) / h for node in nodes]
    weights = []
    for i, place in enumerate(places):
        polynomial, scale = [1.0], 1.0  # coefficients of s^0, s^1, ...
        for j, other in enumerate(places):
            if j != i:
                polynomial = [a - other * b for a, b in zip([0.0, *polynomial], [*polynomial, 0.0], strict=True)]
                scale *= place - other
        weights.append(sum(c * m for c, m in zip(polynomial, moments, strict=True)) / scale)
    return weights


def usable(points: Sequence[Point]) -> Sequence[Point]:
    """Those of ``points``, newest first, that come before a noise level repeats, which would have no slope.

    Runs with more steps than there are whole timesteps visit some of them twice.
    """
    for index, (newer, older) in enumerate(pairwise(points)):
        if older.sigma == newer.sigma:
            return points[: index + 1]
    return points


def weighted_sum(weights: Sequence[float], forms: Sequence[LinearForm]) -> LinearForm:
    """The sum of ``forms`` times ``weights``."""
    total = LinearForm({})
    for weight, form in zip(weights, forms, strict=True):
        total = total + weight * form
    return total
