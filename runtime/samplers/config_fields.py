"""Checks of ``scheduler_config.json`` fields: every one is honoured, or refused by name."""

from __future__ import annotations

import math
from collections.abc import Mapping
from difflib import get_close_matches

from ..errors import CheckpointError, InputError
from .diffusers_classes import CLASS_CHOICES, CLASSES
from .model_schedule import Value

# Fields that take one of a few values with every scheduler that has them.
CHOICES: dict[str, tuple[Value, ...]] = {
    "beta_schedule": ("linear", "scaled_linear", "squaredcos_cap_v2"),
    "prediction_type": ("epsilon", "v_prediction", "sample", "flow_prediction"),
    "timestep_spacing": ("linspace", "leading", "trailing"),
    "timestep_type": ("discrete", "continuous"),
    "interpolation_type": ("linear", "log_linear"),
    "final_sigmas_type": ("zero", "sigma_min"),
    "time_shift_type": ("exponential", "linear"),
}

# Fields that change nothing as long as they have this value; another one would need what no table can do.
NEUTRAL: dict[str, tuple[Value, str]] = {
    "thresholding": (False, "dynamic thresholding is not linear in the model output; it is meant for pixels"),
    "clip_sample": (False, "clipping is not linear in the model output; latents are not limited to [-1, 1]"),
    "variance_type": (None, "a model with learned variance has twice the output channels"),
    "use_flow_sigmas": (False, "it has no rectified-flow form"),
    "use_dynamic_shifting": (False, "only the sigmas of rectified flow are shifted"),
    "shift_terminal": (None, "only the sigmas of rectified flow are stretched"),
    "invert_sigmas": (False, "the run would go from image to noise"),
    "skip_prk_steps": (True, "Runge-Kutta steps need a history of thirteen model outputs"),
    "solver_p": (None, "another predictor inside UniPC is not a number"),
    "tau_func": (None, "a function is not a number; tau and tau_timesteps say the same"),
    "noise_sampler_seed": (None, "the seed is the request's"),
    "trained_betas": (None, "its steps are fixed by their number"),
}

# Fields that are read only where another one asks for it.
DEPENDENT = frozenset(
    {"dynamic_thresholding_ratio", "sample_max_value", "clip_sample_range", "flow_shift", "time_shift_type"}
)

# Numbers that may be null, which means their default.
OPTIONAL = frozenset({"base_shift", "max_shift", "base_image_seq_len", "max_image_seq_len"})

# Options of samplers that no scheduler has as a field, with a value of their type.
OPTIONS: dict[str, Value] = {"eta": 0.0, "tau": 1.0, "tau_timesteps": (), "mu": 0.0, "image_seq_len": 0}

# What is null unless it is wanted, with a value of its type.
NULLABLE: dict[str, Value] = {
    "timesteps": (),
    "sigmas": (),
    "trained_betas": (),
    "sigma_min": 0.0,
    "sigma_max": 0.0,
    "shift_terminal": 0.0,
    "mu": 0.0,
    "image_seq_len": 0,
}

# Where numbers have to lie. All but lambda_min_clipped are finite.
POSITIVE = frozenset(
    {"sigma_min", "sigma_max", "sigma_data", "rho", "shift", "flow_shift", "image_seq_len"}
    | {"base_image_seq_len", "max_image_seq_len", "original_inference_steps", "timestep_scaling"}
)
NOT_NEGATIVE = frozenset({"steps_offset", "eta", "tau", "shift_terminal"})

ALL_FIELDS: dict[str, Value] = {name: value for fields in CLASSES.values() for name, value in fields.items()}


def checked_fields(class_name: str, config: Mapping[str, object]) -> tuple[tuple[str, Value], ...]:
    """The fields of a ``scheduler_config.json``, sorted, with their values checked.

    A field of another diffusers scheduler is kept: ``save_pretrained`` leaves those of earlier schedulers in the file,
    and another sampler may use it.
    """
    fields: dict[str, Value] = {}
    for name, value in config.items():
        if name.startswith("_"):
            continue
        if name not in ALL_FIELDS:
            near = get_close_matches(name, ALL_FIELDS, n=3)
            raise CheckpointError(
                f"unknown field in scheduler_config.json of {class_name}",
                received=f"{name}={value!r}",
                expected=" or ".join(near) if near else "a field of a diffusers scheduler",
                remedy="remove the field if the model does not depend on it",
            )
        if value is None and (name in OPTIONAL or CLASSES[class_name].get(name) is None):  # null is the default
            continue
        fields[name] = checked_value(class_name, name, value, CheckpointError)
    check_betas({**CLASSES[class_name], **fields})
    return tuple(sorted(fields.items(), key=lambda item: item[0]))


