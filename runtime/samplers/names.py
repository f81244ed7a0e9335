"""Names of samplers and schedules as people know them: ours, diffusers' classes, A1111's and ComfyUI's."""

from __future__ import annotations

import re
from difflib import get_close_matches

from ..errors import RequestError
from .registry import SAMPLERS
from .sampler import Sampler
from .schedule_names import SCHEDULE_ALIASES, SCHEDULES


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


def schedule_for_family(name: str | None, family: str) -> str | None:
    """``name``, or what it means on a checkpoint of ``family`` where it leaves that open: Align Your Steps."""
    if name is not None and family in ("sd1", "sd2") and simplified(name) in SCHEDULES["ays_sdxl"].aliases:
        return "ays_sd1"
    return name


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
