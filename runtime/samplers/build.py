"""``build_table``: a sampler, a schedule and a step count, compiled."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import fields
from functools import lru_cache, partial
from typing import TypeVar

import numpy as np
from numpy.typing import NDArray

from ...kernels.table_rows import DRAWS, HISTORY
from ..errors import RequestError
from .linear_form import symbol
from .model_schedule import ModelSchedule, Value
from .names import sampler_and_schedule, schedule_called
from .parameterization import model_output
from .partial_run import first_step, last_evaluation
from .registry import BY_NAME, FLOW_FORMS, SAMPLERS
from .request import TableRequest
from .sampler import Sampler, keyword_parameters
from .settings import Resolved, resolve
from .table import SamplerTable
from .trace import Trace

Scalar = TypeVar("Scalar", bound=np.generic)

LARGEST_INTEGER = 2**63 - 1


def build_table(
    sampler: str | None,
    schedule: str | None,
    num_inference_steps: int | None,
    model_schedule: ModelSchedule,
    *,
    guidance_scale: float | Sequence[float] = 1.0,
    guidance_interval: tuple[float, float] | None = None,
    **options: Value | Sequence[float],
) -> SamplerTable:
    """The table of ``sampler`` (None: the checkpoint's own) on ``schedule`` (None: the checkpoint's spacing).

    Args:
        guidance_scale: one number, or one per inference step that runs.
        guidance_interval: fractions of the run, ``(start, stop)``; guidance is 1 in steps outside it.
        options: settings of the sampler (``eta``, ``solver_order``, fields of its diffusers scheduler), explicit
            ``timesteps`` or ``sigmas``, and for partial runs ``strength``, ``denoising_start``, ``denoising_end``.

    Tables are cached by all arguments, immutable, and safe to share between threads.

    Raises:
        RequestError: an unknown name or option, or a combination that the sampler cannot run.
    """
    return table_from_request(
        TableRequest(
            sampler,
            schedule,
            num_inference_steps,
            model_schedule,
            plain("guidance_scale", guidance_scale),
            plain("guidance_interval", guidance_interval),
            tuple((name, plain(name, value)) for name, value in sorted(options.items())),
        )
    )


def plain(name: str, value: object) -> Value:
    """An argument as a number, a text or a tuple of numbers, which can be compared and cached."""
    if isinstance(value, np.ndarray | np.generic):
        value = value.tolist()
    if value is None or isinstance(value, str):
        return value
    if isinstance(value, int | float):
        return in_range(name, value)
    if isinstance(value, Sequence) and all(isinstance(item, int | float) for item in value):
        return tuple(in_range(name, item) for item in value)
    raise RequestError(f"{name} is no number, text or list of numbers", received=repr(value)[:80])


def in_range(name: str, value: float) -> float:
    """A number that numpy can hold; Python's own integers have no end."""
    if isinstance(value, int) and abs(value) > LARGEST_INTEGER:
        received = f"an integer of {value.bit_length()} bits"
        raise RequestError(name, received=received, expected="integers of at most 64 bits")
    return value


@lru_cache(maxsize=512)
def table_from_request(request: TableRequest) -> SamplerTable:
    """The table of a request, compiled or found among those compiled before; see ``build_table``."""
    sampler, schedule = named_sampler(request)
    settings = resolve(
        sampler, schedule, request.model_schedule, dict(request.options), named=request.sampler is not None
    )
    if request.num_inference_steps is None and settings.ramp is not None:
        raise RequestError(
            "explicit timesteps or sigmas leave nothing to space",
            received=f"a {settings.ramp} schedule with them",
            expected="schedule='linspace', or a step count in place of the list",
        )
    try:
        with np.errstate(all="ignore"):  # what overflows or divides by zero is found in the finished table
            table = _solve(sampler, settings, request)
    except ArithmeticError as error:
        raise undefined(sampler, settings, str(error)) from None
    numbers = (getattr(table, field.name) for field in fields(table) if "sigmas" not in field.name)
    if not all(np.isfinite(array).all() for array in numbers if isinstance(array, np.ndarray)):
        raise undefined(sampler, settings, f"sigmas from {table.sigmas[0]:g} to {table.sigmas[-1]:g}")
    return table


