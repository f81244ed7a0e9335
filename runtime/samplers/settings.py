"""Which settings a table is built with: the sampler's defaults, the checkpoint's fields, the schedule, the options."""

from __future__ import annotations

from collections.abc import Collection, Mapping
from dataclasses import dataclass
from difflib import get_close_matches

from ..errors import InputError, RequestError
from .config_fields import DEPENDENT, checked_value, choices, refuse_unread
from .diffusers_classes import CLASSES, TRAINING, UNREAD, UNREAD_WITH_FLOW
from .model_schedule import ModelSchedule, TrainingSchedule, Value
from .sampler import GridFunction, Sampler
from .schedule_names import SCHEDULES

RAMP_FLAGS = {
    "use_karras_sigmas": "karras",
    "use_exponential_sigmas": "exponential",
    "use_beta_sigmas": "beta",
    "use_lu_lambdas": "lu",
}
TRAINING_FIELDS = (*TRAINING, "rescale_betas_zero_snr")
NOT_OPTIONS = {*TRAINING_FIELDS, "use_flow_sigmas", "ramp"}  # what the model is, and the ``schedule`` argument
RUN_OPTIONS = ("strength", "denoising_start", "denoising_end", "noise")


@dataclass(frozen=True)
class Resolved:
    """The training schedule, the grid function, and the settings of solver, grid and run by name."""

    training: TrainingSchedule
    prediction_type: str
    grid: GridFunction
    grid_settings: dict[str, Value]
    solver_settings: dict[str, Value]
    run: dict[str, Value]
    ramp: str | None
    schedule: str


def resolve(
    sampler: Sampler,
    schedule: str | None,
    model: ModelSchedule,
    options: Mapping[str, Value],
    *,
    named: bool,
    error: type[InputError] = RequestError,
) -> Resolved:
    """The settings of ``sampler`` on ``model``, later sources overriding earlier ones, as diffusers' ``from_config``.

    The defaults of the sampler's diffusers class; the checkpoint's fields; the fields that make the sampler itself, if
    it was asked for by name (``named``); the schedule; the options.
    """
    if model.kind not in sampler.kinds:
        raise error(
            f"{sampler.name} does not run this kind of model",
            received=f"{model.kind} ({model.class_name})",
            expected=" or ".join(sampler.kinds),
        )
    settings = checkpoint_settings(sampler, model)
    if named:
        settings.update(sampler.fixed)
    asked = set(options)
    if schedule is not None:
        asked |= apply_schedule(settings, schedule, sampler)
    grid = sampler.flow_grid if settings.get("use_flow_sigmas") and sampler.flow_grid else sampler.grid
    known = {*CLASSES[sampler.diffusers_class], *sampler.settings_of(grid), *RUN_OPTIONS} - NOT_OPTIONS
    for name, value in options.items():
        if name not in known or (name in RAMP_FLAGS and schedule is not None):
            raise error(
                f"{sampler.name} has no option {name}" + (" beside a schedule" if name in known else ""),
                received=f"{name}={value!r}",
                expected=" or ".join(get_close_matches(name, known, n=3)) or None,
            )
        settings[name] = checked_value(sampler.diffusers_class, name, value, error)
    if "ramp" not in settings:
        settings["ramp"] = ramp_of(settings, error)
    prediction_type = str(
        settings.get("prediction_type", "flow_prediction" if model.kind == "flow" else "v_prediction")
    )
    check_prediction(sampler, model.kind, prediction_type, error)
    if grid is sampler.flow_grid and settings["ramp"] is not None:
        raise error(
            "flow sigmas have their own spacing", received=settings["ramp"], expected="no ramp with flow sigmas"
        )
    refuse_unread(sampler.name, unread(sampler, grid, settings, asked), frozenset(asked), error)
    return Resolved(
        training_schedule(model),
        prediction_type,
        grid,
        {name: settings[name] for name in sampler.settings_of(grid, solver=False) if name in settings},
        {name: settings[name] for name in sampler.solver_settings if name in settings},
        {name: settings[name] for name in RUN_OPTIONS if settings.get(name) is not None},
        ramp if isinstance(ramp := settings["ramp"], str) else None,
        schedule or str(settings["ramp"] or settings.get("timestep_spacing") or model.kind),
    )


