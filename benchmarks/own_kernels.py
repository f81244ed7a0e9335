"""LatentRT's kernels one by one: the bytes that each must move, and a launch of it to be timed.

At the size of one picture a launch takes its latency and little else, and what it moves stays in the GPU's cache; with
many pictures at once the memory decides.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass, fields
from typing import Any

import numpy as np
import torch

from ..kernels.gpu.denoise_step import denoise_step
from ..kernels.gpu.guidance_statistics import guidance_statistics
from ..kernels.gpu.image_from_decoded import image_from_decoded
from ..kernels.gpu.pack_rows import pack_rows
from ..kernels.gpu.philox_normal import philox_normal
from ..kernels.gpu.pixels_from_image import pixels_from_image
from ..kernels.slots import Route, Slots, empty_slots
from ..kernels.table_rows import COLUMNS, DRAWS, Column, NextRows
from .gpu_clock import RUNS_OF_ALL

_SCALE = 8  # pixels of a side for one of the latents
_HALF, _SINGLE = 2, 4  # bytes
_EXTRA_CHANNELS = 5  # of an inpainting model: a mask and the masked picture


@dataclass(frozen=True)
class Launch:
    """A kernel at one size: ``bytes`` read and written once."""

    kernel: str
    shape: str
    bytes: int
    run: Callable[[], None]


def launches(device: str, images: int, channels: int, height: int, width: int) -> Iterator[Launch]:
    """Every kernel in fp16 for that many pictures with latents ``[channels, height, width]``; each makes its own
    tensors, so what the last one needed can be freed before the next."""
    elements, pixels = channels * height * width, _SCALE**2 * height * width
    latents, picture = f"{images}x{channels}x{height}x{width}", f"{images}x3x{_SCALE * height}x{_SCALE * width}"
    for kernel, rescale in (("denoise_step", 0.0), ("guidance_statistics", 0.7)):
        slots, routes, outputs, sample, timesteps = _slots(device, images, channels, height * width, rescale)
        if kernel == "denoise_step":
            # The state twice, two rows in, two rows out, an older stored output, the newest one.
            moved = 2 * _SINGLE + 2 * _HALF + 2 * _HALF + 2 * _SINGLE
            run = _call(denoise_step, slots, routes, outputs, sample, timesteps)
        else:
            moved = 2 * _HALF
            run = _call(guidance_statistics, slots, routes, outputs)
        yield Launch(kernel, latents, moved * images * elements, run)
    noise = torch.zeros(images, DRAWS, elements, device=device)
    seeds, draws = torch.arange(images, device=device), torch.zeros(images, dtype=torch.int32, device=device)
    yield Launch("philox_normal", latents, _SINGLE * images * elements, _call(philox_normal, noise, seeds, draws))
    extra = torch.zeros(images, _EXTRA_CHANNELS * height * width, device=device)
    sample = torch.zeros(images, elements + extra.shape[1], dtype=torch.float16, device=device)
    sources = torch.arange(images, dtype=torch.int32, device=device)
    moved = (_SINGLE + _HALF) * extra.numel()
    yield Launch("pack_rows", latents, moved, _call(pack_rows, extra, sources, sample, elements))
    decoded = torch.zeros(images, 3, _SCALE * height, _SCALE * width, dtype=torch.float16, device=device)
    image = torch.zeros(images, _SCALE * height, _SCALE * width, 3, dtype=torch.uint8, device=device)
    moved = 3 * (1 + _HALF) * images * pixels
    yield Launch("image_from_decoded", picture, moved, _call(image_from_decoded, decoded, image))
    yield Launch("pixels_from_image", picture, moved, _call(pixels_from_image, image, decoded))


def _slots(device: str, images: int, channels: int, area: int, rescale: float) -> tuple[Any, ...]:
    """Slots of guided DPM-Solver++ 2M, all of whose rows are the same: each launch goes on to the next one."""
    row = np.zeros(COLUMNS, np.float32)
    row[[Column.ACTIVE, Column.KEEPS_STORED, Column.NEXT_INPUT_SCALE]] = 1
    row[[Column.CONDITIONAL_WEIGHT, Column.UNCONDITIONAL_WEIGHT, Column.STATE_TO_STORED]] = 0.5, -0.4, 0.1
    row[[Column.STATE_WEIGHT, Column.HISTORY_WEIGHTS, Column.HISTORY_WEIGHTS + 1]] = 0.5, 0.3, 0.2
    row[[Column.GUIDANCE, Column.GUIDANCE_RESCALE]] = 5, rescale
    row[[Column.NEXT_ROWS, Column.NEXT_DRAW]] = NextRows.CONDITIONAL | NextRows.UNCONDITIONAL, -1
    on_host = empty_slots(images, channels * area, area, np.tile(row, (RUNS_OF_ALL + 1, 1)))
    slots: Slots[Any] = Slots(
        **{field.name: torch.from_numpy(getattr(on_host, field.name)).to(device) for field in fields(Slots)}
    )
    routes = np.full((images, len(Route)), -1, np.int32)
    routes[:, Route.SLOT] = np.arange(images)
    routes[:, [Route.CONDITIONAL_OUTPUT, Route.CONDITIONAL_INPUT]] = np.arange(images)[:, None]
    routes[:, [Route.UNCONDITIONAL_OUTPUT, Route.UNCONDITIONAL_INPUT]] = images + np.arange(images)[:, None]
    routes[:, [Route.THIRD_OUTPUT, Route.THIRD_INPUT]] = 0
    outputs, sample = (torch.ones(2 * images, channels * area, dtype=torch.float16, device=device) for _ in range(2))
    return slots, torch.from_numpy(routes).to(device), outputs, sample, torch.zeros(2 * images, device=device)


def _call(function: Callable[..., None], *arguments: Any) -> Callable[[], None]:
    return lambda: function(*arguments)
