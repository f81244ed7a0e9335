"""Does a picture show the emoji that its prompt names? Retrieval among the 226 reference pictures.

A picture, at half size, is compared with clean pictures of every emoji on the picture's own background colour. Both are
cut to their foreground box and scaled to 24 x 24 pixels; the distance is the mean squared difference. The picture
counts when the prompted emoji is the nearest (top-1) or among the five nearest (top-5). Chance is 1/226 and 5/226.

numpy and Pillow only: the references come from `glyphs.npz` beside the checkpoint, so neither torch nor the font is
needed. Images are uint8 [height, width, 3]; inside, pixels are float32 in [0, 1].
"""

from __future__ import annotations

import functools
from collections.abc import Sequence
from typing import Any

import numpy as np
from PIL import Image

from glyphs import glyph
from rendering import compose
from vocabulary import COLORS, NAMES

REFERENCE_SIDE = 64
FEATURE_SIDE = 24
FOREGROUND_THRESHOLD = 0.2
COLOR_STEP = 15
"""The references' background is the picture's, rounded to this step of the 8-bit scale: few colours to render."""


def halve(pixels: np.ndarray) -> np.ndarray:
    """Half size by averaging 2 x 2 pixels: faint texture in a background must not count as foreground."""
    height, width = pixels.shape[0] // 2, pixels.shape[1] // 2
    return pixels[: height * 2, : width * 2].reshape(height, 2, width, 2, 3).mean((1, 3))


def background(pixels: np.ndarray) -> np.ndarray:
    """Median colour [3] of the border, two pixels wide, in the scale of `pixels`."""
    border = (pixels[:2], pixels[-2:], pixels[:, :2], pixels[:, -2:])
    return np.median(np.concatenate([side.reshape(-1, 3) for side in border]), 0)


def feature(pixels: np.ndarray, color: np.ndarray) -> np.ndarray:
    """The foreground box, made square with the background colour: float32 [24, 24, 3]."""
    mask = np.abs(pixels - color).max(-1) > FOREGROUND_THRESHOLD
    rows, columns = np.where(mask.sum(1) >= 2)[0], np.where(mask.sum(0) >= 2)[0]
    if len(rows) == 0 or len(columns) == 0:
        return np.tile(color.astype(np.float32), (FEATURE_SIDE, FEATURE_SIDE, 1))
    box = pixels[rows[0] : rows[-1] + 1, columns[0] : columns[-1] + 1]
    height, width = box.shape[:2]
    side = max(height, width)
    top, left = (side - height) // 2, (side - width) // 2
    square = np.empty((side, side, 3), np.float32)
    square[:] = color
    square[top : top + height, left : left + width] = box
    planes = [
        Image.fromarray(square[..., c]).resize((FEATURE_SIDE, FEATURE_SIDE), Image.Resampling.BOX) for c in range(3)
    ]
    return np.stack([np.asarray(plane) for plane in planes], -1)


@functools.lru_cache(maxsize=256)
def candidates(color: tuple[int, int, int]) -> np.ndarray:
    """Features of every reference on one background colour (8-bit RGB): float32 [226, 1728] in the order of `NAMES`."""
    backdrop = np.asarray(color, np.float32) / 255
    side = REFERENCE_SIDE + 8  # a margin of 4 pixels
    pictures = (compose(glyph(name, REFERENCE_SIDE), color, side, side) for name in NAMES)
    return np.stack([feature(np.clip(pixels, 0, 1), backdrop).ravel() for pixels in pictures])


def ranking(image: np.ndarray) -> list[str]:
    """All names, nearest first, for one image."""
    pixels = halve(image.astype(np.float32) / 255)
    color = background(pixels)
    red, green, blue = (int(min(255, round(c * 255 / COLOR_STEP) * COLOR_STEP)) for c in color)
    distance = ((candidates((red, green, blue)) - feature(pixels, color).ravel()) ** 2).mean(1)
    return [NAMES[i] for i in np.argsort(distance)]


def nearest_color(image: np.ndarray) -> str:
    """The background colour of the vocabulary that is nearest to the image's, in squared RGB distance."""
    color = background(image.astype(np.float32))
    return min(COLORS, key=lambda name: float(((color - np.asarray(COLORS[name])) ** 2).sum()))


def measure(images: Sequence[np.ndarray], names: Sequence[str], colors: Sequence[str] | None = None) -> dict[str, Any]:
    """Share of the images that show their name (`top1`, `top5`) and, given colours, have their background.

    `misses` maps the names that are not nearest to the name that is. Raises `ValueError` for lists of different length.
    """
    ranks = [ranking(image) for image in images]
    pairs = list(zip(names, ranks, strict=True))
    result: dict[str, Any] = {
        "prompts": len(pairs),
        "top1": round(float(np.mean([name == rank[0] for name, rank in pairs])), 4),
        "top5": round(float(np.mean([name in rank[:5] for name, rank in pairs])), 4),
    }
    if colors is not None:
        right = [nearest_color(image) == color for image, color in zip(images, colors, strict=True)]
        result["background_accuracy"] = round(float(np.mean(right)), 4)
    result["misses"] = {name: rank[0] for name, rank in pairs if name != rank[0]}
    return result
