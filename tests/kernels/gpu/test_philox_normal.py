"""Noise made on the device against the numpy of it, and on a GPU against torch's own."""

from __future__ import annotations

import numpy as np
import pytest
import torch

from latentrt.kernels.gpu.philox_normal import philox_normal
from latentrt.kernels.philox import calls_for, threads_for
from latentrt.kernels.philox import philox_normal as reference

from .conftest import Launch

SEEDS = [1, 2**40 + 5, -7, 0]


@pytest.mark.parametrize(
    ("count", "gpu_threads"), [(1, None), (77, None), (1000, None), (4096, 1024), (4099, 512), (5000, 1300)]
)
@pytest.mark.parametrize("ring", [1, 2])
def test_noise_is_the_numpy_noise(launch: Launch, count: int, gpu_threads: int | None, ring: int) -> None:
    noise = np.full((4, ring, count), 9, np.float32)
    draws = np.array([0, 3, -1, 2], np.int32)
    launch(philox_normal, noise, np.array(SEEDS), draws, gpu_threads)
    calls = calls_for(count, threads_for(count, gpu_threads))
    expected = np.full_like(noise, 9)
    for slot in (0, 1, 3):
        draw = int(draws[slot])
        expected[slot, draw % ring] = reference(SEEDS[slot], count, draw * calls, gpu_threads)
    np.testing.assert_allclose(noise, expected, rtol=0, atol=5e-6)


@pytest.mark.gpu
@pytest.mark.parametrize("launch", ["cuda"], indirect=True)
@pytest.mark.parametrize("count", [3, 16384, 65536, 262144, 3_000_000])
@pytest.mark.parametrize("seed", [0, 42, 2**33 + 1])
def test_noise_is_what_torch_makes_on_this_gpu(launch: Launch, count: int, seed: int) -> None:
    properties = torch.cuda.get_device_properties(0)
    per_multiprocessor = properties.max_threads_per_multi_processor // 256 * 256
    gpu_threads = properties.multi_processor_count * per_multiprocessor
    generator = torch.Generator("cuda").manual_seed(seed)
    noise = np.empty((1, 1, count), np.float32)
    for draw in range(3):
        theirs = torch.randn(count, device="cuda", generator=generator).cpu().numpy()
        launch(philox_normal, noise, np.array([seed]), np.array([draw], np.int32), gpu_threads)
        np.testing.assert_allclose(noise[0, 0], theirs, rtol=0, atol=2e-5)
        calls = calls_for(count, threads_for(count, gpu_threads))
        np.testing.assert_allclose(reference(seed, count, draw * calls, gpu_threads), theirs, rtol=0, atol=2e-5)
