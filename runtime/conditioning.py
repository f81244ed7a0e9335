"""From a request's texts and sizes to the denoiser's rows.

Rows are laid out as in diffusers: under classifier-free guidance the unconditional rows of all images, then their
conditional rows; otherwise the conditional rows alone. So the conditional rows are always the last ``images`` rows.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from .manifest import Manifest, TextEncoding
from .request import Request, SizeConditioning

Array = NDArray[np.float32]


@dataclass(frozen=True)
class TextStates:
    """Encoded texts: ``hidden_states [texts, 77, D]`` and, if an encoder gives one, ``pooled [texts, P]``."""

    hidden_states: Array
    pooled: Array | None


#: Runs one text encoder on ``input_ids [texts, 77]``.
RunEncoder = Callable[[TextEncoding, NDArray[np.int64]], Mapping[str, NDArray[Any]]]


def unique_texts(request: Request, *, zero_omitted: bool) -> list[str]:
    """The texts to encode, each once. An omitted negative prompt is ``""`` unless the checkpoint wants zeros."""
    texts = dict.fromkeys(request.prompts)
    if request.guided:
        for negative in request.negative_prompts:
            if negative is not None or not zero_omitted:
                texts.setdefault(negative or "")
    return list(texts)


def encode_texts(manifest: Manifest, ids: Sequence[NDArray[np.int64]], run: RunEncoder) -> TextStates:
    """Run every text encoder; their hidden states are joined along the last axis, in the manifest's order."""
    states, pooled = [], None
    for encoding, tokens in zip(manifest.text_encodings, ids, strict=True):
        outputs = run(encoding, tokens)
        states.append(outputs[encoding.hidden_states])
        if encoding.pooled is not None:
            pooled = outputs[encoding.pooled]
    return TextStates(np.concatenate(states, axis=-1) if len(states) > 1 else states[0], pooled)


def conditioning_rows(
    manifest: Manifest, request: Request, texts: Sequence[str], states: TextStates
) -> dict[str, NDArray[Any]]:
    """The denoiser inputs that stay the same over a run, each ``[rows, ...]``."""
    zero_omitted = manifest.force_zeros_for_empty_prompt
    rows: list[str | None] = list(request.prompts)
    sizes = [request.positive_size] * request.images
    if request.guided:
        rows = [None if text is None and zero_omitted else text or "" for text in request.negative_prompts] + rows
        sizes = [request.negative_size] * request.images + sizes
    index = np.array([len(texts) if text is None else texts.index(text) for text in rows])
    inputs: dict[str, NDArray[Any]] = {"encoder_hidden_states": _take_or_zero(states.hidden_states, index)}
    if states.pooled is not None:
        inputs["text_embeds"] = _take_or_zero(states.pooled, index)
    if manifest.time_ids:
        inputs["time_ids"] = np.array([time_ids(manifest.time_ids, size) for size in sizes], np.float32)
    return inputs


def time_ids(names: Sequence[str], size: SizeConditioning) -> list[int]:
    """SDXL's size conditioning (arXiv:2307.01952, section 2.2) of one row: the named pairs, one after another."""
    return [value for name in names for value in getattr(size, name)]


def _take_or_zero(values: Array, index: NDArray[np.int64]) -> Array:
    """``values[index]``, where an index one past the end gives zeros."""
    taken: Array = values[np.minimum(index, len(values) - 1)]
    taken[index == len(values)] = 0
    return taken
