"""Grids of the samplers that run on training timesteps: DDIM, DDPM, PNDM, LCM and TCD."""

from __future__ import annotations

from functools import partial

import numpy as np

from ..errors import RequestError
from .grid import Floats, Grid, trained_point
from .model_schedule import TrainingSchedule
from .spacing import explicit_timesteps, integers


def ddim_grid(
    training: TrainingSchedule, steps: int, *, timestep_spacing: str, steps_offset: int, set_alpha_to_one: bool
) -> Grid:
    """Each step leads ``T // steps`` timesteps down, whatever their spacing; below 0 is the clean image, or nearly."""
    count = training.num_train_timesteps
    timesteps = trained_timesteps(training, steps, timestep_spacing, steps_offset)
    final = 1.0 if set_alpha_to_one else float(training.alphas_cumprod[0])
    targets = tuple(trained_point(training, t, final) for t in timesteps - count // steps)
    points = tuple(trained_point(training, t) for t in timesteps)
    return Grid((*points, targets[-1]), targets=targets, point_of=partial(trained_point, training))


def ddpm_grid(
    training: TrainingSchedule,
    steps: int,
    *,
    timestep_spacing: str,
    steps_offset: int,
    timesteps: tuple[float, ...] | None = None,
) -> Grid:
    """Each step leads to the next timestep of the run, the last one to the clean image."""
    if timesteps is not None:
        times = explicit_timesteps(timesteps, training.num_train_timesteps, whole=True)
    else:
        times = trained_timesteps(training, steps, timestep_spacing, steps_offset)
    return Grid(tuple(trained_point(training, t) for t in [*times, -1]))


def distilled_grid(
    training: TrainingSchedule,
    steps: int,
    *,
    original_inference_steps: int,
    timesteps: tuple[float, ...] | None = None,
) -> Grid:
    """A choice among the ``original_inference_steps`` timesteps that a consistency model was distilled on."""
    count, original = training.num_train_timesteps, original_inference_steps
    if not 1 <= original <= count:
        raise RequestError("original_inference_steps out of range", received=original, expected=f"1 to {count}")
    if timesteps is not None:
        times = explicit_timesteps(timesteps, count, whole=True)
    else:
        if steps > original:
            raise RequestError(
                "more steps than the model was distilled on",
                received=steps,
                expected=f"at most original_inference_steps={original}",
            )
        distilled = np.arange(original, 0, -1, dtype=np.float64) * (count // original) - 1
        times = distilled[np.floor(np.linspace(0, original, num=steps, endpoint=False)).astype(np.int64)]
    return Grid(tuple(trained_point(training, t) for t in [*times, -1]), point_of=partial(trained_point, training))


def trained_timesteps(training: TrainingSchedule, steps: int, spacing: str, offset: int) -> Floats:
    """``[steps]`` whole timesteps, all of which the model was trained on."""
    count = training.num_train_timesteps
    if steps > count:
        raise RequestError(
            "more inference steps than training timesteps", received=steps, expected=f"at most {count} for this sampler"
        )
    timesteps = integers(count, steps, spacing, offset)
    if timesteps[0] > count - 1:
        raise RequestError(
            "the first timestep lies beyond the training range",
            received=f"timestep {timesteps[0]:g} with steps_offset={offset}",
            expected=f"at most {count - 1}: fewer steps or steps_offset=0",
        )
    return timesteps