def _solve(sampler: Sampler, settings: Resolved, request: TableRequest) -> SamplerTable:
    """The solver's walk along the grid as a table, which need not be finite."""
    grid = settings.grid(settings.training, request.steps, **grid_settings(settings))
    output_of = grid.output_of or partial(model_output, settings.prediction_type)

    def run(begin: int) -> Trace:
        trace = Trace(grid, output_of, begin)
        trace.finish(sampler.solver(trace, symbol("x", 0), **settings.solver_settings))
        return trace

    trace = run(0)
    begin = first_step(trace, settings)
    trace = run(begin) if begin else trace
    return table_of(trace, last_evaluation(trace, settings), sampler, settings, request)


def undefined(sampler: Sampler, settings: Resolved, received: str) -> RequestError:
    """The error for settings that lead out of the numbers."""
    return RequestError(
        f"{sampler.name} is not defined with these settings",
        received=f"{received}, schedule {settings.schedule}",
        expected="noise levels that a model is trained at",
    )


def named_sampler(request: TableRequest) -> tuple[Sampler, str | None]:
    """The sampler that the request names, and the schedule, either of which may be the checkpoint's own (None)."""
    asked = None if request.schedule is None else schedule_called(request.schedule)
    if request.sampler is None:
        return BY_NAME[request.model_schedule.sampler], asked
    sampler, included = sampler_and_schedule(request.sampler)
    if request.model_schedule.kind == "flow":
        sampler = BY_NAME[FLOW_FORMS.get(sampler.name, sampler.name)]
    if asked is not None and included is not None and asked != included:
        raise RequestError(
            "the sampler's name includes another schedule than the one asked for",
            received=f"sampler={request.sampler!r}, schedule={request.schedule!r}",
            expected="one of the two",
        )
    return sampler, asked or included


def grid_settings(settings: Resolved) -> dict[str, Value]:
    """The grid's settings, with the prediction type where it needs that."""
    if "prediction_type" not in keyword_parameters(settings.grid):
        return settings.grid_settings
    return {**settings.grid_settings, "prediction_type": settings.prediction_type}