def check_betas(fields: Mapping[str, Value]) -> None:
    """Refuses a forward process that is none: betas are variances between 0 and 1, one per training timestep."""
    count, trained = fields["num_train_timesteps"], fields.get("trained_betas")
    if not isinstance(count, int) or count < 1:
        raise CheckpointError("num_train_timesteps must be positive", received=count)
    if isinstance(trained, tuple) and len(trained) != count:
        raise CheckpointError("trained_betas has the wrong length", received=len(trained), expected=count)
    betas = trained if isinstance(trained, tuple) else (fields.get("beta_start", 0.5), fields.get("beta_end", 0.5))
    if not all(isinstance(beta, int | float) and 0 < beta < 1 for beta in betas):
        raise CheckpointError("betas are variances", received=repr(betas)[:80], expected="numbers between 0 and 1")


def choices(class_name: str, name: str) -> tuple[Value, ...] | None:
    """The values that a field may have with one scheduler, if they are few."""
    return CLASS_CHOICES.get(class_name, {}).get(name) or CHOICES.get(name)


def checked_value(class_name: str, name: str, value: object, error: type[InputError]) -> Value:
    """``value`` as a field called ``name`` holds it; refused when its type or its choice is wrong."""
    allowed = choices(class_name, name)
    if allowed is not None and value not in allowed:
        raise error(
            f"{name} has a value that cannot be honoured for {class_name}",
            received=repr(value),
            expected=" or ".join(str(choice) for choice in allowed),
        )
    if value is not None and not isinstance(value, bool | int | float | str | list | tuple):
        raise error(f"{name} has a type that no field has", received=type(value).__name__)
    if value is None and (name in NULLABLE or default_of(name) is None):
        return None
    default = default_of(name)
    if isinstance(default, tuple) or (default is None and isinstance(value, list | tuple)):
        return checked_list(name, value, error)
    if isinstance(default, bool):
        if value is not None and not isinstance(value, bool):
            raise error(f"{name} has the wrong type", received=repr(value), expected="true or false")
        return bool(value)
    if isinstance(default, int | float):
        return checked_number(name, value, error, whole=isinstance(default, int))
    if isinstance(value, list | tuple):
        raise error(f"{name} has the wrong type", received=repr(value)[:80], expected="a name")
    return value


def default_of(name: str) -> Value:
    """A value of the type that a field or option called ``name`` has; None where that may be anything."""
    return NULLABLE.get(name, OPTIONS.get(name, ALL_FIELDS.get(name)))


def checked_list(name: str, value: object, error: type[InputError]) -> Value:
    """``value`` as a tuple of numbers."""
    if not isinstance(value, list | tuple) or not all(
        isinstance(item, int | float) and not isinstance(item, bool) for item in value
    ):
        raise error(f"{name} is not a list of numbers", received=repr(value)[:80])
    return tuple(float(item) for item in value)


def checked_number(name: str, value: object, error: type[InputError], *, whole: bool) -> Value:
    """``value`` as a number in the range that its field has."""
    if isinstance(value, bool) or not isinstance(value, int | float):
        raise error(f"{name} has the wrong type", received=repr(value), expected="a number")
    if whole and not isinstance(value, int):
        raise error(f"{name} has the wrong type", received=repr(value), expected="a whole number")
    if math.isnan(value) or (math.isinf(value) and name != "lambda_min_clipped"):
        raise error(f"{name} is not finite", received=repr(value))
    if (name in POSITIVE and value <= 0) or (name in NOT_NEGATIVE and value < 0):
        expected = "a positive number" if name in POSITIVE else "0 or more"
        raise error(f"{name} is out of range", received=repr(value), expected=expected)
    return value


def refuse_unread(sampler: str, unread: Mapping[str, Value], asked: frozenset[str], error: type[InputError]) -> None:
    """Raises for a setting that the sampler does not read, if it was ``asked`` for or its value would matter."""
    for name, value in unread.items():
        neutral, why = NEUTRAL.get(name, (value, f"{sampler} has no such setting"))
        if value != neutral or (name in asked and name not in NEUTRAL):
            raise error(
                f"{sampler} cannot honour {name}: {why}",
                received=f"{name}={value!r}",
                expected=f"{name}={neutral!r}" if name in NEUTRAL else None,
            )
