"""What engines are given, of what the host has, in numpy."""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray

Array = NDArray[np.float32]


def pixels_from_image(image: NDArray[np.uint8]) -> Array:
    """Pictures in bytes ``[images, H, W, 3]`` as the encoder's ``[images, 3, H, W]`` in -1..1."""
    values = image.transpose(0, 3, 1, 2).astype(np.float32) / np.float32(255)  # [images, 3, H, W]
    return np.ascontiguousarray(values * np.float32(2) - np.float32(1))


def pack_rows(extra: Array, sources: NDArray[np.int32], model_input: NDArray[Any], first: int) -> None:
    """Write channels into every row of ``model_input [rows, row elements]`` from element ``first`` on, in its dtype.

    ``extra`` is float32 ``[images, elements]``; ``sources``, int32 ``[rows]``, says of which image, -1 for zeros.
    """
    target = model_input[:, first : first + extra.shape[1]]
    target[...] = np.where(sources[:, None] >= 0, extra[sources], 0)
