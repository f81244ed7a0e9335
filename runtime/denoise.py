"""The denoising loop: a generator that yields after every inference step, so that progress, previews, timing and early
stop belong to whoever iterates.
"""

from __future__ import annotations

from collections.abc import Callable, Generator, Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from typing import Any

import numpy as np
from numpy.typing import NDArray

from ..kernels.reference import StepWeights, denoise_step
from .noise import NoiseSource
from .noise_brownian import BrownianNoise
from .samplers import SamplerTable

Array = NDArray[np.float32]
DrawNoise = Callable[[int], Array]
RunDenoiser = Callable[[Mapping[str, NDArray[Any]]], Mapping[str, NDArray[Any]]]


@dataclass(frozen=True)
class DenoiseStep:
    """The state after one inference step.

    ``latents [images, C, h, w]`` is the loop's own array, which changes with the next step: copy it to keep it, and
    send other latents to the generator to go on from those. ``timestep`` is that of the step just done. ``denoised()``
    gives the latents without their noise, as far as the model can tell now: a new array.
    """

    index: int
    steps: int
    timestep: float
    latents: Array
    denoised: Callable[[], Array]


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
) -> Generator[DenoiseStep, Array | None, None]:
    """Run a sampler's table. Sending latents to the generator replaces those of the step that it just gave.

    Args:
        run: the denoiser engine.
        rows: the inputs that stay the same, ``[rows, ...]``, conditional rows last (see ``conditioning``).
        table: the sampler and schedule; evaluations whose guidance is 1 run the conditional rows only.
        latents: the first state ``[images, C, h, w]``; updated in place.
        noise: one per image, for samplers that add noise; called with the number of the draw.
    """
    images, rows_given = len(latents), len(rows["encoder_hidden_states"])
    conditional = {name: value[-images:] for name, value in rows.items()}
    # The rows that each evaluation runs; the last entry is that of the input nobody will ask for.
    row_counts = [rows_given if guidance != 1 else images for guidance in table.guidance.tolist()] + [images]
    scales = [*table.input_scale.tolist(), 1.0]
    history = [np.empty_like(latents) for _ in range(table.history_weights.shape[1])]
    draws: list[Array] = []
    drawn = 0
    model_input = np.empty((rows_given, *latents.shape[1:]), np.float32)
    _scale_into(model_input[: row_counts[0]], latents, scales[0])
    for k in range(table.evaluations):
        count = row_counts[k]
        timestep = np.full(count, table.timesteps[k], np.float32)
        outputs = run(
            {"sample": model_input[:count], "timestep": timestep, **(conditional if count == images else rows)}
        )
        if table.draws_noise[k]:
            newest = np.stack([draw(drawn) for draw in noise])
            draws = [newest, *draws][: table.noise_weights.shape[1]]
            drawn += 1
        weights = StepWeights(
            guidance=float(table.guidance[k]),
            state_to_stored=float(table.state_to_stored[k]),
            output_to_stored=float(table.output_to_stored[k]),
            state_weight=float(table.state_weight[k]),
            history_weights=tuple(table.history_weights[k].tolist()),
            noise_weights=tuple(table.noise_weights[k].tolist()),
            next_input_scale=scales[k + 1],
        )
        denoise_step(latents, outputs["model_output"], history, draws, model_input[: row_counts[k + 1]], weights)
        step = int(table.step[k])
        if k + 1 == table.evaluations or table.step[k + 1] != step:
            estimate = partial(without_noise, table, k, latents, outputs["model_output"])
            replacement = yield DenoiseStep(step, table.steps_run, float(table.timesteps[k]), latents, estimate)
            if replacement is not None:
                latents[...] = replacement
                _scale_into(model_input[: row_counts[k + 1]], latents, scales[k + 1])


def without_noise(table: SamplerTable, evaluation: int, latents: Array, outputs: Array) -> Array:
    """The clean latents that fit both the state after an evaluation and what the model predicted in it.

    Two equations for x0 and eps: x = state_signal x0 + state_noise eps, m = output_signal x0 + output_noise eps. They
    are exact for a deterministic step of order 1; noise that the step has drawn stays.
    """
    guidance = np.float32(table.guidance[evaluation])
    conditional, unconditional = outputs[-len(latents) :], outputs[: len(latents)]
    m = unconditional + guidance * (conditional - unconditional) if len(outputs) > len(latents) else conditional
    signal, noise = float(table.state_signal[evaluation + 1]), float(table.state_noise[evaluation + 1])
    if noise == 0:
        return latents / np.float32(signal)
    of_signal, of_noise = float(table.output_signal[evaluation]), float(table.output_noise[evaluation])
    determinant = signal * of_noise - noise * of_signal
    estimate: Array = np.float32(of_noise / determinant) * latents - np.float32(noise / determinant) * m
    return estimate


def _scale_into(model_input: Array, latents: Array, scale: float) -> None:
    """Write the scaled latents into the rows of every image."""
    for i in range(0, len(model_input), len(latents)):
        np.multiply(latents, scale, out=model_input[i : i + len(latents)])
