"""Files of every kind of PNG, and what PIL makes of them, as the arrays that a run works with."""

from __future__ import annotations

import io
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from numpy.typing import NDArray
from PIL import Image

from latentrt.runtime.errors import RequestError
from latentrt.runtime.images.pictures import depth_from, mask_from, pictures_from

HEIGHT, WIDTH = 16, 24


def ramp() -> NDArray[np.uint8]:
    """Grey values from 0 to 255, from left to right."""
    return np.tile(np.linspace(0, 255, WIDTH).round().astype(np.uint8), (HEIGHT, 1))


def reread(image: Image.Image, kind: str = "PNG", **options: Any) -> Image.Image:
    file = io.BytesIO()
    image.save(file, kind, **options)
    return Image.open(file)


def forms() -> dict[str, Image.Image]:
    """The same grey picture as several kinds of file."""
    grey = Image.fromarray(ramp())
    return {
        "grey": reread(grey),
        "RGB": reread(grey.convert("RGB")),
        "grey with transparency": reread(Image.merge("LA", (grey, Image.new("L", grey.size, 7)))),
        "RGB with transparency": reread(Image.merge("RGBA", (grey, grey, grey, Image.new("L", grey.size, 7)))),
        "palette": reread(grey.convert("P")),
        "palette with transparency": reread(grey.convert("P"), transparency=bytes(range(256))),
        "16 bits": reread(Image.fromarray(ramp().astype(np.uint16) * 257)),
    }


def test_the_kinds_are_what_they_are_called() -> None:
    modes = {name: image.mode for name, image in forms().items()}
    assert modes["palette"] == modes["palette with transparency"] == "P"
    assert modes["16 bits"] == "I;16"
    assert "transparency" in forms()["palette with transparency"].info


@pytest.mark.parametrize("name", forms())
def test_a_picture_is_the_same_from_every_kind(name: str) -> None:
    received = pictures_from(forms()[name], HEIGHT, WIDTH)
    assert received.dtype == np.uint8
    np.testing.assert_array_equal(received, np.stack([ramp()] * 3, axis=-1)[None])


def test_a_picture_in_floating_point_stays_in_it_and_its_neighbours_become_so() -> None:
    grey = Image.fromarray(ramp())
    values = np.stack([ramp().astype(np.float32) / 255] * 3, axis=-1)
    received = pictures_from([grey, values], HEIGHT, WIDTH)
    assert received.shape == (2, 3, HEIGHT, WIDTH)
    np.testing.assert_array_equal(received[0], received[1])
    np.testing.assert_array_equal(received[0], np.stack([ramp().astype(np.float32) / 255 * 2 - 1] * 3))


@pytest.mark.parametrize("name", forms())
def test_a_mask_is_the_same_from_every_kind(name: str) -> None:
    received = mask_from(forms()[name], HEIGHT, WIDTH)
    assert np.array_equal(received[0, 0], ramp() >= 128)


@pytest.mark.parametrize("name", forms())
def test_a_depth_map_is_the_same_from_every_kind(name: str) -> None:
    received = depth_from(forms()[name], HEIGHT, WIDTH)
    assert received.shape == (1, 1, HEIGHT, WIDTH)
    np.testing.assert_allclose(received[0, 0], ramp() / 127.5 - 1, atol=1e-6)


def test_16_bits_of_depth_are_kept() -> None:
    values = np.tile(np.arange(WIDTH, dtype=np.uint16) + 1000, (HEIGHT, 1))  # 24 levels, 1 of 8 bits
    received = depth_from(Image.fromarray(values), HEIGHT, WIDTH)
    assert len(np.unique(received)) == WIDTH


def test_a_grey_jpeg_with_three_channels_is_a_depth_map() -> None:
    y, x = np.mgrid[0:64, 0:64]
    grey = Image.fromarray(((np.sin(x / 9) + y / 32) * 60 + 60).astype(np.uint8))
    jpeg = reread(grey.convert("RGB"), "JPEG", quality=60)
    received, expected = depth_from(jpeg, 8, 8), depth_from(grey, 8, 8)
    assert np.abs(received - expected).max() < 0.2


def coloured() -> Image.Image:
    return Image.merge(
        "RGB", (Image.fromarray(ramp()), Image.new("L", (WIDTH, HEIGHT)), Image.new("L", (WIDTH, HEIGHT)))
    )


def spot() -> NDArray[np.float32]:
    """One bright pixel that no sample of a coarse grid falls on."""
    values = np.zeros((64, 64), np.float32)
    values[0, 0] = 1
    return values


@pytest.mark.parametrize(
    ("depth", "message"),
    [
        (coloured(), r"a picture in colour \(PIL's mode RGB\) \| expected: a grey one, white where it is near"),
        (Image.new("L", (8, 8), 9), "9 everywhere"),
        (spot(), "0 everywhere at 2x2"),
        (Image.new("L", (0, 8)), "a picture of 0x8"),
        (np.zeros((2, 8, 8), complex), r"an array, complex128 \[2, 8, 8\]"),
        (None, "None"),
    ],
)
def test_what_is_no_depth_map(depth: Any, message: str) -> None:
    with pytest.raises(RequestError, match=f"depth_map .*{message}"):
        depth_from(depth, 2, 2)


@pytest.mark.parametrize("mode", ["I", "F", "La"])
def test_pictures_of_unknown_ranges_are_refused(mode: str) -> None:
    for of in (pictures_from, mask_from):
        with pytest.raises(RequestError, match=f"a PIL picture of mode {mode}: .* expected: 8 or 16 bits"):
            of(Image.new(mode, (WIDTH, HEIGHT)), HEIGHT, WIDTH)


def test_a_file_that_is_cut_short(tmp_path: Path) -> None:
    noise = np.random.default_rng(0).integers(0, 255, (64, 64, 3), np.uint8)
    Image.fromarray(noise).save(tmp_path / "a.png")
    (tmp_path / "a.png").write_bytes((tmp_path / "a.png").read_bytes()[:4000])
    with Image.open(tmp_path / "a.png") as image, pytest.raises(RequestError, match=r"image .* cannot be read"):
        pictures_from(image, 64, 64)
