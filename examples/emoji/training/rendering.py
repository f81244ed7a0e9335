"""Pictures of emoji on flat backgrounds: the clean ones, and the variants that training uses. numpy and Pillow.

Glyphs are premultiplied RGBA, float32 [side, side, 4] in [0, 1]; pictures are float32 [height, width, 3] in [0, 1].
"""

from __future__ import annotations

import random
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal

import numpy as np
from PIL import Image

from glyphs import glyph, resize
from vocabulary import COLORS, SIZES

FILL = 0.86
"""Size of the emoji relative to the short side of its picture."""

Kind = Literal["canonical", "jitter", "crop", "lowres"]
"""Centred; smaller and shifted; a window of a larger picture; enlarged from a smaller picture."""


def compose(rgba: np.ndarray, color: Sequence[int], height: int, width: int, dy: int = 0, dx: int = 0) -> np.ndarray:
    """A glyph at its own size on a flat background (8-bit RGB), centred plus (dy, dx) pixels and cut at the edges."""
    side = rgba.shape[0]
    image = np.empty((height, width, 3), np.float32)
    image[:] = np.asarray(color, np.float32) / 255
    top, left = (height - side) // 2 + dy, (width - side) // 2 + dx
    y0, x0, y1, x1 = max(top, 0), max(left, 0), min(top + side, height), min(left + side, width)
    if y1 > y0 and x1 > x0:
        patch = rgba[y0 - top : y1 - top, x0 - left : x1 - left]
        image[y0:y1, x0:x1] = patch[..., :3] + (1 - patch[..., 3:]) * image[y0:y1, x0:x1]
    return image


def picture(name: str, color: str, height: int, width: int) -> np.ndarray:
    """The clean picture that a prompt asks for: the emoji in the middle, at `FILL` of the short side."""
    return np.clip(compose(glyph(name, int(min(height, width) * FILL)), COLORS[color], height, width), 0, 1)


@dataclass(frozen=True)
class Variant:
    """One training picture before it is rendered."""

    name: str
    color: str
    size: tuple[int, int]  # height, width in pixels
    kind: Kind


@dataclass(frozen=True)
class Sample:
    """One training picture and its size conditioning. Pairs are (vertical, horizontal), in pixels."""

    image: np.ndarray  # uint8 [height, width, 3]
    original_size: tuple[int, int]
    crop: tuple[int, int]  # top, left
    target_size: tuple[int, int]

    @property
    def time_ids(self) -> tuple[int, ...]:
        """SDXL's six numbers (arXiv 2307.01952, section 2.2)."""
        return (*self.original_size, *self.crop, *self.target_size)


def sample_plan(names: Sequence[str], seed: int) -> list[Variant]:
    """Every emoji on every colour in every size, plus 8 jittered, cropped or enlarged pictures each."""
    rng = random.Random(seed)
    colors = list(COLORS)
    rows: list[Variant] = []
    for name in names:
        rows += [Variant(name, color, size, "canonical") for color in colors for size in SIZES]
        rows += [Variant(name, rng.choice(colors), SIZES[0], "jitter") for _ in range(4)]
        rows += [Variant(name, rng.choice(colors), SIZES[0], "crop") for _ in range(3)]
        rows.append(Variant(name, "white", SIZES[0], "lowres"))
    return rows


def render(variant: Variant, rng: random.Random) -> Sample:
    """The picture of one variant; `rng` places the jittered and the cropped ones."""
    emoji, color = glyph(variant.name), COLORS[variant.color]
    height, width = size = variant.size
    short = min(size)
    original, crop = size, (0, 0)
    if variant.kind == "crop":
        big = rng.choice((short * 5 // 4, short * 3 // 2))
        original = (height * big // short, width * big // short)
        whole = compose(resize(emoji, int(big * FILL)), color, *original)
        # multiples of 8 pixels: whole latent pixels
        crop = (rng.randint(0, (original[0] - height) // 8) * 8, rng.randint(0, (original[1] - width) // 8) * 8)
        image = whole[crop[0] : crop[0] + height, crop[1] : crop[1] + width]
    elif variant.kind == "lowres":
        factor = rng.choice((0.375, 0.5))
        original = (int(height * factor), int(width * factor))
        small = compose(resize(emoji, int(min(original) * FILL)), color, *original)
        planes = [Image.fromarray(small[..., c]).resize((width, height), Image.Resampling.BICUBIC) for c in range(3)]
        image = np.stack([np.asarray(plane) for plane in planes], -1)
    elif variant.kind == "jitter":
        side = int(short * rng.uniform(0.68, 0.86))
        room = int(short * 0.95 - side) // 2
        dy, dx = rng.randint(-room, room), rng.randint(-room, room)
        image = compose(resize(emoji, side), color, height, width, dy, dx)
    else:
        image = picture(variant.name, variant.color, height, width)
    return Sample((np.clip(image, 0, 1) * 255 + 0.5).astype(np.uint8), original, crop, size)
