"""The 226 emoji bitmaps of `glyphs.npz`, which training and measuring share. numpy and Pillow.

The file is made by `glyphs_from_font.py` and holds, in the order of `vocabulary.NAMES`:

    names    unicode [226]
    bitmaps  uint8 [226, 128, 128, 4], premultiplied RGBA at the font's own size, centred, clear around the emoji
"""

from __future__ import annotations

import functools
from pathlib import Path

import numpy as np
from PIL import Image

from vocabulary import NAMES

GLYPHS = Path(__file__).resolve().parent.parent / "glyphs.npz"
GLYPH_SIDE = 128
ALPHA_FLOOR = 0.02
"""Fainter pixels do not count for the bounding box."""


@functools.cache
def read_bitmaps(path: Path = GLYPHS) -> dict[str, np.ndarray]:
    """Name -> uint8 [128, 128, 4]. Raises `ValueError` where the file was made from another vocabulary."""
    with np.load(path, allow_pickle=False) as file:
        names, bitmaps = tuple(file["names"].tolist()), file["bitmaps"]
    expected = (len(NAMES), GLYPH_SIDE, GLYPH_SIDE, 4)
    if names != NAMES or bitmaps.shape != expected:
        raise ValueError(
            f"{path} holds {len(names)} names and bitmaps of shape {bitmaps.shape}; expected the names of "
            f"vocabulary.py and shape {expected}. Make it again with glyphs_from_font.py."
        )
    return dict(zip(names, bitmaps, strict=True))


def resize(rgba: np.ndarray, side: int) -> np.ndarray:
    """A square image at `side` pixels. Premultiplied channels are resized one by one without colour fringes."""
    if rgba.shape[0] == side:
        return rgba
    planes = [
        Image.fromarray(rgba[..., channel]).resize((side, side), Image.Resampling.LANCZOS)
        for channel in range(rgba.shape[-1])
    ]
    return np.clip(np.stack([np.asarray(plane) for plane in planes], -1), 0, 1)


@functools.cache
def glyph(name: str, side: int = GLYPH_SIDE) -> np.ndarray:
    """One emoji that fills its square: premultiplied RGBA, float32 [side, side, 4] in [0, 1].

    Other sizes are made from the one of 128 pixels.
    """
    if side != GLYPH_SIDE:
        return resize(glyph(name), side)
    rgba = read_bitmaps()[name].astype(np.float32) / 255
    ys, xs = np.where(rgba[..., 3] > ALPHA_FLOOR)
    rgba = rgba[ys.min() : ys.max() + 1, xs.min() : xs.max() + 1]
    height, width = rgba.shape[:2]
    longest = max(height, width)
    top, left = (longest - height) // 2, (longest - width) // 2
    square = np.zeros((longest, longest, 4), np.float32)
    square[top : top + height, left : left + width] = rgba
    return resize(square, GLYPH_SIDE)
