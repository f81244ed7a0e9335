"""The denoising loop: a generator that yields after every inference step, so that progress, previews, timing and early
stop belong to whoever iterates.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from ..kernels.reference import denoise_step, guide
from .noise import NoiseSource
from .noise_brownian import BrownianNoise
from .samplers import SamplerTable

Array = NDArray[np.float32]
DrawNoise = Callable[[int], Array]
RunDenoiser = Callable[[Mapping[str, NDArray[Any]]], Mapping[str, NDArray[Any]]]


@dataclass(frozen=True)
class DenoiseStep:
    """The state after one inference step.

    ``latents [images, C, h, w]`` is the loop's own array: what is written into it is what the next step starts from,
    and it changes with the next step. ``timestep`` is that of the step just done.
    """

    index: int
    steps: int
    timestep: float
    latents: Array


def initial_latents(table: SamplerTable, noise: Array) -> Array:
    """The first state of a run from noise: unit variance scaled to the table's first noise level, a new array."""
    return np.multiply(noise, float(table.initial_noise_scale), dtype=np.float32)


def step_noise(table: SamplerTable, seed: int, source: NoiseSource, shape: Sequence[int]) -> DrawNoise:
    """What one image's ``[C, h, w]`` draws come from: its stream, or the increments of its seed's Brownian path."""
    if table.noise == "brownian":
        path = BrownianNoise(seed, shape, *table.noise_range)
        return lambda draw: path.increment(*table.noise_sigmas[draw].tolist())
    return lambda draw: source.randn(shape)


def denoise(
    run: RunDenoiser,
    rows: Mapping[str, NDArray[Any]],
    table: SamplerTable,
    latents: Array,
    noise: Sequence[DrawNoise],
) -> Iterator[DenoiseStep]:
    """Run a sampler's table.

    Args:
        run: the denoiser engine.
        rows: the inputs that stay the same, ``[rows, ...]``, conditional rows last (see ``conditioning``).
        table: the sampler and schedule; evaluations whose guidance is 1 run the conditional rows only.
        latents: the first state ``[images, C, h, w]``, as ``initial_latents`` gives it; updated in place.
        noise: one per image, for samplers that add noise; called with the number of the draw.
    """
    images = len(latents)
    row_count = len(rows["encoder_hidden_states"])
    conditional = {name: value[-images:] for name, value in rows.items()}
    history = [np.empty_like(latents) for _ in range(table.history_weights.shape[1])]
    draws: list[Array] = []
    drawn = 0
    model_input = np.empty((row_count, *latents.shape[1:]), np.float32)
    for k in range(table.evaluations):
        guidance = float(table.guidance[k])
        guided = row_count > images and guidance != 1
        sample = model_input if guided else model_input[-images:]
        np.multiply(latents, float(table.input_scale[k]), out=sample[-images:])
        if guided:
            sample[:images] = sample[images:]
        timestep = np.full(len(sample), table.timesteps[k], np.float32)
        outputs = run({"sample": sample, "timestep": timestep, **(rows if guided else conditional)})
        if table.draws_noise[k]:
            newest = np.stack([draw(drawn) for draw in noise])
            draws = [newest, *draws][: table.noise_weights.shape[1]]
            drawn += 1
        denoise_step(
            latents,
            guide(outputs["model_output"], images, guidance),
            history,
            draws,
            state_to_stored=float(table.state_to_stored[k]),
            output_to_stored=float(table.output_to_stored[k]),
            state_weight=float(table.state_weight[k]),
            history_weights=table.history_weights[k].tolist(),
            noise_weights=table.noise_weights[k].tolist(),
        )
        step = int(table.step[k])
        if k + 1 == table.evaluations or table.step[k + 1] != step:
            yield DenoiseStep(step, table.steps_run, float(table.timesteps[k]), latents)
