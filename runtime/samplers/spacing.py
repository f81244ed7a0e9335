"""Which timesteps a run visits. diffusers' schedulers differ in rounding and in the end that they leave out."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from ..errors import RequestError
from .model_schedule import TrainingSchedule

Floats = NDArray[np.float64]


def fractional(count: int, steps: int, spacing: str, offset: int) -> Floats:
    """``[steps]`` of ``count`` timesteps for schedulers that interpolate between training timesteps (Euler, ...)."""
    if spacing == "linspace":
        timesteps = np.linspace(0, count - 1, steps)[::-1]
    else:
        timesteps = integers(count, steps, spacing, offset)
    return timesteps.astype(np.float32).astype(np.float64)  # a float32 input of the network


def integers(count: int, steps: int, spacing: str, offset: int) -> Floats:
    """``[steps]`` whole timesteps from the last training timestep (or near it) down (DDIM, DDPM, PNDM)."""
    if spacing == "linspace":
        return rounded(np.linspace(0, count - 1, steps)[::-1])
    if spacing == "leading":
        return np.arange(steps - 1, -1, -1, dtype=np.float64) * leading_stride(count, steps) + offset
    return trailing(count, steps, count)


def without_lowest(count: int, steps: int, spacing: str, offset: int, last: int) -> Floats:
    """``[steps]`` whole timesteps below ``last``: ``steps + 1`` span the range, the lowest is dropped (DPM-Solver)."""
    if spacing == "linspace":
        return rounded(np.linspace(0, last - 1, steps + 1)[::-1][:-1])
    if spacing == "leading":
        return np.arange(steps, 0, -1, dtype=np.float64) * leading_stride(last, steps + 1) + offset
    return trailing(count, steps, last)


def trailing(count: int, steps: int, last: int) -> Floats:
    """Whole timesteps down from ``last - 1`` in strides of ``count / steps``, however many fit."""
    timesteps = rounded(np.arange(last, 0, -count / steps)) - 1
    return timesteps[timesteps >= 0]  # rounding may leave one more stride than there are steps


def rounded(timesteps: Floats) -> Floats:
    """``timesteps``, rounded."""
    result: Floats = np.rint(timesteps)
    return result


def leading_stride(count: int, steps: int) -> int:
    """Whole stride of ``leading`` spacing."""
    if steps > count:
        raise RequestError(
            "more inference steps than training timesteps",
            received=f"{steps} steps, {count} timesteps",
            expected="fewer steps, or linspace or trailing spacing",
        )
    return count // steps


def last_timestep(training: TrainingSchedule, lambda_min: float) -> int:
    """One past the last timestep whose log(alpha / sigma) is at least ``lambda_min`` (Lu et al. 2022, clipping)."""
    half_log_snr = -training.log_sigmas[::-1]  # ascending
    last = training.num_train_timesteps - int(np.searchsorted(half_log_snr, lambda_min))
    if last < 1:
        raise RequestError(
            "lambda_min_clipped leaves no timestep", received=lambda_min, expected=f"at most {half_log_snr[-1]:.2f}"
        )
    return last


def explicit_timesteps(timesteps: tuple[float, ...], count: int, *, whole: bool) -> Floats:
    """The caller's own timesteps, checked: inside the training range and decreasing."""
    array = np.asarray(timesteps, dtype=np.float64)
    if len(array) == 0 or not np.isfinite(array).all() or array.max() > count - 1 or array.min() < 0:
        raise RequestError(
            "timesteps leave the training range", received=brief(timesteps), expected=f"numbers from {count - 1} to 0"
        )
    if (np.diff(array) >= 0).any():
        raise RequestError("timesteps do not decrease", received=brief(timesteps), expected="strictly decreasing")
    if whole and (array != array.round()).any():
        raise RequestError("timesteps are not whole numbers", received=brief(timesteps), expected="whole numbers")
    return array


def explicit_sigmas(sigmas: tuple[float, ...]) -> Floats:
    """``[steps + 1]``: the caller's own sigmas, checked; the last one, which may be 0, is where the run ends."""
    array = descending_sigmas(sigmas, np.inf)
    if len(array) < 2:
        raise RequestError("sigmas leave no step", received=brief(sigmas), expected="where it starts and where it ends")
    return array


def explicit_flow_sigmas(sigmas: tuple[float, ...]) -> Floats:
    """``[steps]``: the caller's own shares of noise, checked; the 0 that the run ends at may be given or not."""
    array = descending_sigmas(sigmas, 1.0)
    if array[0] == 0:
        raise RequestError("sigmas leave no step", received=brief(sigmas), expected="a positive number up to 1 first")
    return array[array > 0]


def descending_sigmas(sigmas: tuple[float, ...], highest: float) -> Floats:
    """``sigmas``, which have to lie between ``highest`` and 0 and to decrease."""
    array = np.asarray(sigmas, dtype=np.float64)
    if len(array) == 0 or not np.isfinite(array).all() or array.max() > highest or array.min() < 0:
        limit = "" if np.isinf(highest) else f" up to {highest:g}"
        raise RequestError("sigmas leave their range", received=brief(sigmas), expected=f"positive numbers{limit}")
    if (np.diff(array) >= 0).any():
        raise RequestError("sigmas do not decrease", received=brief(sigmas), expected="strictly decreasing")
    return array


def brief(values: tuple[float, ...]) -> str:
    """The values, shortened for a message."""
    shown = ", ".join(f"{value:g}" for value in values[:8])
    return f"[{shown}{', ...' if len(values) > 8 else ''}]"
