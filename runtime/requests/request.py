"""One generation request, checked and completed at the edge, so that nothing behind it needs to doubt it."""

from __future__ import annotations

import secrets
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Literal, get_args

import numpy as np
from numpy.typing import NDArray

from ..bundles.manifest import Manifest
from ..checks import fraction, integer, numbers, one_of, shown, text
from ..errors import RequestError
from ..images.pictures import is_latents
from ..noise.sources import GENERATORS, TORCH_CPU
from ..samplers.model_schedule import Value
from .arguments import Size
from .decoding import Decoding, decoding_from
from .guidance import Guidance, guidance_from_arguments
from .prompts import Texts, negative_prompts_from_arguments, prompts_from_arguments
from .sampler_options import sampler_options_from_argument
from .size_conditioning import SizeConditioning, size_conditioning_from_arguments
from .sizes import size_of_run
from .source import Frame, Source, source_from_arguments

MAX_STEPS = 1000
MAX_SEED = 2**64 - 1
MAX_IMAGES = 1000  # of one call, which keeps all of them in memory
OutputType = Literal["pil", "np", "latent", "dlpack", "latent-dlpack"]
#: Output types that are the last state itself.
LATENTS = ("latent", "latent-dlpack")


@dataclass(frozen=True)
class Request:
    """A valid request. ``prompts`` has one entry per picture; ``negative_prompts`` likewise, ``None`` where omitted."""

    prompts: tuple[Texts, ...]
    negative_prompts: tuple[Texts | None, ...]
    width: int
    height: int
    num_inference_steps: int | None
    guidance: Guidance
    seeds: tuple[int, ...]
    rng: str
    sampler: str | None
    schedule: str | None
    sampler_options: Mapping[str, Value]
    max_sequence_length: int | None
    latents: NDArray[np.float32] | None
    source: Source
    denoising_end: float | None
    output_type: OutputType
    decoding: Decoding | None
    positive_size: SizeConditioning
    negative_size: SizeConditioning

    @property
    def images(self) -> int:
        """How many pictures the request makes."""
        return len(self.prompts)


def request_from_arguments(
    manifest: Manifest,
    prompt: str | Sequence[str],
    *,
    prompt_2: str | Sequence[str] | None = None,
    prompt_3: str | Sequence[str] | None = None,
    negative_prompt: str | Sequence[str] | None = None,
    negative_prompt_2: str | Sequence[str] | None = None,
    negative_prompt_3: str | Sequence[str] | None = None,
    num_images_per_prompt: int = 1,
    width: int | None = None,
    height: int | None = None,
    seed: int | Sequence[int] | None = None,
    rng: str = TORCH_CPU,
    latents: Any = None,
    max_sequence_length: int | None = None,
    num_inference_steps: int | None = None,
    guidance_scale: float | Sequence[float] | None = None,
    guidance_interval: tuple[float, float] | None = None,
    guidance_rescale: float = 0.0,
    sampler: str | None = None,
    schedule: str | None = None,
    sampler_options: Mapping[str, Any] | None = None,
    skip_layer_guidance_scale: float | None = None,
    skip_layer_guidance_start: float | None = None,
    skip_layer_guidance_stop: float | None = None,
    image: Any = None,
    strength: float | None = None,
    mask_image: Any = None,
    image_guidance_scale: float | None = None,
    depth_map: Any = None,
    denoising_start: float | None = None,
    denoising_end: float | None = None,
    original_size: Size | None = None,
    crops_coords_top_left: Size = (0, 0),
    target_size: Size | None = None,
    negative_original_size: Size | None = None,
    negative_crops_coords_top_left: Size = (0, 0),
    negative_target_size: Size | None = None,
    aesthetic_score: float = 6.0,
    negative_aesthetic_score: float = 2.5,
    output_type: str = "pil",
    decoder: str = "vae",
    tile_size: int | None = None,
    tile_overlap: float = 0.25,
) -> Request:
    """Check the arguments of a pipeline call and fill in the bundle's defaults; ``CallArguments`` describes them.

    Raises:
        RequestError: anything that cannot be run, saying what was received and what is expected.
    """
    prompts = prompts_from_arguments(manifest, prompt, prompt_2, prompt_3)
    negatives = negative_prompts_from_arguments(
        manifest, len(prompts), negative_prompt, negative_prompt_2, negative_prompt_3
    )
    per_prompt = integer("num_images_per_prompt", num_images_per_prompt, 1, MAX_IMAGES)
    images = len(prompts) * per_prompt
    if denoising_start is not None and latents is not None:  # no noise is added: they are the state it goes on from
        image, latents = _state(image, latents, manifest), None
    height, width = size_of_run(height, width, image, manifest)
    source = source_from_arguments(
        manifest,
        Frame(height, width, len(prompts), images),
        image=image,
        mask_image=mask_image,
        depth_map=depth_map,
        strength=strength,
        denoising_start=denoising_start,
        image_guidance_scale=image_guidance_scale,
    )
    options = sampler_options_from_argument(sampler_options)
    steps = num_inference_steps
    if steps is None and not options.keys() & {"timesteps", "sigmas"}:  # a list says how many there are
        steps = manifest.defaults.num_inference_steps
    guidance = guidance_from_arguments(
        manifest,
        source,
        guidance_scale=guidance_scale,
        guidance_interval=guidance_interval,
        guidance_rescale=guidance_rescale,
        skip_layer_guidance_scale=skip_layer_guidance_scale,
        skip_layer_guidance_start=skip_layer_guidance_start,
        skip_layer_guidance_stop=skip_layer_guidance_stop,
    )
    output: OutputType = one_of("output_type", output_type, get_args(OutputType))  # type: ignore[assignment]

    positive, negative = size_conditioning_from_arguments(
        manifest,
        (height, width),
        original_size=original_size,
        crops_coords_top_left=crops_coords_top_left,
        target_size=target_size,
        negative_original_size=negative_original_size,
        negative_crops_coords_top_left=negative_crops_coords_top_left,
        negative_target_size=negative_target_size,
        aesthetic_score=aesthetic_score,
        negative_aesthetic_score=negative_aesthetic_score,
    )
    return Request(
        prompts=tuple(text for text in prompts for _ in range(per_prompt)),
        negative_prompts=tuple(text for text in negatives for _ in range(per_prompt)),
        width=width,
        height=height,
        num_inference_steps=None if steps is None else integer("num_inference_steps", steps, 1, MAX_STEPS),
        guidance=guidance,
        seeds=_seeds(seed, images),
        rng=one_of("rng", rng, GENERATORS),
        sampler=None if sampler is None else text("sampler", sampler),
        schedule=None if schedule is None else text("schedule", schedule),
        sampler_options=options,
        max_sequence_length=_sequence_length(max_sequence_length, manifest),
        latents=_latents(latents, images, height, width, manifest),
        source=source,
        denoising_end=None if denoising_end is None else fraction("denoising_end", denoising_end),
        output_type=output,
        decoding=None if output in LATENTS else decoding_from(decoder, tile_size, tile_overlap, manifest),
        positive_size=positive,
        negative_size=negative,
    )


