"""The denoising loop: a generator that yields after every inference step, so that progress, previews, timing and early
stop belong to whoever iterates.

What a step does is in the rows of its table, on the device; the loop only says which step comes next. So it runs ahead
of a device that works by itself, until somebody asks for the state or waits.
"""

from __future__ import annotations

from collections.abc import Callable, Generator, Sequence
from dataclasses import dataclass
from functools import cached_property, partial

import numpy as np
from numpy.typing import NDArray

from ...kernels.slots import rescale_factor
from ...kernels.table_rows import Column, NextRows, guidance_shares, table_rows, unchanged_row
from ..engines import Engines
from ..noise.steps import StepNoise
from ..samplers import SamplerTable
from ..timing import Timings
from .denoise_plan import TABLE_ROWS, DenoisePlan, PlanSize
from .guidance import RowGroup, planned_groups
from .start import Kept

Array = NDArray[np.float32]


@dataclass(frozen=True)
class Task:
    """What there is to denoise.

    Args:
        table: the sampler and schedule.
        state: the first state ``[images, C, h, w]``.
        groups: the denoiser's rows; evaluations whose guidance is 1 run the conditional ones only.
        noise: of samplers that add some; one per image.
        kept: what a masked run puts back after every step.
        extra_channels: ``[images, E, h, w]`` behind the noisy latents: a mask, a masked picture, depth, a picture.
        image_guidance_scale: of InstructPix2Pix.
        skip_scales: of skip-layer guidance, one for each evaluation.
        guidance_rescale: phi of Lin et al. 2023 (arXiv:2305.08891); of conditional and unconditional rows alone.
    """

    table: SamplerTable
    state: Array
    groups: Sequence[RowGroup]
    noise: StepNoise
    kept: Kept | None = None
    extra_channels: Array | None = None
    image_guidance_scale: float | None = None
    skip_scales: Sequence[float] | None = None
    guidance_rescale: float = 0.0

    @cached_property
    def rows(self) -> Array:
        """The table as the device reads it."""
        return table_rows(
            self.table,
            image_guidance_scale=self.image_guidance_scale,
            skip_scales=self.skip_scales,
            guidance_rescale=self.guidance_rescale,
            first_draw=self.noise.first_draw,
            host_draws=bool(self.noise.draw),
            blends=self.kept is not None,
            to_the_end=self.kept is not None and self.kept.to_the_end,
        )

    @property
    def size(self) -> PlanSize:
        """The plan it needs."""
        images, _, height, width = self.state.shape
        tokens = self.groups[0].conditioning["encoder_hidden_states"].shape[1]
        needed = len(self.rows) + 1  # one more for the row of replaced latents
        room = max(TABLE_ROWS, 1 << (needed - 1).bit_length())
        return PlanSize(images, planned_groups(self.groups), height, width, tokens, room)


@dataclass(frozen=True)
class DenoiseStep:
    """One inference step, which the device may still be working on.

    ``timestep`` is that of the step. ``latents()`` waits for the state after it, ``denoised()`` for the same without
    its noise, as far as the model can tell now: new arrays ``[images, C, h, w]``. Both may be called until the
    generator goes on; other latents sent to it, of the same ``shape``, are those that it goes on from. ``wait()`` waits
    for the step and copies nothing; it may be called until the second step after this one.
    """

    index: int
    steps: int
    timestep: float
    shape: tuple[int, ...]
    latents: Callable[[], Array]
    denoised: Callable[[], Array]
    wait: Callable[[], None]


def denoise(engines: Engines, task: Task, timings: Timings) -> Generator[DenoiseStep, Array | None, Array]:
    """Run a sampler's table; returns the last state. Sending latents to the generator replaces those of its last step.

    Closing it ends the run: the device finishes the step that it is at, and takes the next run.

    Raises:
        DeviceMemoryError: the device has too little memory for a run of this size.
        DeviceError: the device failed.
        EngineError: the denoiser's engine refuses.
    """
    runner, engine, size = engines.runner, engines["denoiser"], task.size
    contract = engines.bundle.manifest.components["denoiser"]
    with (
        runner.turn(),
        runner.plan((engine, size), partial(DenoisePlan, runner, engine, contract, size)) as plan,
    ):
        try:
            return (yield from _steps(plan, task, timings))
        finally:
            runner.device.stream.synchronize()


