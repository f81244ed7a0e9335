"""Distances of pictures and latents against values that are known."""

from __future__ import annotations

import base64
import io

import numpy as np
import pytest
from PIL import Image

from latentrt.benchmarks.compare_pictures import cosine_distance, lpips, psnr, ssim
from latentrt.benchmarks.suites.quality import middle, pixels_from_png


def test_cosine_distance_of_known_angles() -> None:
    a = np.array([[1.0, 0.0]], np.float32)
    assert cosine_distance(a, 3 * a) == 0
    assert cosine_distance(a, np.array([[0.0, 2.0]], np.float32)) == 1
    assert cosine_distance(a, -a) == 2


def test_psnr_of_one_level_is_48_dB_and_of_equal_pictures_infinite() -> None:
    a = np.full((16, 16, 3), 100, np.uint8)
    assert psnr(a, a + np.uint8(1)) == pytest.approx(20 * np.log10(255))
    assert psnr(a, a) is None


def test_ssim_of_equal_pictures_is_1_and_falls_with_noise() -> None:
    pytest.importorskip("skimage")
    random = np.random.default_rng(0)
    a = random.integers(0, 255, (32, 32, 3), np.uint8)
    b = random.integers(0, 255, (32, 32, 3), np.uint8)
    assert ssim(a, a) == pytest.approx(1)
    assert (ssim(a, b) or 0) < 0.2


@pytest.mark.parametrize(
    ("size", "kept"), [((160, 96), (160, 96)), ((1024, 128), (256, 128)), ((300, 512), (256, 256))]
)
def test_results_keep_the_middle_of_large_pictures(size: tuple[int, int], kept: tuple[int, int]) -> None:
    x, y = np.meshgrid(np.arange(size[0]), np.arange(size[1]))
    pixels = np.stack([x % 256, y % 256, (x // 256) * 16 + y // 256], axis=-1).astype(np.uint8)
    buffer = io.BytesIO()
    Image.fromarray(pixels).save(buffer, "PNG")
    shown = pixels_from_png(middle(base64.b64encode(buffer.getvalue()).decode()))
    left, top = (size[0] - kept[0]) // 2, (size[1] - kept[1]) // 2
    assert np.array_equal(shown, pixels[top : top + kept[1], left : left + kept[0]])


def test_lpips_is_left_out_rather_than_downloaded() -> None:
    assert lpips(np.zeros((8, 8, 3), np.uint8), np.zeros((8, 8, 3), np.uint8)) is None
