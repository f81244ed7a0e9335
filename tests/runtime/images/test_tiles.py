"""Decoding in tiles: the arithmetic exactly, and on a trained autoencoder without a seam."""

from __future__ import annotations

from itertools import pairwise
from pathlib import Path
from typing import Any

import msgspec
import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from numpy.typing import NDArray
from PIL import Image

from latentrt.runtime import Pipeline
from latentrt.runtime.bundles.spec import AxisRange
from latentrt.runtime.errors import BundleError, RequestError
from latentrt.runtime.images.encode import encode
from latentrt.runtime.images.per_image import each
from latentrt.runtime.images.pictures import pictures_from
from latentrt.runtime.images.tiles import in_tiles, starts, weights
from latentrt.runtime.timing import Timings

Array = NDArray[np.float32]


@given(st.integers(2, 40), st.integers(1, 200), st.floats(0, 0.5))
def test_tiles_cover_a_side_and_overlap_enough(tile: int, more: int, overlap: float) -> None:
    size = tile + more
    begins = starts(size, tile, overlap)
    assert (begins[0], begins[-1] + tile) == (0, size)
    for before, after in pairwise(begins):
        assert before < after
        assert before + tile - after >= np.floor(tile * overlap)


@given(st.integers(2, 40), st.integers(1, 200), st.floats(0, 0.5), st.integers(1, 8))
def test_the_weights_of_every_pixel_add_to_one(tile: int, more: int, overlap: float, scale: int) -> None:
    size = tile + more
    begins = starts(size, tile, overlap)
    total = np.zeros(scale * size)
    for begin, weight in zip(begins, weights(begins, tile, scale), strict=True):
        assert weight.min() >= 0
        total[scale * begin : scale * (begin + tile)] += weight
    np.testing.assert_allclose(total, 1, atol=1e-6)


def test_a_network_without_context_is_not_changed_by_tiles() -> None:
    values = np.random.default_rng(0).standard_normal((1, 4, 23, 37), dtype=np.float32)
    seen: list[tuple[int, ...]] = []

    def run(part: Array) -> Array:
        seen.append(part.shape)
        return part[:, :3].repeat(8, axis=2).repeat(8, axis=3)

    tiled = in_tiles(run, values, (10, 16), 0.25, 8)
    assert set(seen) == {(1, 4, 10, 16)}, "every tile has the size that the engine is tuned for"
    np.testing.assert_allclose(tiled, run(values), atol=1e-6)


def test_what_fits_is_not_divided() -> None:
    values = np.ones((1, 4, 8, 8), np.float32)
    seen: list[Array] = []
    in_tiles(lambda part: seen.append(part) or part, values, (16, 16), 0.25, 1)
    assert len(seen) == 1
    assert seen[0] is values


@pytest.fixture(scope="module")
def latents(emoji: Pipeline, emoji_checkpoint: Path) -> Array:
    """A picture of several emoji, larger than any that the checkpoint was trained on: ``[1, 4, 24, 24]``."""
    with Image.open(emoji_checkpoint / "contact_sheet.png") as sheet:
        picture = each(pictures_from(sheet.crop((0, 0, 192, 192)), 192, 192))
    return encode(emoji.engines, picture, Timings())[0]


def steps_across(values: Array, lines: list[int]) -> tuple[float, float]:
    """The largest mean step between neighbouring rows across ``lines``, and between all others."""
    steps = np.abs(np.diff(values, axis=0)).mean(axis=(1, 2))
    across = np.zeros(len(steps), bool)
    across[[line - 1 for line in lines]] = True
    return float(steps[across].max()), float(steps[~across].max())


