"""Denoisers that take more than the noisy latents, made to look like those that do not.

The loop runs unconditional and conditional rows of ``sample`` and knows of one guidance, m = u + g (c - u). Each
function here takes what runs a denoiser and gives what the loop may run in its place.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np
from numpy.typing import NDArray

from .denoise import RunDenoiser
from .request import SkipLayers
from .samplers import SamplerTable

Array = NDArray[np.float32]


def with_extra_channels(run: RunDenoiser, extra: Array) -> RunDenoiser:
    """Append ``extra [images, E, h, w]`` to the channels of every row's ``sample``: a mask, a masked picture, depth."""
    samples: dict[int, Array] = {}  # by rows; the appended channels are written once

    def call(inputs: Mapping[str, NDArray[Any]]) -> Mapping[str, NDArray[Any]]:
        latents = inputs["sample"]
        rows, channels = latents.shape[:2]
        if rows not in samples:
            samples[rows] = np.concatenate([latents, np.tile(extra, (rows // len(extra), 1, 1, 1))], axis=1)
        sample = samples[rows]
        sample[:, :channels] = latents
        return run({**inputs, "sample": sample})

    return call


def with_image_guidance(run: RunDenoiser, image_latents: Array, image_guidance_scale: float) -> RunDenoiser:
    """InstructPix2Pix (Brooks et al. 2023, arXiv:2211.09800, equation 3) for ``image_latents [images, C, h, w]``.

    Its two guidances, m = u + s (i - u) + g (c - i), need a third row, i: the picture without the prompt. With
    u' = u + s (i - u) and c' = u' + c - i that is m = u' + g (c' - u').
    """
    images = len(image_latents)
    nothing = np.zeros_like(image_latents)

    def call(inputs: Mapping[str, NDArray[Any]]) -> Mapping[str, NDArray[Any]]:
        if len(inputs["sample"]) == images:
            return run({**inputs, "sample": np.concatenate([inputs["sample"], image_latents], axis=1)})
        three = {name: np.concatenate([value[:images], value]) for name, value in inputs.items()}
        condition = np.concatenate([nothing, image_latents, image_latents])
        three["sample"] = np.concatenate([three["sample"], condition], axis=1)
        u, i, c = np.split(run(three)["model_output"], 3)
        without_prompt = u + np.float32(image_guidance_scale) * (i - u)
        return {"model_output": np.concatenate([without_prompt, without_prompt + c - i])}

    return call


def with_skipped_layers(run: RunDenoiser, scales: list[float], images: int) -> RunDenoiser:
    """Skip-layer guidance: m + s (c - k), where k is the conditional row without some of the denoiser's layers.

    ``scales`` has one number for each evaluation; at 0 the third row is not run. Adding s (c - k) to both rows is
    adding it to m.
    """
    remaining = iter(scales)

    def call(inputs: Mapping[str, NDArray[Any]]) -> Mapping[str, NDArray[Any]]:
        rows, scale = len(inputs["sample"]), next(remaining)
        skip = np.zeros(rows, np.float32)
        if scale == 0:
            return run({**inputs, "skip_layers": skip})
        more = {name: np.concatenate([value, value[-images:]]) for name, value in inputs.items()}
        more["skip_layers"] = np.concatenate([skip, np.ones(images, np.float32)])
        outputs = run(more)["model_output"]
        away = np.float32(scale) * (outputs[rows - images : rows] - outputs[rows:])
        return {"model_output": outputs[:rows] + np.tile(away, (rows // images, 1, 1, 1))}

    return call


def skip_scales(skip: SkipLayers | None, table: SamplerTable) -> list[float]:
    """The scale of skip-layer guidance at each evaluation: 0 outside the steps between its start and stop."""
    if skip is None:
        return [0.0] * table.evaluations
    start, stop = skip.start * table.steps_run, skip.stop * table.steps_run
    return [skip.scale if start < step < stop else 0.0 for step in table.step.tolist()]
