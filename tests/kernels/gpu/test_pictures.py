"""Pictures in and out, and channels behind the latents, against the numpy of them: bit for bit."""

from __future__ import annotations

import numpy as np
import pytest
import torch

from latentrt.kernels import inputs, reference
from latentrt.kernels.gpu.image_from_decoded import image_from_decoded
from latentrt.kernels.gpu.pack_rows import pack_rows
from latentrt.kernels.gpu.pixels_from_image import pixels_from_image

from .conftest import Launch

SHAPES = [(1, 1, 1), (2, 8, 8), (1, 33, 47), (3, 25, 31)]
DTYPES = [torch.float32, torch.float16, torch.bfloat16]


@pytest.mark.parametrize("shape", SHAPES)
@pytest.mark.parametrize("dtype", DTYPES)
def test_bytes_of_what_was_decoded(launch: Launch, shape: tuple[int, int, int], dtype: torch.dtype) -> None:
    images, height, width = shape
    decoded = torch.from_numpy(np.random.default_rng(1).normal(0, 0.8, (images, 3, height, width))).to(dtype)
    pixels = np.empty((images, height, width, 3), np.uint8)
    launch(image_from_decoded, decoded, pixels)
    expected = reference.bytes_from_image(reference.image_from_decoded(decoded.float().numpy()))
    np.testing.assert_array_equal(pixels, expected)


def test_bytes_at_the_ends_and_between_two(launch: Launch) -> None:
    """Ties go to the even byte; what is out of range, infinities too, to the ends."""
    halves = (np.arange(255, dtype=np.float64) + 0.5) / 255 * 2 - 1
    decoded = np.concatenate([halves, [-1, 1, -1.001, 1.001, -np.inf, np.inf, 0]]).astype(np.float32)
    decoded = np.tile(decoded, (1, 3, 1, 1))
    pixels = np.empty((1, 1, decoded.shape[3], 3), np.uint8)
    launch(image_from_decoded, decoded, pixels)
    np.testing.assert_array_equal(pixels, reference.bytes_from_image(reference.image_from_decoded(decoded)))
    assert pixels[0, 0, -7:, 0].tolist() == [0, 255, 0, 255, 0, 255, 128]


@pytest.mark.parametrize("shape", SHAPES)
@pytest.mark.parametrize("dtype", DTYPES)
def test_pixels_of_bytes(launch: Launch, shape: tuple[int, int, int], dtype: torch.dtype) -> None:
    images, height, width = shape
    image = np.random.default_rng(2).integers(0, 256, (*shape, 3), np.uint8)
    pixels = torch.empty((images, 3, height, width), dtype=dtype)
    launch(pixels_from_image, image, pixels)
    expected = inputs.pixels_from_image(image)
    # The interpreter cuts bf16 off where a GPU rounds to the nearest.
    precision = {torch.float32: 0, torch.float16: 2**-11, torch.bfloat16: 2**-7}[dtype]
    np.testing.assert_allclose(pixels.float().numpy(), expected, rtol=precision, atol=precision * 1e-2)


def test_pixels_and_bytes_are_inverse() -> None:
    image = np.arange(256, dtype=np.uint8).repeat(3).reshape(1, 16, 16, 3)
    again = reference.bytes_from_image(reference.image_from_decoded(inputs.pixels_from_image(image)))
    np.testing.assert_array_equal(again, image)


@pytest.mark.parametrize(("latents", "extra"), [(4, 5), (1200, 1500), (7, 1025)])
@pytest.mark.parametrize("dtype", DTYPES)
def test_channels_behind_the_latents(launch: Launch, latents: int, extra: int, dtype: torch.dtype) -> None:
    channels = np.random.default_rng(3).standard_normal((2, extra), dtype=np.float32)
    channels = torch.from_numpy(channels).to(dtype).float().numpy()  # so that no cast rounds
    sources = np.array([1, -1, 0, 1], np.int32)
    model_input = torch.full((4, latents + extra), 9.0, dtype=dtype)
    launch(pack_rows, channels, sources, model_input, latents)
    expected = np.full((4, latents + extra), 9, np.float32)
    inputs.pack_rows(channels, sources, expected, latents)
    np.testing.assert_array_equal(model_input.float().numpy(), expected)
