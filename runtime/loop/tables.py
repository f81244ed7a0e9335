"""The sampler's table of a request."""

from __future__ import annotations

from typing import Any

from ..bundles.manifest import Manifest
from ..requests.request import Request
from ..samplers import SamplerTable, build_table
from ..samplers.diffusers_classes import DYNAMIC_SHIFT
from ..samplers.flow_schedules import dynamic_mu
from ..samplers.model_schedule import ModelSchedule
from ..samplers.names import schedule_for_family


def table_of(request: Request, manifest: Manifest, model_schedule: ModelSchedule) -> SamplerTable:
    """Build the table of a request, or find it among those built before.

    Raises:
        RequestError: a sampler, schedule, option or partial run that the model cannot do.
    """
    options: dict[str, Any] = dict(request.sampler_options)
    partial = {
        "strength": request.source.strength,
        "denoising_start": request.source.denoising_start,
        "denoising_end": request.denoising_end,
    }
    options.update({name: value for name, value in partial.items() if value is not None})
    shifted = options.get("use_dynamic_shifting", model_schedule.settings.get("use_dynamic_shifting", False))
    if shifted and not options.keys() & {"mu", "image_seq_len"}:
        options["mu"] = _mu(request, manifest, {**model_schedule.settings, **options})
    return build_table(
        request.sampler,
        schedule_for_family(request.schedule, manifest.family),
        request.num_inference_steps,
        model_schedule,
        guidance_scale=_guidance(request),
        guidance_interval=request.guidance.interval,
        **options,
    )


def _guidance(request: Request) -> float | tuple[float, ...]:
    """What each step is guided with: 1, which costs one row, where the scale is 1 or less, as in diffusers."""
    scale, guided = request.guidance.scale, request.guidance.guided
    if isinstance(scale, tuple):
        return tuple(max(one, 1.0) if guided else 1.0 for one in scale)
    return scale if guided else 1.0


def _mu(request: Request, manifest: Manifest, settings: dict[str, Any]) -> float:
    """The shift of a rectified flow for the request's number of latent patches."""
    stride = manifest.latent_space.stride
    patches = (request.height // stride) * (request.width // stride)
    return dynamic_mu(None, patches, **{name: settings.get(name, default) for name, default in DYNAMIC_SHIFT.items()})
