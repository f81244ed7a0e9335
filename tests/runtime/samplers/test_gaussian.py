"""Every sampler reaches the distribution of the data: with Gaussian data the optimal denoiser is known, and so is that.

The table alone is run, as the runtime would: a linear recurrence of means and covariances.
"""

from __future__ import annotations

import numpy as np
import pytest

from latentrt.runtime.samplers import (
    ModelSchedule,
    SamplerTable,
    build_table,
    model_schedule_from_config,
    sampler_names,
)
from latentrt.runtime.samplers.parameterization import Point, model_output
from latentrt.runtime.samplers.registry import BY_NAME

from .parity_cases import STABLE_DIFFUSION

MEAN, DEVIATION = 0.7, 0.6

# Models distilled to jump to the image have no denoiser to be optimal.
SAMPLERS = [name for name in sampler_names() if name not in ("lcm", "tcd")]


def model_for(kind: str, prediction_type: str = "v_prediction") -> ModelSchedule:
    """A checkpoint of a kind."""
    configs: dict[str, dict[str, object]] = {
        "trained": {"_class_name": "EulerDiscreteScheduler", **STABLE_DIFFUSION, "prediction_type": prediction_type},
        "flow": {"_class_name": "FlowMatchEulerDiscreteScheduler", "shift": 3.0},
        "edm": {"_class_name": "EDMEulerScheduler", "prediction_type": "epsilon"},
        "angular": {"_class_name": "IPNDMScheduler"},
    }
    return model_schedule_from_config(configs[kind])


def levels(table: SamplerTable, kind: str) -> list[Point]:
    """The signal and noise of every state, from its sigma and the convention of the first."""
    points = []
    exploding = table.start_signal == 1.0
    for sigma in table.sigmas:
        if kind == "flow":
            points.append(Point(0.0, sigma, 1 - sigma, sigma))
        elif exploding:
            points.append(Point(0.0, sigma, 1.0, sigma))
        elif np.isinf(sigma):
            points.append(Point(0.0, sigma, 0.0, 1.0))
        elif kind == "angular":
            angle = np.arctan(sigma)
            points.append(Point(0.0, sigma, np.cos(angle), np.sin(angle)))
        else:
            points.append(Point(0.0, sigma, 1 / np.hypot(sigma, 1), sigma / np.hypot(sigma, 1)))
    return points


def final_error(table: SamplerTable, kind: str, prediction_type: str) -> float:
    """How far mean and deviation of the last state are from those of the data at its noise level."""
    points = levels(table, kind)
    draws = int(table.draws_noise.sum())
    width = 2 + draws  # constant, initial state, noises
    state, stored, drawn = np.eye(width)[1], [], 0
    for k in range(table.evaluations):
        point = points[k]
        variance = point.signal**2 * DEVIATION**2 + point.noise**2
        if kind == "edm":  # the network F of x0 = c_skip x + c_out F, with sigma_data = 0.5
            norm = np.hypot(point.sigma, 0.5)
            c_skip, c_out = (0.5 / norm) ** 2, 0.5 * point.sigma / norm
            output = ((1 - c_skip) / c_out, -c_skip * point.sigma / c_out)
        else:
            output = model_output("flow_prediction" if kind == "flow" else prediction_type, point)
        slope = (output[0] * point.signal * DEVIATION**2 + output[1] * point.noise) / variance
        offset = output[0] * MEAN - slope * point.signal * MEAN
        m = slope * state + offset * np.eye(width)[0]
        stored.insert(0, table.state_to_stored[k] * state + table.output_to_stored[k] * m)
        state = table.state_weight[k] * state
        state = state + sum(w * d for w, d in zip(table.history_weights[k], stored, strict=False))
        drawn += int(table.draws_noise[k])
        for j, weight in enumerate(table.noise_weights[k]):
            if weight:
                state[1 + drawn - j] += weight
    start_mean = table.start_signal * MEAN
    start_variance = (table.start_signal * DEVIATION) ** 2 + table.start_noise**2
    mean = state[0] + state[1] * start_mean
    deviation = np.sqrt(state[1] ** 2 * start_variance + state[2:] @ state[2:])
    last = points[-1]
    expected = np.hypot(last.signal * DEVIATION, last.noise)
    return abs(mean - last.signal * MEAN) + abs(deviation - expected)


@pytest.mark.parametrize("prediction_type", ["epsilon", "v_prediction"])
@pytest.mark.parametrize("name", SAMPLERS)
def test_reaches_the_data(name: str, prediction_type: str):
    kind = BY_NAME[name].kinds[0]
    model = model_for(kind, prediction_type)
    prediction_type = "v_prediction" if kind == "angular" else prediction_type
    few, many = (final_error(build_table(name, None, steps, model), kind, prediction_type) for steps in (25, 400))
    assert many < 0.01
    assert many < few / 3
