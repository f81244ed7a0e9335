"""Make `glyphs.npz` from the Noto Color Emoji font. Nothing else here needs the font.

    python examples/emoji/training/glyphs_from_font.py examples/emoji/glyphs.npz

The font is $EMOJI_FONT, or the file of the Debian package fonts-noto-color-emoji. The same font gives the same bytes.
"""

from __future__ import annotations

import os
import sys
from pathlib import Path

import numpy as np
from PIL import Image, ImageDraw, ImageFont

from glyphs import ALPHA_FLOOR, GLYPH_SIDE
from vocabulary import EMOJI, NAMES

FONT = Path(os.environ.get("EMOJI_FONT", "/usr/share/fonts/truetype/noto/NotoColorEmoji.ttf"))
FONT_STRIKE = 109  # the font's only bitmap size


def bitmap(name: str, font: ImageFont.FreeTypeFont) -> np.ndarray:
    """One emoji as the font stores it: premultiplied RGBA, uint8 [128, 128, 4], centred.

    Raises `ValueError` where the font has no colour bitmap of at most 128 pixels for it.
    """
    planes = []
    for backdrop in (255, 0):  # the same emoji on white and on black gives exact alpha
        image = Image.new("RGB", (176, 176), (backdrop,) * 3)
        ImageDraw.Draw(image).text((16, 16), EMOJI[name], font=font, embedded_color=True)
        planes.append(np.asarray(image))
    on_white, on_black = planes
    clear = on_white - on_black  # 255 - alpha, the same in every channel
    if (clear != clear[..., :1]).any():
        raise ValueError(f"{FONT}: the alpha of {name!r} differs between channels; expected Noto Color Emoji")
    rgba = np.concatenate([on_black, 255 - clear[..., :1]], -1)
    ys, xs = np.where(rgba[..., 3] > ALPHA_FLOOR * 255)
    if len(ys) == 0:
        raise ValueError(f"{FONT} has no colour bitmap for {name!r}; expected Noto Color Emoji")
    rgba = rgba[ys.min() : ys.max() + 1, xs.min() : xs.max() + 1]
    height, width = rgba.shape[:2]
    if max(height, width) > GLYPH_SIDE:
        raise ValueError(f"{FONT}: {name!r} is {width}x{height}; expected at most {GLYPH_SIDE} pixels a side")
    top, left = (GLYPH_SIDE - height) // 2, (GLYPH_SIDE - width) // 2
    square = np.zeros((GLYPH_SIDE, GLYPH_SIDE, 4), np.uint8)
    square[top : top + height, left : left + width] = rgba
    return square


def main() -> None:
    if len(sys.argv) != 2:
        sys.exit(f"usage: {sys.argv[0]} GLYPHS_NPZ")
    if not FONT.exists():
        sys.exit(f"no font at {FONT}: install fonts-noto-color-emoji, or set EMOJI_FONT to NotoColorEmoji.ttf")
    font = ImageFont.truetype(FONT, FONT_STRIKE)
    np.savez_compressed(sys.argv[1], names=np.array(NAMES), bitmaps=np.stack([bitmap(name, font) for name in NAMES]))


if __name__ == "__main__":
    main()
