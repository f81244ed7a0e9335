"""Runs of ``tests.kernels.slot_runs`` through the runtime's loop."""

from __future__ import annotations

from collections.abc import Generator, Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

from latentrt.kernels.table_rows import NextRows
from latentrt.runtime.bundles.manifest import Component
from latentrt.runtime.engines import Engines
from latentrt.runtime.loop.denoise import DenoiseStep, Task, denoise
from latentrt.runtime.loop.guidance import RowGroup
from latentrt.runtime.loop.start import Kept
from latentrt.runtime.noise.steps import StepNoise
from latentrt.runtime.timing import Timings

from ..kernels.slot_runs import SKIPPED, Run, linear_denoiser, parts_of
from .function_engine import FunctionEngine, contract_of

Array = NDArray[np.float32]
CHANNELS, SHAPE = 4, (4, 6, 10)


def linear_contract(*, edit: bool = False, skips: bool = False, rows: int = 16, dtype: str = "float32") -> Component:
    """A denoiser of ``linear_denoiser``, whose context is as large as its latents: a token for each element."""
    sample = f"{dtype} rows {CHANNELS * (2 if edit else 1)} height width"
    inputs = {"sample": sample, "timestep": "float32 rows", "encoder_hidden_states": f"{dtype} rows tokens 1"}
    if skips:
        inputs["skip_layers"] = f"{dtype} rows"
    outputs = {"model_output": f"{dtype} rows {CHANNELS} height width"}
    sides = (1, 6, 64)
    return contract_of(inputs, outputs, rows=(1, 2, rows), height=sides, width=sides, tokens=(1, 240, 1 << 14))


def linear(inputs: dict[str, NDArray[Any]]) -> dict[str, NDArray[Any]]:
    """``linear_denoiser`` of these inputs; a picture behind the latents adds to the context."""
    sample, image = inputs["sample"][:, :CHANNELS], inputs["sample"][:, CHANNELS:]
    context = inputs["encoder_hidden_states"].reshape(sample.shape)
    skip = inputs.get("skip_layers", np.zeros(len(sample), np.float32)).reshape(-1, 1, 1, 1)
    context = context * np.where(skip, SKIPPED, np.float32(1)) + (image if image.shape[1] else 0)
    return {"model_output": linear_denoiser(sample, inputs["timestep"], context)}


def linear_engine(**options: Any) -> FunctionEngine:
    """Options are those of ``linear_contract`` and of ``FunctionEngine``."""
    ours = {name: options.pop(name) for name in ("capturable", "workspace_bytes") if name in options}
    return FunctionEngine("denoiser", linear_contract(**options), linear, **ours)


def task_of(runs: Sequence[Run], shape: tuple[int, int, int] = SHAPE) -> Task:
    """One task of runs whose tables are the same."""
    run, parts = runs[0], [parts_of(run, shape) for run in runs]

    def context(name: str) -> dict[str, Array]:
        stacked = np.stack([getattr(part, name) for part in parts])
        return {"encoder_hidden_states": stacked.reshape(len(parts), -1, 1)}

    edit, skips = run.image_guidance_scale is not None, run.skip_scales is not None
    guided = bool((run.table.guidance != 1).any())
    groups = [RowGroup(NextRows.CONDITIONAL, context("conditional"))]
    if guided:
        groups.append(RowGroup(NextRows.UNCONDITIONAL, context("unconditional"), sees_picture=not edit))
    if edit:
        groups.append(RowGroup(NextRows.THIRD, context("unconditional")))
    if skips:
        groups.append(RowGroup(NextRows.THIRD, context("conditional"), skips_layers=True))
    kept = None
    if run.kept:
        latents, noise = (np.stack([getattr(part.kept, name) for part in parts]) for name in ("latents", "noise"))
        mask = np.stack([part.kept.mask[None] for part in parts])
        kept = Kept(latents, noise, mask, to_the_end=True)
    noise = StepNoise([part.draw for part in parts])
    if run.rng == "philox":
        noise = StepNoise(seeds=[run.seed for run in runs])
    return Task(
        run.table,
        np.stack([part.state for part in parts]),
        groups,
        StepNoise(seeds=[run.seed for run in runs])
        if run.rng == "philox"
        else StepNoise([part.draw for part in parts]),
        kept=kept,
        extra_channels=np.stack([part.image for part in parts]) if edit else None,
        image_guidance_scale=run.image_guidance_scale,
        skip_scales=run.skip_scales,
        guidance_rescale=run.guidance_rescale,
    )


def engine_for(run: Run, **options: Any) -> FunctionEngine:
    """A denoiser that has the inputs which a run needs."""
    return linear_engine(edit=run.image_guidance_scale is not None, skips=run.skip_scales is not None, **options)


def last_state(steps: Generator[DenoiseStep, Array | None, Array]) -> Array:
    """Run a loop to its end."""
    while True:
        try:
            next(steps)
        except StopIteration as end:
            state: Array = end.value
            return state


def run_through(engines: Engines, *runs: Run, shape: tuple[int, int, int] = SHAPE) -> Array:
    """The last states ``[images, C, h, w]`` of runs in one batch."""
    return last_state(denoise(engines, task_of(runs, shape), Timings()))
