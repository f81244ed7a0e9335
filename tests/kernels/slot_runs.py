"""Whole runs over slots, and the same runs by their tables' definition, of a denoiser that is one line of numpy."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from typing import Any

import numpy as np
from numpy.typing import NDArray

from latentrt.kernels.philox import philox_normal
from latentrt.kernels.slots import Slots, empty_slots
from latentrt.kernels.table_rows import DRAWS, table_rows
from latentrt.runtime.loop.start import Kept
from latentrt.runtime.noise.steps import DrawNoise, step_noise
from latentrt.runtime.noise.torch_cpu import TorchCpuNoise
from latentrt.runtime.samplers import SamplerTable, build_table, model_schedule_from_config

from .random_values import values

Array = NDArray[np.float32]
StepSlots = Callable[[Slots[NDArray[Any]], NDArray[np.int32], NDArray[Any], NDArray[Any], Array], None]
#: Puts the draws that ``slots.draws`` asks for where ``slots.noise`` has them, given each slot's seed.
MakeNoise = Callable[[Slots[NDArray[Any]], NDArray[np.int64]], None]

STABLE_DIFFUSION = {
    "_class_name": "EulerDiscreteScheduler",
    "beta_start": 0.00085,
    "beta_end": 0.012,
    "beta_schedule": "scaled_linear",
    "prediction_type": "epsilon",
    "timestep_spacing": "leading",
    "steps_offset": 1,
}
SKIPPED = np.float32(0.7)  # what is left of the context without some of the denoiser's layers
MODEL = model_schedule_from_config(STABLE_DIFFUSION)


@dataclass(frozen=True)
class Run:
    """One image: its table and seed, what it keeps outside a mask, whose noise it takes, and what its third row is."""

    table: SamplerTable
    seed: int
    kept: bool = False
    rng: str = "torch-cpu"
    image_guidance_scale: float | None = None
    skip_scales: tuple[float, ...] | None = None
    guidance_rescale: float = 0.0

    @property
    def rows(self) -> Array:
        """Its rows of the table on the device."""
        return table_rows(
            self.table,
            blends=self.kept,
            image_guidance_scale=self.image_guidance_scale,
            skip_scales=self.skip_scales,
            guidance_rescale=self.guidance_rescale,
        )


def run_of(
    sampler: str, steps: int, *, guidance: float = 5.0, table: Mapping[str, Any] | None = None, **run: Any
) -> Run:
    """``table`` has options of the table, ``run`` fields of ``Run``."""
    built = build_table(sampler, None, steps, MODEL, guidance_scale=guidance, **table or {})
    return Run(built, seed=len(sampler) + steps, **run)


#: One of each kind of sampler, and of each kind of guidance.
RUNS = {
    "euler": run_of("euler", 6),
    "euler without guidance": run_of("euler", 4, guidance=1.0),
    "euler, guidance in the middle": run_of("euler", 9, table={"guidance_interval": (0.3, 0.7)}),
    "euler ancestral": run_of("euler_a", 5),
    "euler ancestral, noise of a GPU": run_of("euler_a", 5, rng="philox"),
    "ddpm": run_of("ddpm", 6),
    "heun": run_of("heun", 4),
    "lms": run_of("lms", 7),
    "pndm": run_of("pndm", 9),
    "dpm++ 2m": run_of("dpmpp_2m", 8),
    "dpm++ 2m sde": run_of("dpmpp_2m_sde", 5),
    "dpm++ 3m sde": run_of("dpmpp_3m_sde", 6),
    "dpm2 ancestral": run_of("dpm2_a", 4),
    "unipc": run_of("unipc", 7),
    "sa solver": run_of("sa_solver", 8),
    "lcm": run_of("lcm", 4, guidance=1.0),
    "image to image": run_of("dpmpp_2m", 10, table={"strength": 0.6}),
    "edit": run_of("dpmpp_2m", 6, guidance=7.5, image_guidance_scale=1.5),
    "edit, guidance in the middle": run_of(
        "euler", 6, image_guidance_scale=1.5, table={"guidance_interval": (0.3, 0.7)}
    ),
    "skipped layers": run_of("euler", 6, skip_scales=(0, 2.8, 2.8, 2.8, 0, 0)),
    "skipped layers without guidance": run_of("euler", 4, guidance=1.0, skip_scales=(0, 2.8, 2.8, 0)),
    "rescaled guidance": run_of("dpmpp_2m", 6, guidance=7.5, guidance_rescale=0.7),
    "rescaled guidance in the middle": run_of(
        "euler", 9, guidance_rescale=1.0, table={"guidance_interval": (0.3, 0.7)}
    ),
    "outside a mask": run_of("euler", 6, kept=True),
    "outside a mask, two evaluations a step": run_of("heun", 4, kept=True),
    "outside a mask, ancestral": run_of("euler_a", 5, kept=True, table={"strength": 0.7}),
}


@dataclass(frozen=True)
class Parts:
    """What a run is made of, of its seed."""

    state: Array  # [C, h, w]
    unconditional: Array  # contexts of the rows, likewise
    conditional: Array
    image: Array  # what an edit is guided by
    kept: Kept
    draw: DrawNoise


def parts_of(run: Run, shape: Sequence[int]) -> Parts:
    state = values(run.seed, *shape) * np.float32(run.table.initial_noise_scale)
    mask = (values(run.seed + 2, *shape[1:]) > 0).astype(np.float32)
    (draw,) = step_noise(run.table, [run.seed], [TorchCpuNoise(run.seed)], shape).draw
    if run.rng == "philox":
        draw = partial(_philox_draw, run.seed, shape)
    return Parts(
        state=state,
        unconditional=values(run.seed + 1, *shape),
        conditional=values(run.seed + 5, *shape),
        image=values(run.seed + 6, *shape),
        kept=Kept(values(run.seed + 3, *shape), values(run.seed + 4, *shape), mask, to_the_end=True),
        draw=draw,
    )


def _philox_draw(seed: int, shape: Sequence[int], draw: int) -> Array:
    return philox_normal(seed, int(np.prod(shape)), draw).reshape(shape)


def linear_denoiser(sample: Array, timestep: Array, context: Array) -> Array:
    """``[rows, ...]``: something of what it is given, of each row's context and of the time."""
    time = timestep.reshape(-1, *[1] * (sample.ndim - 1)) / np.float32(1000)
    return np.float32(0.6) * sample + np.float32(0.5) * context * np.cos(3 * time) - np.float32(0.2) * time


