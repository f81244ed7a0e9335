"""UniPC."""

from __future__ import annotations

import math
from collections.abc import Sequence

import numpy as np

from ...errors import RequestError
from ..linear_form import LinearForm
from ..parameterization import EPS, FLOW, X0, Point
from ..trace import Trace
from .phi import phi_weights, usable, weighted_sum


def unipc(
    run: Trace,
    x: LinearForm,
    *,
    solver_order: int,
    solver_type: str,
    predict_x0: bool,
    lower_order_final: bool,
    disable_corrector: Sequence[float] = (),
) -> LinearForm:
    """Zhao et al. 2023 (arXiv:2302.04867), algorithms 1 to 4: a predictor, corrected once the next output is known.

    ``solver_type``: the function B(h), ``bh1`` (h) or ``bh2`` (exp(h) - 1). ``disable_corrector``: steps whose result
    is not corrected.
    """
    if not predict_x0 and run.output_of(run.points[0]) == FLOW:
        raise RequestError("UniPC runs rectified-flow models on x0 only", received="predict_x0=False", expected="True")
    if not predict_x0 and run.points[-1].noise == 0:
        raise RequestError(
            "UniPC steps to sigma 0 on x0 only",
            received="predict_x0=False, final_sigmas_type=zero",
            expected="predict_x0=True or final_sigmas_type=sigma_min",
        )
    outputs: list[LinearForm] = []
    order, before = 1, x
    for i in run.steps():
        here, there = run.points[i], run.points[i + 1]
        x, output = run.predict(X0 if predict_x0 else EPS, x, here)
        if i > run.begin and i - 1 not in disable_corrector:
            before = run.in_newest_base(before)
            x = unified_step(before, run.behind(i - 1, order), outputs, here, output, solver_type, predict_x0)
        outputs.insert(0, output)
        order = min(solver_order, len(outputs), run.count - i if lower_order_final else solver_order)
        if there.noise == 0 and order > 1:
            raise RequestError(
                "UniPC steps to sigma 0 in first order only",
                received="lower_order_final=False, final_sigmas_type=zero",
                expected="lower_order_final=True or final_sigmas_type=sigma_min",
            )
        before, order = x, len(usable(run.behind(i, order)))
        x = unified_step(x, run.behind(i, order), outputs, there, None, solver_type, predict_x0)
    return x


def unified_step(
    x: LinearForm,
    points: Sequence[Point],
    outputs: Sequence[LinearForm],
    there: Point,
    output_there: LinearForm | None,
    solver_type: str,
    predict_x0: bool,
) -> LinearForm:
    """From the newest of ``points`` to ``there`` in order ``len(points)``: UniP, or UniC with the output ``there``."""
    here, order = points[0], len(points)
    h = there.half_log_snr - here.half_log_snr
    signed = h if predict_x0 else -h
    weights = [-weight for weight in phi_weights(signed, order + 1)]  # hh phi_k(hh) with hh = -signed
    if predict_x0:
        x, scale = there.noise / here.noise * x, there.signal
    else:
        x, scale = there.signal / here.signal * x, there.noise
    x = x - scale * weights[0] * outputs[0]
    if h == 0 or (order == 1 and output_there is None):
        return x
    ratios = [(point.half_log_snr - here.half_log_snr) / h for point in points[1:]]
    slopes = [(output - outputs[0]) / ratio for output, ratio in zip(outputs[1:order], ratios, strict=True)]
    rows = len(ratios)
    if output_there is not None:
        ratios, slopes, rows = [*ratios, 1.0], [*slopes, output_there - outputs[0]], order
    b_of_h = -signed if solver_type == "bh1" else math.expm1(-signed)
    if rows == 1:  # the degenerate case of the paper: 1/2 satisfies the order condition
        solution = [0.5]
    else:
        matrix = np.asarray([[ratio**k for ratio in ratios] for k in range(rows)])
        sides = [weights[k + 1] * math.factorial(k + 1) / b_of_h for k in range(rows)]
        solution = np.linalg.solve(matrix, np.asarray(sides)).tolist()
    return x - scale * b_of_h * weighted_sum(solution, slopes)
