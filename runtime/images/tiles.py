"""Large inputs in overlapping tiles of one size, blended so that no seam shows."""

from __future__ import annotations

import math
from collections.abc import Callable
from itertools import product

import numpy as np
from numpy.typing import NDArray

from ..bundles.spec import AxisRange

Array = NDArray[np.float32]

#: The share of a tile that it has in common with the next one, where nobody asks for another.
TILE_OVERLAP = 0.25


def tile_side(side: int, allowed: AxisRange) -> int:
    """How long the tiles along a side are: as the side, or as the engine is tuned for where that is too long for it."""
    return side if side <= allowed.max else allowed.opt


def in_tiles(
    run: Callable[[Array], Array], values: Array, tile: tuple[int, int], overlap: float, scale: int, stride: int = 1
) -> Array:
    """``run(values)`` for a network that maps ``[n, C, stride*h, stride*w]`` to ``[n, D, scale*h, scale*w]``, by tiles.

    All tiles have one size, which is what a compiled engine likes best, so neighbours have at least the share
    ``overlap`` in common. There the weight of one rises linearly while that of the other falls.

    Args:
        tile: (height, width) of the tiles in h and w; a side not longer than that is not divided.
    """
    height, width = values.shape[2] // stride, values.shape[3] // stride
    tile = min(tile[0], height), min(tile[1], width)
    if tile == (height, width):
        return run(values)
    rows, columns = starts(height, tile[0], overlap), starts(width, tile[1], overlap)
    row_weights, column_weights = weights(rows, tile[0], scale), weights(columns, tile[1], scale)
    blended: Array | None = None
    for (i, top), (j, left) in product(enumerate(rows), enumerate(columns)):
        rows_seen = slice(stride * top, stride * (top + tile[0]))
        columns_seen = slice(stride * left, stride * (left + tile[1]))
        part = run(np.ascontiguousarray(values[:, :, rows_seen, columns_seen]))
        if blended is None:
            blended = np.zeros((*part.shape[:2], scale * height, scale * width), np.float32)
        area = blended[:, :, scale * top : scale * (top + tile[0]), scale * left : scale * (left + tile[1])]
        area += part * row_weights[i][:, None] * column_weights[j]
    assert blended is not None
    return blended


def starts(size: int, tile: int, overlap: float) -> list[int]:
    """Where the tiles along a side begin: evenly spread from border to border, as few as the overlap allows."""
    step = max(1, math.floor(tile * (1 - overlap)))
    count = 1 + math.ceil((size - tile) / step)
    return [round(i * (size - tile) / max(1, count - 1)) for i in range(count)]


def weights(begins: list[int], tile: int, scale: int) -> list[Array]:
    """``[scale * tile]`` for every tile along a side: a linear ramp over each overlap; the weights of a pixel add to 1.

    Where three tiles meet, which an overlap of a half allows, the middle one's ramps multiply.
    """
    position = np.arange(scale * tile) + 0.5
    shares = []
    for i, begin in enumerate(begins):
        share = np.ones(scale * tile)
        before = scale * (begins[i - 1] + tile - begin) if i > 0 else 0
        after = scale * (begin + tile - begins[i + 1]) if i + 1 < len(begins) else 0
        if before:
            share *= np.clip(position / before, 0, 1)
        if after:
            share *= np.clip((scale * tile - position) / after, 0, 1)
        shares.append(share)
    total = np.zeros(scale * (begins[-1] + tile))
    for begin, share in zip(begins, shares, strict=True):
        total[scale * begin :][: scale * tile] += share
    return [
        (share / total[scale * begin :][: scale * tile]).astype(np.float32)
        for begin, share in zip(begins, shares, strict=True)
    ]
