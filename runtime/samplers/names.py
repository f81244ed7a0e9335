"""Names of samplers and schedules as people know them: ours, diffusers' classes, A1111's and ComfyUI's."""

from __future__ import annotations

import re
from difflib import get_close_matches

from ..errors import RequestError
from .model_schedule import Value
from .ramps import RAMPS
from .registry import SAMPLERS, Sampler

SPACINGS = ("linspace", "leading", "trailing")

# What each schedule sets, in settings of the grid. ``ramp`` None: timesteps of the checkpoint, spaced as named.
SCHEDULES: dict[str, dict[str, Value]] = {
    **{name: {"timestep_spacing": name, "ramp": None} for name in SPACINGS},
    "ddim_uniform": {"timestep_spacing": "leading", "steps_offset": 1, "ramp": None},
    "karras": {"ramp": "karras"},
    "exponential": {"ramp": "exponential", "timestep_spacing": "linspace"},
    "beta": {"ramp": "beta", "timestep_spacing": "linspace"},
    **{name: {"ramp": name} for name in RAMPS if name not in ("karras", "exponential", "beta")},
}

# diffusers' own table (api/schedulers/overview) says which of its settings these stand for.
SCHEDULE_ALIASES = {
    "normal": "linspace",
    "uniform": "linspace",
    "sgm_uniform": "trailing",
    "simple": "trailing",
    "ays": "ays_sdxl",
    "align_your_steps": "ays_sdxl",
    "polyexponential": "exponential",
}


def schedule_names() -> tuple[str, ...]:
    """The schedules' names."""
    return tuple(SCHEDULES)


def aliases_of_schedule(name: str) -> list[str]:
    """Other programs' names of the schedule ``name``."""
    return [alias for alias, schedule in SCHEDULE_ALIASES.items() if schedule == name]


def simplified(name: str) -> str:
    """Lower case, ``++`` as ``pp``, words joined by ``_``: "DPM++ 2M SDE" and "dpmpp_2m_sde" are the same name."""
    return "_".join(re.findall(r"[a-z0-9]+", name.lower().replace("++", "pp")))


def sampler_and_schedule(name: str) -> tuple[Sampler, str | None]:
    """The sampler called ``name``, and the schedule that the name includes ("DPM++ 2M Karras")."""
    key = simplified(name)
    if key in _SAMPLER_KEYS:
        return _SAMPLER_KEYS[key], None
    for schedule_key, schedule in _SCHEDULE_KEYS.items():
        if key.endswith(f"_{schedule_key}") and key.removesuffix(f"_{schedule_key}") in _SAMPLER_KEYS:
            return _SAMPLER_KEYS[key.removesuffix(f"_{schedule_key}")], schedule
    raise unknown("sampler", name, tuple(_SAMPLER_KEYS), {k: s.name for k, s in _SAMPLER_KEYS.items()})


def schedule_called(name: str) -> str:
    """Our name of the schedule called ``name``."""
    key = simplified(name)
    if key not in _SCHEDULE_KEYS:
        raise unknown("schedule", name, tuple(_SCHEDULE_KEYS), _SCHEDULE_KEYS)
    return _SCHEDULE_KEYS[key]


def unknown(kind: str, name: str, keys: tuple[str, ...], names: dict[str, str]) -> RequestError:
    """The error for an unknown name, with the nearest known ones."""
    near = list(dict.fromkeys(names[key] for key in get_close_matches(simplified(name), keys, n=5, cutoff=0.5)))
    return RequestError(
        f"unknown {kind}",
        received=repr(name),
        expected=" or ".join(near[:3]) if near else f"one of {', '.join(dict.fromkeys(names.values()))}",
        remedy="`latentrt samplers` lists all of them",
    )


def _sampler_keys() -> dict[str, Sampler]:
    keys: dict[str, Sampler] = {}
    for sampler in SAMPLERS:
        for name in (sampler.name, sampler.title, *sampler.aliases):
            keys[simplified(name)] = sampler
    for sampler in reversed(SAMPLERS):  # a class name alone means the first sampler of the class
        if sampler.from_diffusers:
            keys[simplified(sampler.diffusers_class)] = sampler
    return keys


_SAMPLER_KEYS = _sampler_keys()
_SCHEDULE_KEYS = {simplified(key): value for key, value in {**{n: n for n in SCHEDULES}, **SCHEDULE_ALIASES}.items()}
