"""The noise that steps add: drawn on the host and brought to the device, or made there."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import partial

import numpy as np
from numpy.typing import NDArray

from ..samplers import SamplerTable
from .brownian import BrownianNoise
from .philox import PhiloxNoise
from .torch_cpu import NoiseSource

Array = NDArray[np.float32]
#: One image's draw of that number, ``[C, h, w]``.
DrawNoise = Callable[[int], Array]


@dataclass(frozen=True)
class StepNoise:
    """Where the draws of each image come from: ``draw`` on the host, or else the device, by ``seeds``.

    ``first_draw`` is how many tensors of the latents' size were drawn of those streams before.
    """

    draw: Sequence[DrawNoise] = ()
    seeds: Sequence[int] = ()
    first_draw: int = 0


def step_noise(
    table: SamplerTable, seeds: Sequence[int], streams: Sequence[NoiseSource], shape: Sequence[int]
) -> StepNoise:
    """What the images' ``[C, h, w]`` draws come from: their streams, or the increments of their seeds' Brownian paths.

    A GPU's streams go on behind what the table draws of them.
    """
    if table.noise == "brownian":
        paths = [BrownianNoise(seed, shape, *table.noise_range) for seed in seeds]
        return StepNoise([partial(_increment, path, table) for path in paths])
    on_device = [stream for stream in streams if isinstance(stream, PhiloxNoise)]
    if not on_device:
        return StepNoise([partial(_next, stream, shape) for stream in streams])
    draws = int(table.draws_noise.sum())
    (first,) = {stream.skip(shape, draws) for stream in on_device}  # all images draw alike
    return StepNoise(seeds=seeds, first_draw=first)


def _increment(path: BrownianNoise, table: SamplerTable, draw: int) -> Array:
    return path.increment(*table.noise_sigmas[draw].tolist())


def _next(stream: NoiseSource, shape: Sequence[int], draw: int) -> Array:
    return stream.randn(shape)