def borders(tile: int, overlap: float) -> list[int]:
    """The rows where a tile of the 192 begins or ends."""
    begins = [8 * begin for begin in starts(24, tile // 8, overlap)]
    return sorted({edge for begin in begins for edge in (begin, begin + tile)} - {0, 192})


@pytest.mark.parametrize(("tile", "mean_limit", "limit"), [(64, 0.02, 0.5), (96, 0.011, 0.35), (128, 0.007, 0.3)])
def test_tiles_leave_no_seam(emoji: Pipeline, latents: Array, tile: int, mean_limit: float, limit: float) -> None:
    """Normalisation sees each tile by itself, so the pictures differ a little everywhere: but not along the borders."""
    whole = emoji.decode(latents)[0]
    error = emoji.decode(latents, tile_size=tile)[0] - whole
    assert np.abs(error).mean() <= mean_limit
    assert np.abs(error).max() <= limit
    for axes in ((0, 1, 2), (1, 0, 2)):
        at_borders, elsewhere = steps_across(error.transpose(axes), borders(tile, 0.25))
        assert at_borders < elsewhere


def test_without_overlap_there_is_a_seam(emoji: Pipeline, latents: Array) -> None:
    error = emoji.decode(latents, tile_size=96, tile_overlap=0.0)[0] - emoji.decode(latents)[0]
    at_borders, elsewhere = steps_across(error, borders(96, 0.0))
    assert at_borders > 2 * elsewhere


def test_a_picture_larger_than_the_decoder_is_decoded_in_tiles(emoji: Pipeline, latents: Array) -> None:
    large = np.tile(latents, (1, 1, 2, 1))
    picture = emoji.decode(large)
    assert picture.shape == (1, 384, 192, 3)
    again = emoji.decode(large, tile_size=128)
    assert np.abs(picture - again).mean() < 0.02


def test_tiles_in_a_call(emoji: Pipeline) -> None:
    call: dict[str, Any] = {"width": 160, "height": 96, "num_inference_steps": 4, "seed": 1, "output_type": "np"}
    whole, tiled = emoji("a fox", **call).images, emoji("a fox", **call, tile_size=80, tile_overlap=0.4)
    assert tiled.provenance[0].tile_size == 80
    assert 0 < np.abs(tiled.images - whole).mean() < 0.02


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"tile_size": 100}, r"tile_size \| received: 100 \| expected: a multiple of 8 from 64 to 192"),
        ({"tile_size": 32}, r"tile_size \| received: 32"),
        ({"tile_size": 256}, r"tile_size \| received: 256"),
        ({"tile_size": 96.0}, r"tile_size \| received: 96.0 \| expected: an integer"),
        ({"tile_overlap": 0.9}, r"tile_overlap \| received: 0.9 \| expected: a number from 0 to 0.5"),
        ({"decoder": "huge"}, r"decoder \| received: 'huge' \| expected: 'vae' or 'tiny'"),
    ],
)
def test_tiles_that_cannot_be(emoji: Pipeline, arguments: dict[str, Any], message: str) -> None:
    with pytest.raises(RequestError, match=message):
        emoji("a fox", **arguments)


def test_latents_that_cannot_be_decoded(emoji: Pipeline) -> None:
    for shape in ((4, 16, 16), (1, 3, 16, 16), (1, 4, 16, 4), (0, 4, 16, 16)):
        with pytest.raises(RequestError, match="latents to decode"):
            emoji.decode(np.zeros(shape, np.float32))
    for value in (np.nan, np.inf, 1e300):
        with pytest.raises(RequestError, match=r"latents to decode \| received: values that are not finite"):
            emoji.decode(np.full((1, 4, 16, 16), value))


def test_what_is_no_array_cannot_be_decoded(emoji: Pipeline) -> None:
    for latents in ("latents", [1.0], np.zeros((1, 4, 16, 16), complex)):
        with pytest.raises(RequestError, match=r"latents to decode .* an array of finite numbers"):
            emoji.decode(latents)


def test_a_picture_larger_than_the_encoder_is_encoded_in_tiles(
    emoji: Pipeline, emoji_checkpoint: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    with Image.open(emoji_checkpoint / "contact_sheet.png") as sheet:
        picture = each(pictures_from(sheet.crop((0, 0, 192, 160)), 160, 192))
    whole = encode(emoji.engines, picture, Timings())
    component = emoji.bundle.manifest.components["vae_encoder"]
    small = msgspec.structs.replace(component, profile={**component.profile, "width": AxisRange(8, 12, 16)})
    seen: list[tuple[int, ...]] = []
    run = emoji.engines.run

    def record(name: str, inputs: dict[str, Array], timings: Timings) -> dict[str, Array]:
        seen.append(inputs["image"].shape)
        return run(name, inputs, timings)

    monkeypatch.setattr(emoji.engines, "run", record)
    monkeypatch.setitem(emoji.bundle.manifest.components, "vae_encoder", small)
    tiled = encode(emoji.engines, picture, Timings())
    assert set(seen) == {(1, 3, 160, 96)}, "the height fits"
    for part, reference in zip(tiled, whole, strict=True):
        assert part.shape == (1, 4, 20, 24)
        assert np.abs(part - reference).mean() <= 0.05 * np.abs(reference).mean()


def test_a_bundle_without_a_tiny_decoder_says_so(emoji: Pipeline) -> None:
    with pytest.raises(BundleError, match=r"no tiny_decoder .* --component tiny_decoder"):
        emoji("a fox", decoder="tiny")
