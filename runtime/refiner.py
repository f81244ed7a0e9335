"""A base model and a refiner as one pipeline: an ensemble of experts, or a second pass over the finished latents."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from typing import Unpack

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from .bundles.manifest import Manifest
from .checks import fraction
from .errors import RequestError
from .images.output import Output, provenance_of
from .images.per_image import each
from .images.provenance import RefinerProvenance
from .loop.callback import StepCallback, observer_of
from .noise.sources import noise_sources
from .owner import Owner
from .pipeline import Pipeline, finished
from .requests.arguments import CallArguments, Size
from .requests.request import Request
from .samplers import SamplerTable
from .timing import Timings

Array = NDArray[np.float32]

HANDOVER = 0.8  # of the schedule: where SDXL's authors switch (arXiv:2307.01952, section 2.5)

#: What concerns the first model only: how its run begins, what its denoiser and its text encoders can do, and the
#: decoder, which is always its own.
_OF_THE_BASE = (
    "latents", "image", "strength", "depth_map", "denoising_start", "image_guidance_scale", "max_sequence_length",
    "skip_layer_guidance_scale", "skip_layer_guidance_start", "skip_layer_guidance_stop",
    "prompt_2", "prompt_3", "negative_prompt_2", "negative_prompt_3", "decoder", "tile_size", "tile_overlap",
)  # fmt: skip


class RefinedPipeline(Owner):
    """Two pipelines whose latents are the same. It owns both: use it as a context manager, or call ``close``."""

    def __init__(self, base: Pipeline, refiner: Pipeline):
        self.base = base
        self.refiner = refiner

    def close(self) -> None:
        """Release the engines of both."""
        self.base.close()
        self.refiner.close()

    def __call__(
        self,
        prompt: str | Sequence[str],
        *,
        handover: float | None = None,
        refiner_strength: float | None = None,
        callback_on_step_end: StepCallback | None = None,
        **arguments: Unpack[CallArguments],
    ) -> Output:
        """Make pictures with both models, by one of two ways. All models and steps share each image's noise stream.

        Args:
            prompt: as in ``Pipeline.__call__``.
            handover: the base denoises this fraction of the schedule and the refiner the rest of the same schedule,
                with the latents as they are then (an ensemble of experts; diffusers' ``denoising_end`` and
                ``denoising_start``). 0.8 where ``refiner_strength`` is not given either.
            refiner_strength: the base finishes, and the refiner goes over its latents as image-to-image does (SDEdit).
            callback_on_step_end: called after every step of either model, with this pipeline; steps count on.
            arguments: everything else, see ``latentrt.runtime.CallArguments``, for both models. ``guidance_interval``
                and a list of guidance scales concern the steps of each; a picture is what the base starts from.

        Raises:
            RequestError: arguments that cannot be run.
            EngineError: the provider failed.
        """
        timings = Timings()
        with timings.call():
            observer = observer_of(callback_on_step_end, self)
            first, second = self._requests(prompt, handover, refiner_strength, arguments)
            if first.decoding is not None:
                self.base.engines.require(first.decoding.component)
            tables = self.base.table(first), self.refiner.table(second)
            streams = noise_sources(first.rng, first.seeds, self.base.engines.runner)
            with self.base.engines.runner.turn():
                run = self.base.run(first, tables[0], streams, timings, observer)
                done, refined = run.steps_done, not run.stopped
                if refined:
                    second = going_on(second, run.latents, *tables)
                    observer = observer_of(callback_on_step_end, self, steps_before=done)
                    run = self.refiner.run(second, tables[1], streams, timings, observer)
                    done += run.steps_done
                decoded = self.base.images(run.latents, first, timings)
        images = finished(decoded, first, timings)
        refiner = RefinerProvenance(
            bundle=self.refiner.bundle.manifest.name,
            bundle_hash=self.refiner.bundle.hash,
            handover=second.source.denoising_start,
            strength=second.source.strength,
            aesthetic_score=second.positive_size.aesthetic_score,
            negative_aesthetic_score=second.negative_size.aesthetic_score,
        )
        made = provenance_of(
            first,
            tables[0],
            self.base.bundle,
            self.base.provider,
            done if run.stopped else None,
            refiner if refined else None,
        )
        return Output(images, first.seeds, timings, made, done)

    def decode(
        self, latents: Array, *, decoder: str = "vae", tile_size: int | None = None, tile_overlap: float = 0.25
    ) -> Array:
        """Latents as pictures by the base's decoder; see ``Pipeline.decode``."""
        return self.base.decode(latents, decoder=decoder, tile_size=tile_size, tile_overlap=tile_overlap)

    def preview(self, latents: Array) -> list[Image.Image]:
        """Latents as pictures by the base's tiny decoder; see ``Pipeline.preview``."""
        return self.base.preview(latents)

    def warmup(self, sizes: Sequence[Size], *, num_images_per_prompt: int = 1, pictures: bool = False) -> None:
        """Prepare both models for pictures of these sizes; see ``Pipeline.warmup``."""
        self.base.warmup(sizes, num_images_per_prompt=num_images_per_prompt, pictures=pictures)
        self.refiner.prepare(sizes, num_images_per_prompt, pictures=False, decodes=False)

    def _requests(
        self, prompt: str | Sequence[str], handover: float | None, strength: float | None, arguments: CallArguments
    ) -> tuple[Request, Request]:
        """What each model is asked for; the refiner's has empty latents in place of those that do not exist yet."""
        if handover is not None and strength is not None:
            raise RequestError("handover and refiner_strength exclude each other", expected="one of them")
        if arguments.get("denoising_end") is not None:
            raise RequestError("denoising_end with a refiner", expected="handover, which is where the refiner goes on")
        first_part: CallArguments = {**arguments}
        second_part: CallArguments = {**arguments, "output_type": "latent"}
        for name in _OF_THE_BASE:
            second_part.pop(name, None)  # type: ignore[misc]  # a name of CallArguments
        if strength is None:
            if arguments.get("mask_image") is not None:
                raise RequestError("mask_image with a hand-over", expected="refiner_strength, which keeps to the mask")
            switch = HANDOVER if handover is None else fraction("handover", handover)
            if switch in (0, 1):
                raise RequestError("handover", received=handover, expected="a number between 0 and 1: steps for both")
            first_part["denoising_end"] = second_part["denoising_start"] = switch
        else:
            second_part["strength"] = fraction("refiner_strength", strength)
        first = self.base.request(prompt, **first_part)
        space = self.refiner.bundle.manifest.latent_space
        shape = (first.images, space.channels, first.height // space.scale, first.width // space.scale)
        second_part["image"] = np.zeros(shape, np.float32)
        second_part["seed"] = first.seeds
        if first.num_inference_steps is not None:  # each bundle may have another default
            second_part["num_inference_steps"] = first.num_inference_steps
        second_part["guidance_scale"] = first.guidance.scale
        return first, self.refiner.request(prompt, **second_part)


def check_latent_spaces(base: Manifest, refiner: Manifest) -> None:
    """Refuse a refiner that cannot go on from the base's latents.

    Raises:
        RequestError: their channels or their sizes differ.
    """
    ours, theirs = (
        f"{space.channels} channels, {space.scale} pixels each" for space in (base.latent_space, refiner.latent_space)
    )
    if ours != theirs:
        raise RequestError(
            f"the refiner {refiner.name} has other latents than {base.name}", received=theirs, expected=ours
        )


def going_on(request: Request, latents: Array, base: SamplerTable, refiner: SamplerTable) -> Request:
    """The refiner's request with the base's latents, in the state space of the refiner's sampler.

    Samplers scale their states differently (x0 + sigma eps, or unit variance): the share of the picture tells.
    """
    if request.source.denoising_start is not None:
        scale = refiner.start_signal / float(base.state_signal[-1])
        latents = latents if scale == 1 else latents * np.float32(scale)
    return replace(request, source=replace(request.source, latents=each(latents)))
