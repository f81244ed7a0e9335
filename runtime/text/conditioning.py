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

from ..bundles.manifest import Manifest, TextEncoding
from ..errors import RequestError
from ..requests.prompts import Texts
from ..requests.request import Request
from ..requests.size_conditioning import SizeConditioning

Array = NDArray[np.float32]


@dataclass(frozen=True)
class TextStates:
    """Encoded texts: ``hidden_states [texts, tokens, D]`` and, if encoders give one, ``pooled [texts, P]``."""

    hidden_states: Array
    pooled: Array | None


#: The outputs of one text encoder for ``input_ids [texts, tokens]``.
Encode = Callable[[TextEncoding, NDArray[np.int64]], Mapping[str, NDArray[Any]]]


def unique_texts(request: Request, *, zero_omitted: bool) -> list[Texts]:
    """The texts to encode, each once. An omitted negative prompt is ``""`` unless the checkpoint wants zeros."""
    return [texts for texts in dict.fromkeys(_texts_of_rows(request, zero_omitted)) if texts is not None]


def encode_texts(manifest: Manifest, ids: Mapping[str, NDArray[np.int64]], encode: Encode) -> TextStates:
    """Run every text encoder that the bundle has, on its ids ``[texts, tokens]``, and join what they give.

    ``TextEncoding`` says how; an encoder that the bundle was built without gives zeros.
    """
    texts = len(next(iter(ids.values())))
    segments: dict[int, list[Array]] = {}
    pooled = []
    for encoding in manifest.text_encodings:
        if encoding.tokenizer is None:
            absent = np.zeros((texts, encoding.tokens, manifest.text_width), np.float32)
            segments.setdefault(encoding.segment, []).append(absent)
            continue
        outputs = encode(encoding, ids[encoding.component])
        segments.setdefault(encoding.segment, []).append(outputs[encoding.hidden_states])
        if encoding.pooled is not None:
            pooled.append(outputs[encoding.pooled])
    joined = [_widened(_joined(segments[number], axis=-1), manifest.text_width) for number in sorted(segments)]
    return TextStates(_joined(joined, axis=1), _joined(pooled, axis=-1) if pooled else None)


def conditioning_rows(
    manifest: Manifest, request: Request, texts: Sequence[Texts], states: TextStates
) -> dict[str, NDArray[Any]]:
    """The denoiser inputs that stay the same over a run, each ``[rows, ...]``."""
    rows = _texts_of_rows(request, manifest.force_zeros_for_empty_prompt)
    sizes = [request.negative_size] * (len(rows) - request.images) + [request.positive_size] * request.images
    index = np.array([len(texts) if row is None else texts.index(row) for row in rows])
    conditioning = manifest.conditioning
    inputs: dict[str, NDArray[Any]] = {"encoder_hidden_states": _take_or_zero(states.hidden_states, index)}
    if conditioning.pooled is not None and states.pooled is not None:
        inputs[conditioning.pooled] = _take_or_zero(states.pooled, index)
    if conditioning.time_ids:
        inputs["time_ids"] = np.array([time_ids(conditioning.time_ids, size) for size in sizes], np.float32)
    if conditioning.guidance_embedding:
        width = next(spec.shape[1] for spec in manifest.components["denoiser"].inputs if spec.name == "timestep_cond")
        inputs["timestep_cond"] = np.tile(guidance_embedding(_one(request.guidance.scale), int(width)), (len(rows), 1))
    return inputs


def time_ids(names: Sequence[str], size: SizeConditioning) -> list[float]:
    """The size conditioning (arXiv:2307.01952, section 2.2) of one row: the named pairs and scores, in order."""
    values: list[float] = []
    for name in names:
        value = getattr(size, name)
        values += value if isinstance(value, tuple) else [value]
    return values


def guidance_embedding(guidance_scale: float, width: int) -> Array:
    """``[width]``: sinusoids of the guidance scale, for a denoiser that was distilled to apply it by itself.

    Luo et al. 2023 (arXiv:2310.04378), section 4.3, with the frequencies of the timestep embedding of VDM, as in
    diffusers' ``get_guidance_scale_embedding``: a scale of 1 is no guidance, and embedded as 0.
    """
    half = width // 2
    frequencies = np.exp(np.arange(half, dtype=np.float32) * np.float32(-np.log(np.float32(10000)) / (half - 1)))
    angles = np.float32((guidance_scale - 1) * 1000) * frequencies
    embedding = np.zeros(width, np.float32)  # an odd width has a zero at its end
    embedding[: 2 * half] = np.concatenate([np.sin(angles), np.cos(angles)])
    return embedding


def _texts_of_rows(request: Request, zero_omitted: bool) -> list[Texts | None]:
    """What every row is conditioned on; None is zeros."""
    rows: list[Texts | None] = list(request.prompts)
    if not request.guidance.guided:
        return rows
    omitted = None if zero_omitted else ("",) * len(request.prompts[0])
    return [omitted if texts is None else texts for texts in request.negative_prompts] + rows


def _one(guidance_scale: float | tuple[float, ...]) -> float:
    if isinstance(guidance_scale, tuple):
        raise RequestError(
            "guidance_scale",
            received=f"{len(guidance_scale)} scales",
            expected="one for the whole run: this model was distilled to apply it by itself",
        )
    return guidance_scale


def _joined(parts: Sequence[Array], axis: int) -> Array:
    return np.concatenate(parts, axis=axis) if len(parts) > 1 else parts[0]


def _widened(states: Array, width: int) -> Array:
    """``[texts, tokens, D]`` with zeros behind up to ``width``."""
    missing = width - states.shape[-1]
    return np.pad(states, ((0, 0), (0, 0), (0, missing))) if missing else states


def _take_or_zero(values: Array, index: NDArray[np.int64]) -> Array:
    """``values[index]``, where an index one past the end gives zeros."""
    taken: Array = values[np.minimum(index, len(values) - 1)]
    taken[index == len(values)] = 0
    return taken
