"""From a ``scheduler_config.json`` to the schedule of a checkpoint."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from difflib import get_close_matches

from ..errors import CheckpointError
from .config_fields import checked_fields
from .diffusers_classes import CLASSES
from .model_schedule import ModelSchedule, Value
from .registry import SAMPLERS
from .sampler import Sampler
from .settings import resolve

KINDS = {
    "FlowMatchEulerDiscreteScheduler": "flow",
    "FlowMatchHeunDiscreteScheduler": "flow",
    "EDMEulerScheduler": "edm",
    "IPNDMScheduler": "angular",
}


def model_schedule_from_config(config: Mapping[str, object]) -> ModelSchedule:
    """The noise schedule, default sampler and default spacing that a ``scheduler_config.json`` asks for.

    Raises:
        CheckpointError: the scheduler's class is unknown, or a field is unknown, ill-typed or cannot be honoured.
    """
    class_name = config.get("_class_name")
    if not isinstance(class_name, str) or class_name not in CLASSES:
        near = get_close_matches(str(class_name), CLASSES, n=3)
        raise CheckpointError(
            "unknown scheduler class in scheduler_config.json",
            received=repr(class_name),
            expected=" or ".join(near) if near else f"one of {', '.join(CLASSES)}",
        )
    fields = checked_fields(class_name, config)
    settings = {**CLASSES[class_name], **dict(fields)}
    sampler, kind = sampler_of(class_name, settings), kind_of(class_name, settings)
    model = ModelSchedule(class_name, fields, sampler.name, "", kind)
    resolved = resolve(sampler, None, model, {}, named=False, error=CheckpointError)  # refuses what cannot be honoured
    return replace(model, schedule=resolved.schedule)


def kind_of(class_name: str, settings: Mapping[str, Value]) -> str:
    """How a model relates image and noise."""
    if class_name in KINDS:
        return KINDS[class_name]
    flow, predicts_flow = bool(settings.get("use_flow_sigmas")), settings.get("prediction_type") == "flow_prediction"
    if predicts_flow and not flow:
        raise CheckpointError(
            "a rectified-flow model needs flow sigmas",
            received="prediction_type=flow_prediction, use_flow_sigmas=False",
            expected="use_flow_sigmas=True",
        )
    return "flow" if flow else "trained"


def sampler_of(class_name: str, settings: Mapping[str, Value]) -> Sampler:
    """The sampler of a diffusers class whose fixed fields agree best with ``settings``."""
    candidates = [s for s in SAMPLERS if s.diffusers_class == class_name and s.from_diffusers]
    return max(candidates, key=lambda sampler: sum(settings.get(name) == value for name, value in sampler.fixed))