def third_context(run: Run, parts: Parts) -> Array:
    """What the third row sees: the picture without the prompt, or less of the prompt."""
    return SKIPPED * parts.conditional if run.skip_scales else parts.unconditional + parts.image


def by_definition(run: Run, shape: Sequence[int]) -> Array:
    """The last state ``[C, h, w]`` of one image: what ``SamplerTable`` and the papers say, in float64."""
    parts, table = parts_of(run, shape), run.table
    x, stored, draws = parts.state.astype(np.float64), [], []
    for k in range(table.evaluations):
        u, c, third = (
            linear_denoiser((table.input_scale[k] * x)[None], table.timesteps[k : k + 1], context[None])[0]
            for context in (parts.unconditional, seen_by_conditional(run, parts), third_context(run, parts))
        )
        g = table.guidance[k]
        m = u + g * (c - u)
        if run.image_guidance_scale is not None and g != 1:
            m = u + run.image_guidance_scale * (third - u) + g * (c - third)
        if run.skip_scales is not None:
            m = m + run.skip_scales[k] * (c - third)
        if g != 1:
            m = m * (1 - run.guidance_rescale + run.guidance_rescale * c.std() / m.std())
        stored = [table.state_to_stored[k] * x + table.output_to_stored[k] * m, *stored]
        if table.draws_noise[k]:
            draws = [parts.draw(len(draws)).astype(np.float64), *draws]
        x = table.state_weight[k] * x
        x = x + sum(weight * d for weight, d in zip(table.history_weights[k], stored, strict=False))
        x = x + sum(weight * draw for weight, draw in zip(table.noise_weights[k], draws, strict=False))
        last = k + 1 == table.evaluations
        if run.kept and (last or table.step[k + 1] != table.step[k]):
            signal, noise = (1, 0) if last else (table.state_signal[k + 1], table.state_noise[k + 1])
            x = np.where(parts.kept.mask == 0, signal * parts.kept.latents + noise * parts.kept.noise, x)
    return x.astype(np.float32)


def seen_by_conditional(run: Run, parts: Parts) -> Array:
    """What the conditional row sees: an edit's picture too."""
    return parts.conditional + (0 if run.image_guidance_scale is None else parts.image)


def over_slots(
    step: StepSlots, runs: Sequence[Run], shape: Sequence[int], make_noise: MakeNoise | None = None
) -> list[Array]:
    """The last states of all images, which start together in one batch and end when they end.

    Without ``make_noise`` the draws are those of the runtime's loop.
    """
    parts, rows = [parts_of(run, shape) for run in runs], [run.rows for run in runs]
    elements, area, count = int(np.prod(shape)), shape[1] * shape[2], len(runs)
    slots = empty_slots(count, elements, area, np.concatenate(rows))
    slots.position[:] = np.cumsum([0, *map(len, rows)])[:-1]
    # Conditional rows in reverse, so that no row stands where another might be expected.
    unconditional, conditional, third = np.arange(count), 2 * count - 1 - np.arange(count), 2 * count + np.arange(count)
    of_slots = np.stack([unconditional, conditional, third], axis=1)
    routes = np.concatenate([np.arange(count)[:, None], of_slots, of_slots], axis=1).astype(np.int32)
    contexts = np.empty((3 * count, elements), np.float32)
    for i, (run, part) in enumerate(zip(runs, parts, strict=True)):
        slots.state[i] = part.state.reshape(-1)
        slots.kept[i] = part.kept.latents.reshape(-1), part.kept.noise.reshape(-1)
        slots.mask[i] = part.kept.mask.reshape(-1)
        seen = part.unconditional, seen_by_conditional(run, part), third_context(run, part)
        contexts[of_slots[i]] = np.stack(seen).reshape(3, -1)
    outputs, model_input = np.zeros_like(contexts), np.full_like(contexts, np.nan)
    timesteps = np.full(3 * count, np.nan, np.float32)
    step(slots, routes, outputs, model_input, timesteps)  # the start: makes the first inputs
    for _ in range(max(run.table.evaluations for run in runs)):
        outputs = linear_denoiser(model_input, timesteps, contexts)
        if make_noise is not None:
            make_noise(slots, np.array([run.seed for run in runs]))
        else:
            for i in np.flatnonzero(slots.draws >= 0):
                slots.noise[i, slots.draws[i] % DRAWS] = parts[i].draw(int(slots.draws[i])).reshape(-1)
        step(slots, routes, outputs, model_input, timesteps)
    return [state.reshape(shape) for state in slots.state]
