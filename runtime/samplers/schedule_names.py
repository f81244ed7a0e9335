"""Every schedule: its names, and the settings of a sampler's grid that it stands for.

Names that other programs have too are read as diffusers' table of them does (api/schedulers/overview): ``karras``,
``exponential`` and ``beta`` are its ``use_..._sigmas``, ``sgm_uniform`` and ``simple`` its trailing spacing. Where
ComfyUI and A1111 compute something else under the same name, ``about`` says what and how far it is.
"""

from __future__ import annotations

from dataclasses import dataclass, field

from .model_schedule import Value


@dataclass(frozen=True)
class Schedule:
    """One schedule. ``settings`` of the grid; a ``ramp`` of None: timesteps of the checkpoint, spaced as they say."""

    name: str
    about: str
    settings: dict[str, Value] = field(hash=False)
    aliases: tuple[str, ...] = ()


SCHEDULES: dict[str, Schedule] = {
    schedule.name: schedule
    for schedule in (
        Schedule(
            "linspace",
            "timesteps evenly from the last to the first",
            {"timestep_spacing": "linspace", "ramp": None},
            aliases=("normal", "uniform"),
        ),
        Schedule(
            "leading",
            "whole strides up from the checkpoint's steps_offset",
            {"timestep_spacing": "leading", "ramp": None},
        ),
        Schedule(
            "trailing",
            "whole strides down from the last timestep; ComfyUI and A1111 round elsewhere: the timesteps of their "
            "simple are the same or one more, those of their sgm_uniform lie less than 1.5 away",
            {"timestep_spacing": "trailing", "ramp": None},
            aliases=("sgm_uniform", "simple"),
        ),
        Schedule(
            "ddim_uniform",
            "whole strides up from timestep 1; ComfyUI and A1111 go on above to the end of training, which is more "
            "steps than asked for where their number does not divide that of the timesteps",
            {"timestep_spacing": "leading", "steps_offset": 1, "ramp": None},
            aliases=("ddim",),
        ),
        Schedule(
            "karras",
            "equal steps in sigma^(1/7), between the first and the last sigma of the checkpoint's own spacing",
            {"ramp": "karras"},
        ),
        Schedule(
            "exponential",
            "equal steps in log sigma",
            {"ramp": "exponential", "timestep_spacing": "linspace"},
            aliases=("polyexponential",),
        ),
        Schedule(
            "beta",
            "sigmas at the quantiles of Beta(0.6, 0.6), as diffusers has it",
            {"ramp": "beta", "timestep_spacing": "linspace"},
        ),
        Schedule(
            "beta_timesteps",
            "timesteps at the quantiles of Beta(0.6, 0.6): what ComfyUI and A1111 call beta",
            {"ramp": "beta_timesteps"},
        ),
        Schedule("lu", "equal steps in log(alpha / sigma)", {"ramp": "lu"}),
        Schedule("kl_optimal", "equal steps in arctan sigma", {"ramp": "kl_optimal"}),
        Schedule("ays_sd1", "Align Your Steps for Stable Diffusion 1", {"ramp": "ays_sd1"}),
        Schedule(
            "ays_sdxl",
            "Align Your Steps for SDXL; ays is ays_sd1 on bundles of Stable Diffusion 1 and 2",
            {"ramp": "ays_sdxl"},
            aliases=("ays", "align_your_steps"),
        ),
    )
}

SCHEDULE_ALIASES = {alias: schedule.name for schedule in SCHEDULES.values() for alias in schedule.aliases}


def schedule_names() -> tuple[str, ...]:
    """The schedules' names."""
    return tuple(SCHEDULES)
