"""The kernels in numpy: the oracle that every compiled kernel is tested against, and the implementation on the host."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray

Array = NDArray[np.float32]


def guide(outputs: Array, images: int, guidance: float) -> Array:
    """Classifier-free guidance (Ho & Salimans 2022, arXiv:2207.12598): ``u + guidance * (c - u)``.

    ``outputs [rows, C, h, w]`` holds the unconditional rows, then the conditional ones; with one row per image there is
    nothing to combine and the outputs are returned as they are. Returns ``[images, C, h, w]``.
    """
    if len(outputs) == images:
        return outputs
    unconditional, conditional = outputs[:images], outputs[images:]
    combined: Array = conditional - unconditional
    combined *= guidance
    combined += unconditional
    return combined


def denoise_step(
    x: Array,
    output: Array,
    history: list[Array],
    noises: Sequence[Array],
    *,
    state_to_stored: float,
    output_to_stored: float,
    state_weight: float,
    history_weights: Sequence[float],
    noise_weights: Sequence[float],
) -> None:
    """One evaluation of any sampler, in place::

        d = state_to_stored * x + output_to_stored * output
        x = state_weight * x + sum_j history_weights[j] * d_j + sum_j noise_weights[j] * noises[j]

    ``x`` and ``output`` are ``[images, C, h, w]``. ``history`` holds the stored outputs, newest first: its last array
    is reused for ``d`` and moves to the front. ``noises`` holds the draws, newest first.
    """
    history.insert(0, history.pop())
    stored = history[0]
    np.multiply(output, output_to_stored, out=stored)
    if state_to_stored != 0:
        stored += state_to_stored * x
    if state_weight != 1:
        np.multiply(x, state_weight, out=x)
    for weight, values in zip((*history_weights, *noise_weights), (*history, *noises), strict=False):
        if weight != 0:
            x += weight * values


def image_from_decoded(decoded: Array) -> Array:
    """The decoder's ``[images, 3, H, W]`` in -1..1 as pictures ``[images, H, W, 3]`` in 0..1, clipped."""
    picture: Array = decoded.transpose(0, 2, 3, 1) * np.float32(0.5)  # [images, H, W, 3]
    picture += np.float32(0.5)
    return np.clip(picture, 0, 1, out=picture)


def bytes_from_image(picture: Array) -> NDArray[np.uint8]:
    """Pictures in 0..1 as bytes, rounded to the nearest."""
    scaled = picture * np.float32(255)
    return np.round(scaled, out=scaled).astype(np.uint8)