def _seeds(seed: int | Sequence[int] | None, images: int) -> tuple[int, ...]:
    if seed is None:
        seed = secrets.randbits(32)
    if isinstance(seed, Sequence) and not isinstance(seed, str | bytes):
        if len(seed) != images:
            raise RequestError(
                "seed", received=f"{len(seed)} seeds", expected=f"one seed, or {images}: one for each image"
            )
        return tuple(integer("seed", one, 0, MAX_SEED) for one in seed)
    first = integer("seed", seed, 0, MAX_SEED)
    return tuple((first + i) % (MAX_SEED + 1) for i in range(images))


def _latents(latents: Any, images: int, height: int, width: int, manifest: Manifest) -> NDArray[np.float32] | None:
    if latents is None:
        return None
    space = manifest.latent_space
    shape = (images, space.channels, height // space.scale, width // space.scale)
    return numbers("latents", latents, shape, np.float32)


def _state(image: Any, latents: Any, manifest: Manifest) -> Any:
    """The latents that a run with ``denoising_start`` goes on from, in place of an ``image`` that would say so too."""
    if image is not None:
        raise RequestError("image and latents with denoising_start", expected="one of them: the run goes on from it")
    if not is_latents(latents, manifest.latent_space.channels):
        expected = f"float32 [n, {manifest.latent_space.channels}, h, w]"
        raise RequestError("latents with denoising_start", received=shown(latents), expected=expected)
    return latents


def _sequence_length(length: int | None, manifest: Manifest) -> int | None:
    if length is None:
        return None
    able = [encoding for encoding in manifest.text_encodings if encoding.max_tokens > encoding.tokens]
    if not able:
        raise RequestError("max_sequence_length", received=shown(length), expected="a bundle with T5")
    for encoding in able:
        if encoding.tokenizer is None:
            raise RequestError(
                "max_sequence_length",
                received=f"{shown(length)}, for a bundle without {encoding.component}",
                remedy=f"build it: latentrt build-engines CHECKPOINT --out BUNDLE --component {encoding.component}",
            )
    return integer("max_sequence_length", length, 1, max(encoding.max_tokens for encoding in able))
