"""One generation request, checked and completed at the edge, so that nothing behind it needs to doubt it."""

from __future__ import annotations

import math
import secrets
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Literal, get_args

import numpy as np
from numpy.typing import NDArray

from .errors import RequestError
from .manifest import Manifest

MAX_STEPS = 1000
MAX_SEED = 2**64 - 1
OutputType = Literal["pil", "np", "latent"]
Size = tuple[int, int]  # (height, width) in image pixels, the order of diffusers' size arguments


@dataclass(frozen=True)
class SizeConditioning:
    """SDXL's micro-conditioning of one row, each a (height, width) or (top, left) pair in image pixels."""

    original_size: Size
    crops_coords_top_left: Size
    target_size: Size


@dataclass(frozen=True)
class Request:
    """A valid request. ``prompts`` has one entry per picture; ``negative_prompts`` likewise, ``None`` where omitted."""

    prompts: tuple[str, ...]
    negative_prompts: tuple[str | None, ...]
    width: int
    height: int
    num_inference_steps: int | None
    guidance_scale: float | tuple[float, ...]
    guidance_interval: tuple[float, float] | None
    seeds: tuple[int, ...]
    sampler: str | None
    schedule: str | None
    sampler_options: Mapping[str, Any]
    latents: NDArray[np.float32] | None
    output_type: OutputType
    positive_size: SizeConditioning
    negative_size: SizeConditioning

    @property
    def images(self) -> int:
        """How many pictures the request makes."""
        return len(self.prompts)

    @property
    def guided(self) -> bool:
        """Whether classifier-free guidance is on; as in diffusers, a scale of 1 or less turns it off."""
        scale = self.guidance_scale
        return any(one > 1 for one in (scale if isinstance(scale, tuple) else (scale,)))


def request_from_arguments(
    manifest: Manifest,
    prompt: str | Sequence[str],
    *,
    negative_prompt: str | Sequence[str] | None,
    width: int | None,
    height: int | None,
    num_inference_steps: int | None,
    guidance_scale: float | Sequence[float] | None,
    guidance_interval: tuple[float, float] | None,
    seed: int | Sequence[int] | None,
    num_images_per_prompt: int,
    sampler: str | None,
    schedule: str | None,
    sampler_options: Mapping[str, Any] | None,
    latents: Any,
    output_type: str,
    original_size: Size | None,
    crops_coords_top_left: Size,
    target_size: Size | None,
    negative_original_size: Size | None,
    negative_crops_coords_top_left: Size,
    negative_target_size: Size | None,
) -> Request:
    """Check the arguments of a pipeline call and fill in the bundle's defaults.

    Raises:
        RequestError: anything that cannot be run, saying what was received and what is expected.
    """
    prompts = _prompts(prompt)
    negatives = _negative_prompts(negative_prompt, len(prompts))
    per_prompt = _integer("num_images_per_prompt", num_images_per_prompt, 1, None)
    width = _side("width", manifest.defaults.width if width is None else width, manifest)
    height = _side("height", manifest.defaults.height if height is None else height, manifest)
    options = dict(sampler_options or {})
    steps = num_inference_steps
    if steps is None and not options.keys() & {"timesteps", "sigmas"}:  # a list says how many there are
        steps = manifest.defaults.num_inference_steps
    guidance = manifest.defaults.guidance_scale if guidance_scale is None else guidance_scale
    if output_type not in get_args(OutputType):
        raise RequestError("output_type", received=repr(output_type), expected="'pil', 'np' or 'latent'")

    size = (height, width)
    positive = SizeConditioning(
        _pair("original_size", original_size or size),
        _pair("crops_coords_top_left", crops_coords_top_left),
        _pair("target_size", target_size or size),
    )
    negative = positive
    if negative_original_size is not None and negative_target_size is not None:  # diffusers needs both, too
        negative = SizeConditioning(
            _pair("negative_original_size", negative_original_size),
            _pair("negative_crops_coords_top_left", negative_crops_coords_top_left),
            _pair("negative_target_size", negative_target_size),
        )
    images = len(prompts) * per_prompt
    return Request(
        prompts=tuple(text for text in prompts for _ in range(per_prompt)),
        negative_prompts=tuple(text for text in negatives for _ in range(per_prompt)),
        width=width,
        height=height,
        num_inference_steps=None if steps is None else _integer("num_inference_steps", steps, 1, MAX_STEPS),
        guidance_scale=_guidance(guidance),
        guidance_interval=guidance_interval,
        seeds=_seeds(seed, images),
        sampler=sampler,
        schedule=schedule,
        sampler_options=options,
        latents=_latents(latents, images, height, width, manifest),
        output_type=output_type,  # type: ignore[arg-type]  # checked above
        positive_size=positive,
        negative_size=negative,
    )


