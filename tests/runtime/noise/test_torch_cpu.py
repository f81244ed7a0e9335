"""Noise equals PyTorch's CPU generator."""

from __future__ import annotations

import numpy as np
import pytest
import torch

from latentrt.runtime.noise.torch_cpu import TorchCpuNoise

# numpy's logarithm and PyTorch's vectorised one differ by an ulp, which is 2.4e-7 on values of up to 4.
ULP = 5e-7

SHAPES = [
    (1,), (2,), (3,), (7,), (15,), (16,), (17,), (23,), (31,), (32,), (33,), (2, 8), (3, 5), (4, 7, 9),
    (4, 16, 16), (4, 12, 20), (1, 4, 13, 11), (4, 128, 128),
]  # fmt: skip


@pytest.mark.parametrize("seed", [0, 1, 7, 2**31, 2**32 - 1, 2**32 + 5, 2**63, 2**64 - 1])
def test_one_draw_equals_torch_randn(seed: int) -> None:
    for shape in SHAPES:
        expected = torch.randn(shape, generator=torch.Generator("cpu").manual_seed(seed)).numpy()
        received = TorchCpuNoise(seed).randn(shape)
        assert received.dtype == np.float32
        assert received.shape == shape
        np.testing.assert_allclose(received, expected, rtol=0, atol=ULP)


def test_a_stream_of_draws_of_mixed_sizes_equals_torch() -> None:
    generator, source = torch.Generator("cpu").manual_seed(5), TorchCpuNoise(5)
    for count in [3, 16, 1, 40, 15, 2, 1000, 7, 17, 1]:
        expected = torch.randn(count, generator=generator).numpy()
        np.testing.assert_allclose(source.randn((count,)), expected, rtol=0, atol=ULP)


def test_only_the_low_32_bits_of_a_seed_count_as_in_torch() -> None:
    assert np.array_equal(TorchCpuNoise(3).randn((50,)), TorchCpuNoise(2**32 + 3).randn((50,)))
    assert not np.array_equal(TorchCpuNoise(3).randn((50,)), TorchCpuNoise(4).randn((50,)))


def test_values_are_standard_normal() -> None:
    values = TorchCpuNoise(0).randn((200_000,))
    assert abs(float(values.mean())) < 0.01
    assert abs(float(values.std()) - 1) < 0.01
