"""What a call gives: pictures, and a record of how each was made."""

from __future__ import annotations

import os
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from ..bundles.bundle import Bundle
from ..errors import RequestError
from ..requests.prompts import Texts
from ..requests.request import Request
from ..samplers import SamplerTable
from ..timing import Timings
from ..version import __version__
from .per_image import PerImage
from .pictures import hash_of
from .provenance import Provenance, RefinerProvenance, require_writable, write_png


@dataclass(frozen=True)
class Output:
    """What a call gives.

    ``images`` depends on ``output_type``: a list of PIL pictures, float32 ``[images, H, W, 3]`` in 0..1, float32
    latents ``[images, C, h, w]``, or a buffer of the device, uint8 ``[images, H, W, 3]`` or the latents. ``seeds`` and
    ``provenance`` have one entry per image. ``steps_done`` is less than the steps asked for when a callback stopped the
    run.
    """

    images: Any
    seeds: tuple[int, ...]
    timings: Timings
    provenance: tuple[Provenance, ...]
    steps_done: int

    def save(self, path: str | os.PathLike[str]) -> list[Path]:
        """Write the pictures as PNGs with their provenance: ``out.png``, or ``out-0.png``, ``out-1.png`` for several.

        Raises:
            RequestError: the call's output_type was not ``"pil"``.
            OutputError: a name that does not end in ``.png``, or files that cannot be written.
        """
        if not isinstance(self.images, list):
            raise RequestError("save", received="no PIL pictures", expected="a call with output_type='pil'")
        path = require_writable(path)
        paths = (
            [path] if len(self.images) == 1 else [path.with_stem(f"{path.stem}-{i}") for i in range(len(self.images))]
        )
        for image, made, target in zip(self.images, self.provenance, paths, strict=True):
            write_png(target, image, made)
        return paths


def provenance_of(
    request: Request,
    table: SamplerTable,
    bundle: Bundle,
    provider: str,
    stopped_after: int | None,
    refiner: RefinerProvenance | None = None,
) -> tuple[Provenance, ...]:
    """The record of every picture of a request; ``stopped_after`` steps by a callback, if it was."""
    manifest = bundle.manifest
    size, source, guidance, decoding = request.positive_size, request.source, request.guidance, request.decoding
    skip = guidance.skip_layers
    image = source.latents if source.pictures is None else source.pictures
    image_hashes, mask_hashes, depth_hashes = (
        _hashes(values, request.images) for values in (image, source.mask, source.depth)
    )
    return tuple(
        Provenance(
            **_texts("prompt", request.prompts[i]),
            **_texts("negative_prompt", request.negative_prompts[i]),
            seed=request.seeds[i],
            rng=request.rng,
            initial_latents="seed" if request.latents is None else "given",
            sampler=table.sampler,
            schedule=table.schedule,
            num_inference_steps=table.num_inference_steps,
            stopped_after=stopped_after,
            guidance_scale=guidance.scale,
            guidance_interval=guidance.interval,
            guidance_rescale=guidance.rescale,
            sampler_options=request.sampler_options,
            width=request.width,
            height=request.height,
            original_size=size.original_size,
            crops_coords_top_left=size.crops_coords_top_left,
            target_size=size.target_size,
            image_sha256=image_hashes[i],
            mask_sha256=mask_hashes[i],
            depth_sha256=depth_hashes[i],
            strength=source.strength,
            denoising_start=source.denoising_start,
            denoising_end=request.denoising_end,
            image_guidance_scale=source.image_guidance_scale,
            skip_layer_guidance=None if skip is None else (skip.scale, skip.start, skip.stop),
            max_sequence_length=request.max_sequence_length,
            decoder=None if decoding is None else decoding.component,
            tile_size=None if decoding is None else decoding.tile_size,
            refiner=refiner,
            bundle=manifest.name,
            bundle_hash=bundle.hash,
            family=manifest.family,
            provider=provider,
            latentrt=__version__,
        )
        for i in range(request.images)
    )


def _hashes(values: PerImage | None, images: int) -> list[str | None]:
    """The hash of what each image has of a picture; of what several have it is taken once."""
    if values is None:
        return [None] * images
    hashes = [hash_of(value) for value in values.values]
    return [hashes[i] for i in values.index]


def _texts(name: str, texts: Texts | None) -> dict[str, Any]:
    """The texts of a picture by their names in the record; those that are the first one again are left out."""
    first, *others = texts or (None,)
    named = {f"{name}_{number}": other for number, other in enumerate(others, start=2) if other != first}
    return {name: first, **named}