def _prompts(prompt: str | Sequence[str]) -> list[str]:
    prompts = [prompt] if isinstance(prompt, str) else list(prompt) if isinstance(prompt, Sequence) else None
    if prompts is None or not all(isinstance(text, str) for text in prompts):
        raise RequestError("prompt", received=f"{prompt!r:.80}", expected="a string or a list of strings")
    if not prompts:
        raise RequestError("prompt", received="an empty list", expected="at least one prompt ('' is a valid one)")
    return prompts


def _negative_prompts(negative: str | Sequence[str] | None, count: int) -> list[str | None]:
    if negative is None or isinstance(negative, str):
        return [negative] * count
    negatives = _prompts(negative) if negative else []
    if len(negatives) != count:
        raise RequestError(
            "negative_prompt",
            received=f"{len(negatives)} negative prompts for {count} prompt{'s' * (count != 1)}",
            expected="one string for all prompts, or one for each",
        )
    return list(negatives)


def _side(name: str, value: int, manifest: Manifest) -> int:
    space, denoiser = manifest.latent_space, manifest.components.get("denoiser")
    pixels = _integer(name, value, 1, None)
    low, high = space.stride, None
    if denoiser is not None:
        axis = denoiser.profile[name]
        low, high = axis.min * space.scale, axis.max * space.scale
    expected = f"a multiple of {space.stride} from {low}" + (f" to {high}" if high else "")
    if pixels % space.stride:
        near = max(low, round(pixels / space.stride) * space.stride)
        raise RequestError(name, received=pixels, expected=expected, remedy=f"the nearest is {min(near, high or near)}")
    if pixels < low or (high is not None and pixels > high):
        remedy = "build the bundle with larger or smaller --aspects to allow other sizes"
        raise RequestError(name, received=pixels, expected=expected, remedy=remedy)
    return pixels


def _seeds(seed: int | Sequence[int] | None, images: int) -> tuple[int, ...]:
    if seed is None:
        seed = secrets.randbits(32)
    if isinstance(seed, Sequence) and not isinstance(seed, str):
        if len(seed) != images:
            raise RequestError(
                "seed", received=f"{len(seed)} seeds", expected=f"one seed, or {images}: one for each image"
            )
        return tuple(_integer("seed", one, 0, MAX_SEED) for one in seed)
    first = _integer("seed", seed, 0, MAX_SEED)
    return tuple((first + i) % (MAX_SEED + 1) for i in range(images))


def _latents(latents: Any, images: int, height: int, width: int, manifest: Manifest) -> NDArray[np.float32] | None:
    if latents is None:
        return None
    space = manifest.latent_space
    shape = (images, space.channels, height // space.scale, width // space.scale)
    expected = f"float32 {list(shape)} of unit variance"
    if not hasattr(latents, "shape") or not hasattr(latents, "dtype"):
        raise RequestError("latents", received=type(latents).__name__, expected=f"an array, {expected}")
    array = np.asarray(latents)
    if array.shape != shape or array.dtype != np.float32:
        raise RequestError("latents", received=f"{array.dtype} {list(array.shape)}", expected=expected)
    if not np.isfinite(array).all():
        raise RequestError("latents", received="values that are not finite", expected=expected)
    return array


def _integer(name: str, value: Any, low: int, high: int | None) -> int:
    expected = f"an integer from {low} to {high}" if high is not None else f"an integer of at least {low}"
    if isinstance(value, bool) or not isinstance(value, (int, np.integer)):
        raise RequestError(name, received=repr(value), expected=expected)
    if value < low or (high is not None and value > high):
        raise RequestError(name, received=value, expected=expected)
    return int(value)


def _finite(name: str, value: Any) -> float:
    if (
        isinstance(value, bool)
        or not isinstance(value, (int, float, np.integer, np.floating))
        or not math.isfinite(value)
    ):
        raise RequestError(name, received=repr(value), expected="a finite number")
    return float(value)


def _guidance(scale: Any) -> float | tuple[float, ...]:
    if isinstance(scale, Sequence) and not isinstance(scale, str):
        return tuple(_finite("guidance_scale", one) for one in scale)
    return _finite("guidance_scale", scale)


def _pair(name: str, value: Size) -> Size:
    try:
        first, second = value
    except (TypeError, ValueError):
        raise RequestError(
            name, received=repr(value), expected="two integers: (height, width) or (top, left)"
        ) from None
    return _integer(name, first, 0, None), _integer(name, second, 0, None)
