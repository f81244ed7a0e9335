"""The kernels in numpy: the oracle that every compiled kernel is tested against, and the implementation on the host."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

Array = NDArray[np.float32]

#: Elements that one pass of ``denoise_step`` works on: 256 KB of each register, so that the two or three that an
#: operation needs are in a core's second-level cache, and memory is read and written once, not once per operation.
#: Smaller blocks lose more to the number of calls than they gain.
BLOCK = 1 << 16


@dataclass(frozen=True)
class StepWeights:
    """The numbers of one evaluation: a row of a sampler's table, and the input scale of the next evaluation."""

    guidance: float
    state_to_stored: float
    output_to_stored: float
    state_weight: float
    history_weights: tuple[float, ...]
    noise_weights: tuple[float, ...]
    next_input_scale: float


def denoise_step(
    x: Array,
    outputs: Array,
    history: list[Array],
    noises: Sequence[Array],
    model_input: Array,
    weights: StepWeights,
) -> None:
    """One evaluation of any sampler, and the next model input, in place::

        m = u + guidance * (c - u)
        d = state_to_stored * x + output_to_stored * m
        x = state_weight * x + sum_j history_weights[j] * d_j + sum_j noise_weights[j] * noises[j]
        model_input = next_input_scale * x, for every row

    Guidance is classifier-free guidance (Ho & Salimans 2022, arXiv:2207.12598).

    Args:
        x: the state ``[images, C, h, w]``; updated.
        outputs: ``[images, ...]``, or ``[2 * images, ...]``: the unconditional rows, then the conditional ones.
        history: the stored outputs, newest first. The last array is reused for ``d`` and moves to the front; where it
            is the only one, so that nobody reads ``d`` later, what it holds afterwards is undefined.
        noises: the draws, newest first.
        model_input: ``[images, ...]`` or ``[2 * images, ...]``; written.
        weights: the numbers of the update.

    All arrays are C-contiguous; those that are written have to be.
    """
    assert x.flags.c_contiguous
    assert model_input.flags.c_contiguous
    history.insert(0, history.pop())
    images = len(x)
    halves = [outputs[i : i + images] for i in range(0, len(outputs), images)]
    inputs = [model_input[i : i + images] for i in range(0, len(model_input), images)]
    if x.size <= BLOCK:
        _update(x, halves, history, noises, inputs, weights)
        return
    flat = x.reshape(-1)
    flat_outputs, flat_history, flat_noises, flat_inputs = (
        [array.reshape(-1) for array in group] for group in (halves, history, noises, inputs)
    )
    newest, *older = flat_history
    for start in range(0, x.size, BLOCK):
        part = slice(start, start + BLOCK)
        block = flat[part]
        # A history of one is read by no later evaluation: its first block serves all of them, and stays in the cache.
        stored = newest[part] if older else newest[: block.size]
        _update(
            block,
            [array[part] for array in flat_outputs],
            [stored, *(array[part] for array in older)],
            [array[part] for array in flat_noises],
            [array[part] for array in flat_inputs],
            weights,
        )


def _update(
    x: Array,
    outputs: Sequence[Array],
    history: Sequence[Array],
    noises: Sequence[Array],
    inputs: Sequence[Array],
    weights: StepWeights,
) -> None:
    """``denoise_step`` on one block; with guidance folded into the conversion, two products are saved."""
    stored, first = history[0], inputs[0]
    scratch = first  # the next input is written last; until then it holds products
    factor, guidance = weights.output_to_stored, weights.guidance
    if len(outputs) == 2:
        np.multiply(outputs[1], factor * guidance, stored)
        _add(stored, factor * (1 - guidance), outputs[0], scratch)
    else:
        np.multiply(outputs[0], factor, stored)
    _add(stored, weights.state_to_stored, x, scratch)
    if weights.state_weight != 1:
        np.multiply(x, weights.state_weight, x)
    for weight, values in zip(weights.history_weights, history, strict=False):
        _add(x, weight, values, scratch)
    for weight, values in zip(weights.noise_weights, noises, strict=False):
        _add(x, weight, values, scratch)
    if weights.next_input_scale == 1:
        np.copyto(first, x)
    else:
        np.multiply(x, weights.next_input_scale, first)
    for rows in inputs[1:]:
        np.copyto(rows, first)


def _add(total: Array, weight: float, values: Array, scratch: Array) -> None:
    """``total += weight * values``; in tables many weights are 0 or 1."""
    if weight == 1:
        np.add(total, values, total)
    elif weight != 0:
        np.multiply(values, weight, scratch)
        np.add(total, scratch, total)


def image_from_decoded(decoded: Array) -> Array:
    """The decoder's ``[images, 3, H, W]`` in -1..1 as pictures ``[images, H, W, 3]`` in 0..1, clipped."""
    picture: Array = decoded.transpose(0, 2, 3, 1) * np.float32(0.5)  # [images, H, W, 3]
    picture += np.float32(0.5)
    return np.clip(picture, 0, 1, out=picture)


def bytes_from_image(picture: Array) -> NDArray[np.uint8]:
    """Pictures in 0..1 as bytes, rounded to the nearest."""
    scaled = picture * np.float32(255)
    return np.round(scaled, out=scaled).astype(np.uint8)