def checkpoint_settings(sampler: Sampler, model: ModelSchedule) -> dict[str, Value]:
    """The defaults of the sampler's class and, over them, the fields of the checkpoint that the class has too."""
    settings: dict[str, Value] = dict(CLASSES[sampler.diffusers_class])
    own = model.class_name == sampler.diffusers_class
    if not own and "clip_sample" in settings:
        settings["clip_sample"] = False  # diffusers' default of True is for pixels; no checkpoint asked for it
    for name, value in model.settings.items():
        if name in settings and (own or value in (choices(sampler.diffusers_class, name) or (value,))):
            settings[name] = value
    if not own and model.kind == "flow":
        flow: dict[str, Value] = {"use_flow_sigmas": True, "prediction_type": "flow_prediction"}
        shift = model.settings.get("shift", model.settings.get("flow_shift"))
        if shift is not None:
            flow.update(shift=shift, flow_shift=shift)
        settings.update({name: value for name, value in flow.items() if name in settings})
    return settings


def apply_schedule(settings: dict[str, Value], schedule: str, sampler: Sampler) -> set[str]:
    """Puts a schedule's settings in place of the checkpoint's own; returns those that the sampler has to know."""
    for flag in RAMP_FLAGS:
        settings.pop(flag, None)
    changes = SCHEDULES[schedule].settings
    required = set(changes)
    if changes["ramp"] is not None and "timestep_spacing" not in sampler.grid_settings:
        required.discard("timestep_spacing")  # it only sets the ends of the ramp, where there is a choice
    elif changes["ramp"] is None:
        required.discard("ramp")
    settings.update({name: value for name, value in changes.items() if name in required or name == "ramp"})
    return required


def unread(
    sampler: Sampler, grid: GridFunction, settings: Mapping[str, Value], asked: Collection[str]
) -> dict[str, Value]:
    """The settings that neither solver nor grid nor the training schedule reads, and that might matter."""
    silent = {"prediction_type", "use_flow_sigmas", *TRAINING_FIELDS, *RAMP_FLAGS, *RUN_OPTIONS, *DEPENDENT}
    silent |= UNREAD.get(sampler.diffusers_class, frozenset()) - set(asked)
    if sampler.diffusers_class == "IPNDMScheduler":
        silent.discard("trained_betas")
    if grid is sampler.flow_grid:
        silent |= UNREAD_WITH_FLOW - set(asked)
    elif sampler.flow_grid is None:
        silent.discard("use_flow_sigmas")
    if settings.get("ramp") is None:
        silent.add("ramp")
    read = sampler.settings_of(grid)
    return {name: value for name, value in settings.items() if name not in silent and name not in read}


def check_prediction(sampler: Sampler, kind: str, prediction_type: str, error: type[InputError]) -> None:
    """Refuses a prediction type that the sampler, or a rectified flow, does not have."""
    allowed = sampler.prediction_types
    if kind == "flow":
        allowed = tuple(name for name in (*allowed, "flow_prediction") if name != "v_prediction")
    if prediction_type not in allowed:
        raise error(
            f"{sampler.name} cannot run a {kind} model of this prediction_type",
            received=prediction_type,
            expected=" or ".join(allowed),
        )


def training_schedule(model: ModelSchedule) -> TrainingSchedule:
    """The betas of the checkpoint, with the defaults of its own scheduler class."""
    fields = {**TRAINING, "rescale_betas_zero_snr": False, **CLASSES[model.class_name], **model.settings}
    betas = fields["trained_betas"]
    return TrainingSchedule(
        int(number(fields["num_train_timesteps"])),
        number(fields["beta_start"]),
        number(fields["beta_end"]),
        str(fields["beta_schedule"]),
        betas if isinstance(betas, tuple) else None,
        bool(fields["rescale_betas_zero_snr"]),
    )


def number(value: Value) -> float:
    """``value``, which was checked to be a number, as one."""
    assert isinstance(value, int | float)
    return float(value)


def ramp_of(settings: Mapping[str, Value], error: type[InputError]) -> str | None:
    """The ramp that diffusers' ``use_..._sigmas`` flags ask for."""
    flags = [flag for flag in RAMP_FLAGS if settings.get(flag)]
    if len(flags) > 1:
        raise error("more than one sigma spacing", received=" and ".join(flags), expected="one of them")
    return RAMP_FLAGS[flags[0]] if flags else None
