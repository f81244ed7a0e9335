"""Brownian noise against torchsde, as diffusers' DPMSolverSDEScheduler uses it."""

from __future__ import annotations

from itertools import pairwise

import numpy as np
import pytest
import torch

from latentrt.runtime.noise.brownian import BrownianNoise

pytest.importorskip("torchsde")
from diffusers.schedulers.scheduling_dpmsolver_sde import BrownianTreeNoiseSampler

SHAPE = (4, 6, 5)
SIGMAS = np.float32([14.614647, 9.7, 7.31, 7.3, 2.25, 1.0, 0.4, 0.029167]).tolist()


@pytest.mark.parametrize("seed", [0, 7, 2**31 - 2, 2**40 + 3])
def test_equals_torchsde(seed: int):
    reference = BrownianTreeNoiseSampler(torch.zeros(1, *SHAPE), SIGMAS[-1], SIGMAS[0], [seed])
    ours = BrownianNoise(seed, SHAPE, SIGMAS[-1], SIGMAS[0])
    queries = [*pairwise(SIGMAS), (SIGMAS[1], SIGMAS[5]), (SIGMAS[6], SIGMAS[2])]
    for sigma, sigma_next in queries:
        expected = reference(torch.tensor(sigma), torch.tensor(sigma_next))[0].numpy()
        # twenty levels of float32 sums of normal values that each agree to 2.4e-7
        np.testing.assert_allclose(ours.increment(sigma, sigma_next), expected, atol=2e-5, rtol=0)


def test_increments_add_up_and_do_not_depend_on_the_order_of_queries():
    forward, backward = (BrownianNoise(3, SHAPE, 0.03, 14.6) for _ in range(2))
    pairs = list(pairwise(SIGMAS[1:-1]))
    there = [forward.increment(a, b) * np.sqrt(a - b) for a, b in pairs]
    back = [backward.increment(a, b) * np.sqrt(a - b) for a, b in reversed(pairs)][::-1]
    np.testing.assert_array_equal(there, back)
    whole = forward.increment(pairs[0][0], pairs[-1][1]) * np.sqrt(pairs[0][0] - pairs[-1][1])
    np.testing.assert_allclose(sum(there), whole, atol=1e-5)


def test_increments_are_standard_normal_and_independent():
    noise = BrownianNoise(11, (4, 64, 64), 0.03, 14.6)
    first, second = noise.increment(14.6, 9.0), noise.increment(9.0, 2.0)
    count = first.size
    for values in (first, second):
        assert abs(values.mean()) < 4 / np.sqrt(count)
        assert abs(values.var() - 1) < 4 * np.sqrt(2 / count)
    assert abs(np.mean(first * second)) < 4 / np.sqrt(count)
    np.testing.assert_array_equal(noise.increment(2.0, 9.0), -second)


def test_steps_outside_the_range_are_clipped_and_empty_ones_are_zero():
    noise = BrownianNoise(1, SHAPE, 0.03, 14.6)
    np.testing.assert_array_equal(noise.increment(0.03, 0.0), np.zeros(SHAPE))
    np.testing.assert_array_equal(noise.increment(5.0, 5.0), np.zeros(SHAPE))