def _steps(plan: DenoisePlan, task: Task, timings: Timings) -> Generator[DenoiseStep, Array | None, Array]:
    table, rows = task.table, task.rows
    kept = None if task.kept is None else (task.kept.latents, task.kept.noise, task.kept.mask)
    plan.begin(rows, task.state, task.groups, kept, task.extra_channels, task.noise.seeds)
    counts = _group_counts(rows, plan.size.groups)
    drawn = 0
    for k in range(table.evaluations):
        if table.draws_noise[k] and task.noise.draw:
            plan.draw(drawn, [draw(drawn) for draw in task.noise.draw])
            drawn += 1
        plan.step(counts[k]).enqueue(timings)
        step = int(table.step[k])
        if k + 1 < table.evaluations and table.step[k + 1] == step:
            continue
        replacement = yield DenoiseStep(
            index=step,
            steps=table.steps_run,
            timestep=float(table.timesteps[k]),
            shape=task.state.shape,
            latents=partial(plan.latents, timings),
            denoised=partial(_denoised, plan, task, k, counts[k], timings),
            wait=plan.mark(step, timings),
        )
        if replacement is not None:
            plan.replace(replacement, unchanged_row(rows[k + 1]), k + 2)
    return plan.latents(timings)


def _group_counts(rows: Array, groups: Sequence[NextRows]) -> list[int]:
    """How many groups each evaluation runs: up to the last one that it needs."""
    needed = rows[:-2, Column.NEXT_ROWS].astype(int).tolist()
    return [max(i + 1 for i, group in enumerate(groups) if of_evaluation & group) for of_evaluation in needed]


def _denoised(plan: DenoisePlan, task: Task, evaluation: int, groups: int, timings: Timings) -> Array:
    """The state after an evaluation without its noise."""
    shares = guidance_shares(task.table.guidance, task.image_guidance_scale, task.skip_scales)
    of_rows = dict(zip((NextRows.CONDITIONAL, NextRows.UNCONDITIONAL, NextRows.THIRD), shares, strict=True))
    outputs = plan.model_output(groups, timings)
    state = plan.latents(timings)
    guided = np.zeros_like(state)
    for output, group in zip(outputs, plan.size.groups, strict=False):
        share = float(of_rows[group][evaluation])
        if share != 0:
            guided += np.float32(share) * output
    if task.rows[evaluation + 1, Column.GUIDANCE_RESCALE] != 0:
        scale, rescale = float(task.table.guidance[evaluation]), task.guidance_rescale
        for image, conditional, unconditional in zip(guided, outputs[0], outputs[1], strict=True):
            image *= rescale_factor(conditional, unconditional, scale, rescale)
    return without_noise(task.table, evaluation, state, guided)


def without_noise(table: SamplerTable, evaluation: int, latents: Array, guided: Array) -> Array:
    """The clean latents that fit both the state after an evaluation and the guided output m of the model in it.

    Two equations for x0 and eps: x = state_signal x0 + state_noise eps, m = output_signal x0 + output_noise eps. They
    are exact for a deterministic step of order 1; noise that the step has drawn stays.
    """
    signal, noise = float(table.state_signal[evaluation + 1]), float(table.state_noise[evaluation + 1])
    if noise == 0:
        return latents / np.float32(signal)
    of_signal, of_noise = float(table.output_signal[evaluation]), float(table.output_noise[evaluation])
    determinant = signal * of_noise - noise * of_signal
    estimate: Array = np.float32(of_noise / determinant) * latents - np.float32(noise / determinant) * guided
    return estimate
