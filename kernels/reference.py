"""Pictures of decoded latents, in numpy: the oracle that the compiled kernel is tested against, and what runs on the
host."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

Array = NDArray[np.float32]


def image_from_decoded(decoded: Array) -> Array:
    """The decoder's ``[images, 3, H, W]`` in -1..1 as pictures ``[images, H, W, 3]`` in 0..1, clipped."""
    picture: Array = decoded.transpose(0, 2, 3, 1) * np.float32(0.5)  # [images, H, W, 3]
    picture += np.float32(0.5)
    return np.clip(picture, 0, 1, out=picture)


def bytes_from_image(picture: Array) -> NDArray[np.uint8]:
    """Pictures in 0..1 as bytes, rounded to the nearest."""
    scaled = picture * np.float32(255)
    return np.round(scaled, out=scaled).astype(np.uint8)
