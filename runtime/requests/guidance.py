"""How strongly a run follows its prompt: the arguments about guidance, checked."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from ..bundles.manifest import Manifest
from ..checks import finite, fraction, interval
from ..errors import RequestError
from .source import Source


@dataclass(frozen=True)
class SkipLayers:
    """Skip-layer guidance: its scale, and the fractions of the run between which it acts."""

    scale: float
    start: float
    stop: float


@dataclass(frozen=True)
class Guidance:
    """Guidance of a run: one ``scale`` or one for each step, the fractions of the run outside which it is off, and how
    far predictions are scaled back. ``guided`` is whether there are unconditional rows.
    """

    scale: float | tuple[float, ...]
    interval: tuple[float, float] | None
    rescale: float
    guided: bool
    skip_layers: SkipLayers | None


def guidance_from_arguments(
    manifest: Manifest,
    source: Source,
    *,
    guidance_scale: float | Sequence[float] | None,
    guidance_interval: tuple[float, float] | None,
    guidance_rescale: float,
    skip_layer_guidance_scale: float | None,
    skip_layer_guidance_start: float | None,
    skip_layer_guidance_stop: float | None,
) -> Guidance:
    """Check the arguments about guidance and fill in the bundle's defaults.

    Raises:
        RequestError: one that is not what it should be, or that the denoiser was not trained for.
    """
    scale = _scale(manifest.defaults.guidance_scale if guidance_scale is None else guidance_scale)
    if manifest.conditioning.guidance_embedding and (isinstance(scale, tuple) or guidance_interval is not None):
        raise RequestError(
            f"{manifest.name} was distilled to one guidance scale for the whole run",
            received="guidance_interval" if guidance_interval is not None else "a list of guidance scales",
            expected="guidance_scale as one number",
        )
    guided = _guided(scale, source, manifest)
    skip_layers = _skip_layers(
        skip_layer_guidance_scale, skip_layer_guidance_start, skip_layer_guidance_stop, guided, manifest
    )
    return Guidance(
        scale=scale,
        interval=None if guidance_interval is None else interval("guidance_interval", guidance_interval),
        rescale=_rescale(guidance_rescale, manifest, skip_layers),
        guided=guided,
        skip_layers=skip_layers,
    )


def _scale(scale: Any) -> float | tuple[float, ...]:
    if isinstance(scale, Sequence) and not isinstance(scale, str | bytes):
        return tuple(finite("guidance_scale", one) for one in scale)
    return finite("guidance_scale", scale)


def _guided(scale: float | tuple[float, ...], source: Source, manifest: Manifest) -> bool:
    """Whether there are unconditional rows; as in diffusers, none for a guidance scale of 1 or less."""
    if manifest.conditioning.guidance_embedding:
        return False  # the denoiser is told the scale and applies it itself
    if source.image_guidance_scale is not None and source.image_guidance_scale < 1:
        return False
    return any(one > 1 for one in (scale if isinstance(scale, tuple) else (scale,)))


def _skip_layers(
    scale: float | None, start: float | None, stop: float | None, guided: bool, manifest: Manifest
) -> SkipLayers | None:
    if scale is None and start is None and stop is None:
        return None
    own = manifest.skip_layer_guidance
    if own is None or not guided:
        raise RequestError(
            "skip-layer guidance",
            received=f"{manifest.name}, whose denoiser cannot skip layers" if own is None else "guidance_scale up to 1",
            expected="Stable Diffusion 3.5 Medium" if own is None else "guidance_scale above 1, which it adds to",
        )
    return SkipLayers(
        own.scale if scale is None else finite("skip_layer_guidance_scale", scale),
        own.start if start is None else fraction("skip_layer_guidance_start", start),
        own.stop if stop is None else fraction("skip_layer_guidance_stop", stop),
    )


def _rescale(rescale: float, manifest: Manifest, skip_layers: SkipLayers | None) -> float:
    value = fraction("guidance_rescale", rescale)
    if value and (manifest.task == "edit" or skip_layers is not None):
        raise RequestError(
            "guidance_rescale with a third prediction",
            received=value,
            expected="0 with an edit or skip-layer guidance: it compares the prompt's prediction with the guided one",
        )
    return value
