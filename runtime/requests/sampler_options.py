"""Settings of the sampler that a call gives by name."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from ..checks import shown
from ..errors import RequestError
from ..samplers.build import plain
from ..samplers.model_schedule import Value

#: Arguments of ``build_table`` that are arguments of a call.
_OF_THE_CALL = (
    "sampler", "schedule", "num_inference_steps", "guidance_scale", "guidance_interval", "strength", "denoising_start",
    "denoising_end",
)  # fmt: skip


def sampler_options_from_argument(given: Any) -> dict[str, Value]:
    """Settings of the sampler as plain numbers, texts and tuples, which provenance can record.

    The call's own names are refused: they would say the same thing twice.

    Raises:
        RequestError: names or values that no setting has.
    """
    if given is None:
        return {}
    if not isinstance(given, Mapping):
        raise RequestError("sampler_options", received=shown(given), expected="settings by name, such as {'eta': 0.5}")
    for name in given:
        if name in _OF_THE_CALL:
            raise RequestError(f"sampler_options has {name}", expected=f"{name}= as an argument of the call")
        if not isinstance(name, str) or not name.isidentifier() or name == "model_schedule":  # that is the bundle's
            raise RequestError("sampler_options", received=f"the name {shown(name)}", expected="such as 'eta'")
    return {name: plain(name, value) for name, value in given.items()}