def table_of(
    trace: Trace, evaluations: int, sampler: Sampler, settings: Resolved, request: TableRequest
) -> SamplerTable:
    """The first ``evaluations`` updates of ``trace`` as arrays."""
    done, updates = trace.evaluations[:evaluations], trace.updates[:evaluations]
    draws = [draw for draw in trace.draws if draw.evaluation < evaluations]
    drawn_in = [draw.evaluation for draw in draws]
    # draws so far, that of the update at hand included
    drawn = np.searchsorted(drawn_in, np.arange(evaluations), side="right")
    history = noises = 0
    for k, update in enumerate(updates):
        for kind, index in update.terms:
            history = max(history, k - index + 1) if kind == "d" else history
            noises = max(noises, int(drawn[k]) - index) if kind == "z" else noises
    for what, needed, kept in (("model outputs", history, HISTORY), ("draws of noise", noises, DRAWS)):
        if needed > kept:
            raise RequestError(
                f"{sampler.name} needs a longer history than the runtime keeps",
                received=f"{needed} {what}",
                expected=f"at most {kept}: a lower order",
            )
    # Stored outputs are scaled so that the newest has weight 1 in its own update: one product less per evaluation.
    scales = [update.weight(("d", k)) or 1.0 for k, update in enumerate(updates)]
    step = np.asarray([evaluation.step for evaluation in done], dtype=np.int64)
    # where each state lives; the last one of a run that is cut short lives where the evaluation left out would see it
    places = [*(evaluation.point for evaluation in trace.evaluations), trace.points[-1]][: evaluations + 1]
    levels = [point.sigma for point in trace.points]
    return SamplerTable(
        timesteps=frozen([evaluation.point.timestep for evaluation in done]),
        input_scale=frozen([evaluation.point.input_scale for evaluation in done]),
        state_to_stored=frozen([e.state_to_stored * scale for e, scale in zip(done, scales, strict=True)]),
        output_to_stored=frozen([e.output_to_stored * scale for e, scale in zip(done, scales, strict=True)]),
        state_weight=frozen([update.weight(("x", k)) for k, update in enumerate(updates)]),
        history_weights=frozen(
            [
                [update.weight(("d", k - j)) / scales[k - j] if j <= k else 0.0 for j in range(history)]
                for k, update in enumerate(updates)
            ]
        ),
        noise_weights=frozen(
            [[update.weight(("z", int(drawn[k]) - 1 - j)) for j in range(noises)] for k, update in enumerate(updates)]
        ),
        draws_noise=read_only(np.isin(np.arange(evaluations), drawn_in)),
        noise_sigmas=frozen([draw.sigmas for draw in draws]).reshape(-1, 2),
        noise=noise_kind(sampler, settings),
        noise_range=(min(sigma for sigma in levels if sigma > 0), max(levels)),
        guidance=frozen(guidance_per_step(request, int(step[-1]) + 1)[step]),
        step=read_only(step),
        state_signal=frozen([place.signal for place in places]),
        state_noise=frozen([place.noise for place in places]),
        output_signal=frozen([trace.output_of(evaluation.point).signal for evaluation in done]),
        output_noise=frozen([trace.output_of(evaluation.point).noise for evaluation in done]),
        sigmas=frozen([place.sigma for place in places]),
        initial_noise_scale=trace.grid.initial_noise_scale,
        num_inference_steps=trace.count,
        order=sampler.order,
        sampler=sampler.name,
        schedule=settings.schedule,
        request=request,
    )


def noise_kind(sampler: Sampler, settings: Resolved) -> str:
    """Where the noise comes from: independent tensors, or increments of one Brownian motion per seed."""
    kind = settings.run.get("noise", "gaussian")
    if kind not in ("gaussian", "brownian"):
        raise RequestError("unknown noise", received=repr(kind), expected="gaussian or brownian")
    if kind == "brownian" and not sampler.brownian:
        names = ", ".join(other.name for other in SAMPLERS if other.brownian)
        raise RequestError(f"{sampler.name} has no Brownian noise", received="noise='brownian'", expected=names)
    return str(kind)


def guidance_per_step(request: TableRequest, steps: int) -> NDArray[np.float64]:
    """``[steps]``: the guidance of each inference step."""
    if not isinstance(request.guidance_scale, int | float | tuple):
        raise RequestError("guidance_scale is not a number", received=repr(request.guidance_scale))
    scale = np.asarray(request.guidance_scale, dtype=np.float64)
    if scale.ndim == 1 and len(scale) != steps:
        raise RequestError("guidance_scale needs one number, or one per step", received=len(scale), expected=steps)
    if not np.isfinite(scale).all():
        raise RequestError("guidance_scale is not finite", received=request.guidance_scale)
    guidance = np.broadcast_to(scale, steps).copy()
    interval = request.guidance_interval
    if interval is not None:
        if not isinstance(interval, tuple) or len(interval) != 2 or not 0 <= interval[0] <= interval[1] <= 1:
            raise RequestError(
                "guidance_interval is not an interval of the run",
                received=repr(interval),
                expected="(start, stop) with 0 <= start <= stop <= 1",
            )
        start, stop = interval
        fraction = np.arange(steps) / steps
        guidance[(fraction < start) | (fraction >= stop)] = 1.0
    return guidance


def frozen(values: object) -> NDArray[np.float64]:
    """A read-only float64 array."""
    array = np.array(values, dtype=np.float64)
    array.setflags(write=False)
    return array


def read_only(array: NDArray[Scalar]) -> NDArray[Scalar]:
    """The same array, which can no longer be written to."""
    array.setflags(write=False)
    return array
