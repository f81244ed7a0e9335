"""Partial runs by diffusers' rules: image-to-image strength, and the hand-over between a base model and a refiner."""

from __future__ import annotations

from ..checks import fraction
from ..errors import RequestError
from .settings import Resolved
from .trace import Trace


def first_step(trace: Trace, settings: Resolved) -> int:
    """The step that a partial run of ``trace``, a whole run, begins with.

    ``strength`` skips the first ``steps - int(steps * strength)`` steps (``int(steps - steps * strength)`` on
    rectified-flow models, whose pipelines round the other way). ``denoising_start`` (a fraction of the
    training range) skips every evaluation at a timestep not below it; a solver with two evaluations a step begins
    with the step that the last skipped one belongs to, if that step was cut in two.
    """
    strength, start = settings.run.get("strength"), settings.run.get("denoising_start")
    if strength is not None and start is not None:
        raise RequestError("strength and denoising_start exclude each other", expected="one of them")
    if strength is not None:
        steps = trace.count
        kept = min(steps * fraction("strength", strength), steps)
        begin = int(steps - kept) if settings.prediction_type == "flow_prediction" else steps - int(kept)
        if begin >= steps:
            raise RequestError(
                "strength leaves no step to run",
                received=strength,
                expected=f"at least {1 / steps:g} with {steps} steps",
            )
        return begin
    if start is not None:
        cutoff = cutoff_timestep("denoising_start", start, settings)
        skipped = sum(evaluation.point.timestep >= cutoff for evaluation in trace.evaluations)
        if skipped == len(trace.evaluations):
            raise RequestError("denoising_start leaves no step to run", received=start)
        return trace.evaluations[skipped].step
    return 0


def last_evaluation(trace: Trace, settings: Resolved) -> int:
    """How many evaluations of ``trace`` run: all, or those at timesteps not below ``denoising_end``."""
    end = settings.run.get("denoising_end")
    if end is None:
        return len(trace.evaluations)
    cutoff = cutoff_timestep("denoising_end", end, settings)
    count = sum(evaluation.point.timestep >= cutoff for evaluation in trace.evaluations)
    if count == 0:
        raise RequestError("denoising_end leaves no step to run", received=end)
    return count


def cutoff_timestep(name: str, value: object, settings: Resolved) -> int:
    """The training timestep at a fraction of the way from pure noise to the image."""
    count = settings.training.num_train_timesteps
    return round(count - fraction(name, value) * count)
