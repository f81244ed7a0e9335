"""CUDA's noise in numpy: against the algorithm's published vectors, and against what torch printed on real GPUs."""

from __future__ import annotations

import numpy as np
import pytest

from latentrt.kernels.philox import calls_for, philox4x32, philox_normal, threads_for

T4, RTX_A4000, A100, H100 = 40 * 1024, 48 * 1536, 108 * 2048, 132 * 2048


def words(text: str) -> list[int]:
    return [int(word, 16) for word in text.split()]


@pytest.mark.parametrize(
    ("counter", "key", "expected"),
    [
        ("0 0 0 0", "0 0", "6627e8d5 e169c58d bc57ac4c 9b00dbd8"),
        ("ffffffff ffffffff ffffffff ffffffff", "ffffffff ffffffff", "408f276d 41c83b0e a20bc7c6 6d5451fd"),
        ("243f6a88 85a308d3 13198a2e 03707344", "a4093822 299f31d0", "d16cfe09 94fdcceb 5001e420 24126ea1"),
    ],
)
def test_philox_gives_the_known_answers_of_random123(counter: str, key: str, expected: str) -> None:
    first, second = words(key)
    given = philox4x32(np.array(words(counter), np.uint32)[:, None], (first, second))
    assert given[:, 0].tolist() == words(expected)


@pytest.mark.parametrize(
    ("seed", "count", "gpu_threads", "first", "last"),
    [
        # pytorch/pytorch#79496, #158398: any GPU
        (10, 3, None, [-0.1029, 1.6810, -0.2708], []),
        (42, 64 * 2048, None, [0.1940, 2.1614, -0.1721], []),
        # pytorch/pytorch#143086: one seed on two GPUs, both smaller than the tensor
        (1, 49 * 12 * 112 * 144, A100, [-0.2963, 2.6764, -0.1408], [0.1549, -0.6797, -0.1656]),
        (1, 49 * 12 * 112 * 144, H100, [-0.2963, 2.6764, -0.1408], [-0.6970, -0.7780, 0.3267]),
    ],
)
def test_noise_is_what_torch_printed_on_real_gpus(
    seed: int, count: int, gpu_threads: int | None, first: list[float], last: list[float]
) -> None:
    values = philox_normal(seed, count, gpu_threads=gpu_threads)
    np.testing.assert_allclose(values[:3], first, atol=6e-5)
    np.testing.assert_allclose(values[len(values) - len(last) :], last, atol=6e-5)


def test_noise_past_the_threads_of_an_rtx_a4000() -> None:
    """pytorch/pytorch#97097: ``normal_(5, 5**.5)`` of 100000 values with seed 14."""
    values = 5 + 5**0.5 * philox_normal(14, 100_000, gpu_threads=RTX_A4000)
    np.testing.assert_allclose(values[:3], [2.8731, 5.2727, 2.9889], atol=1e-4)
    np.testing.assert_allclose(values[-3:], [8.2207, 6.5395, 4.2604], atol=1e-4)


@pytest.mark.parametrize("count", [1, 255, 16384, 40960, 40961])
def test_gpus_agree_on_what_fits_the_smaller_one(count: int) -> None:
    small, large = philox_normal(7, count, gpu_threads=T4), philox_normal(7, count, gpu_threads=H100)
    np.testing.assert_array_equal(small[:T4], large[:T4])
    assert np.array_equal(small, large) == (count <= T4)
    np.testing.assert_array_equal(large, philox_normal(7, count))


def test_every_value_of_a_seed_is_used_once() -> None:
    threads = threads_for(5000, 1024)
    assert (threads, calls_for(5000, threads)) == (1024, 2)
    first, second = philox_normal(3, 5000, 0, 1024), philox_normal(3, 5000, 2, 1024)
    assert len(np.unique(np.concatenate([first, second]))) > 9_990  # of float32, some fall together
    np.testing.assert_array_equal(philox_normal(3, 900, 1, 1024), philox_normal(3, 5000, 0, 1024)[4096:4996])


def test_seeds_have_64_bits_and_calls_more_than_32() -> None:
    assert not np.array_equal(philox_normal(5, 64), philox_normal(5 + 2**40, 64))
    np.testing.assert_array_equal(philox_normal(-1, 64), philox_normal(2**64 - 1, 64))
    assert not np.array_equal(philox_normal(5, 64, 1), philox_normal(5, 64, 1 + 2**32))


def test_noise_is_normal() -> None:
    values = philox_normal(0, 1 << 18, gpu_threads=1 << 16).astype(np.float64)
    assert abs(values.mean()) < 0.01
    assert abs(values.var() - 1) < 0.01
    assert abs((values**4).mean() - 3) < 0.05
