"""A loaded bundle: call it, get pictures."""

from __future__ import annotations

from collections.abc import Generator, Mapping, Sequence
from contextlib import closing
from dataclasses import dataclass
from typing import Any, Unpack

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from ..kernels.reference import bytes_from_image
from .bundles.bundle import Bundle
from .checks import boolean, integer, numbers
from .device.dlpack import array_of, is_elsewhere, is_tensor
from .engines import Engines
from .images.decode import decode, decode_bytes, decode_on_device
from .images.encode import encode
from .images.output import Output, provenance_of
from .loop.callback import Observer, StepCallback, observer_of
from .loop.denoise import DenoiseStep, Task, denoise
from .loop.guidance import row_groups, skip_scales
from .loop.start import Start, start_of
from .loop.tables import table_of
from .loop.warmup import warm_up
from .noise.sources import noise_sources
from .noise.steps import StepNoise, step_noise
from .noise.torch_cpu import NoiseSource
from .owner import Owner
from .requests.arguments import CallArguments, Size, check_names
from .requests.decoding import decoding_from
from .requests.request import MAX_IMAGES, Request, request_from_arguments
from .requests.sizes import sizes_of_runs
from .samplers import SamplerTable
from .samplers.model_schedule import ModelSchedule
from .text.prompt_encoder import PromptEncoder
from .timing import Timings

Array = NDArray[np.float32]

#: Arguments that may be tensors of other libraries.
_TENSORS = {"latents", "image", "mask_image", "depth_map"}


@dataclass(frozen=True)
class Run:
    """What came of a request's steps: ``latents [images, C, h, w]``, and whether a callback ``stopped`` the run."""

    latents: Array
    steps_done: int
    stopped: bool


class Pipeline(Owner):
    """A loaded bundle. Calls keep no state in it, so one pipeline serves any number of threads.

    It owns engines: use it as a context manager, or call ``close``.
    """

    def __init__(
        self,
        bundle: Bundle,
        provider: str,
        engines: Engines,
        prompt_encoder: PromptEncoder,
        model_schedule: ModelSchedule,
    ):
        self.bundle = bundle
        self.provider = provider
        self.engines = engines
        self.prompt_encoder = prompt_encoder
        self._model_schedule = model_schedule

    def close(self) -> None:
        """Release the engines. A closed pipeline cannot be called."""
        self.engines.close()

    def __call__(
        self,
        prompt: str | Sequence[str],
        *,
        callback_on_step_end: StepCallback | None = None,
        **arguments: Unpack[CallArguments],
    ) -> Output:
        """Make pictures from texts, or from texts and pictures. Names and defaults are diffusers'.

        Args:
            prompt: one text, or a list of them; ``""`` is a text like any other.
            callback_on_step_end: called after every step as ``callback(pipeline, step_index, timestep, state)``;
                ``latentrt.runtime.StepState`` tells what it sees and what its answer means.
            arguments: everything else; ``latentrt.runtime.CallArguments`` describes each, with its unit and shape.

        Raises:
            RequestError: arguments that cannot be run.
            EngineError: the provider failed.
        """
        timings = Timings()
        with timings.call():
            observer = observer_of(callback_on_step_end, self)
            request = self.request(prompt, **arguments)
            if request.decoding is not None:
                self.engines.require(request.decoding.component)  # rather now than after the run
            table = self.table(request)
            streams = noise_sources(request.rng, request.seeds, self.engines.runner)
            with self.engines.runner.turn():
                run = self.run(request, table, streams, timings, observer)
                decoded = self.images(run.latents, request, timings)
        images = finished(decoded, request, timings)
        made = provenance_of(request, table, self.bundle, self.provider, run.steps_done if run.stopped else None)
        return Output(images, request.seeds, timings, made, run.steps_done)

    def decode(
        self, latents: Array, *, decoder: str = "vae", tile_size: int | None = None, tile_overlap: float = 0.25
    ) -> Array:
        """Latents ``[n, C, h, w]`` of any size that tiles can cover, as pictures ``[n, H, W, 3]`` in 0..1.

        ``decoder``, ``tile_size`` and ``tile_overlap`` are those of ``latentrt.runtime.CallArguments``.

        Raises:
            RequestError: something else, such as values that are not finite.
            BundleError: the bundle has no such decoder.
        """
        decoding = decoding_from(decoder, tile_size, tile_overlap, self.bundle.manifest)
        name = "latents to decode"
        return decode(self.engines, numbers(name, self._on_host(name, latents)), decoding, Timings())

    def preview(self, latents: Array) -> list[Image.Image]:
        """Latents as pictures by the bundle's tiny decoder, fast enough for every step of a callback.

        Raises:
            BundleError: the bundle was built without ``tiny_decoder``.
        """
        return _pil(self.decode(latents, decoder="tiny"))

    def warmup(self, sizes: Sequence[Size], *, num_images_per_prompt: int = 1, pictures: bool = False) -> None:
        """Prepare pictures of these sizes, (width, height) in pixels, so that calls for them only run.

        On a GPU they record nothing then, and allocate nothing but what they give away (``output_type="dlpack"``).
        Any number of sizes may be prepared one after another. Not prepared are tiles, skip-layer guidance, schedules of
        more than 254 evaluations, and prompts of T5 that are longer than the bundle's default.

        Args:
            sizes: of the pictures.
            num_images_per_prompt: how many at a time; two prompts of one picture each are two as well.
            pictures: also calls that start from pictures; inpainting and editing always do.

        Raises:
            RequestError: no sizes, or one that the bundle was not built for.
            DeviceMemoryError: the device has too little memory for one of them; the others can be used.
        """
        self.prepare(sizes, num_images_per_prompt, pictures=boolean("pictures", pictures), decodes=True)

    # What a call is made of; a pipeline with a refiner makes its calls of the same parts.

    def prepare(self, sizes: Sequence[Size], num_images_per_prompt: int, *, pictures: bool, decodes: bool) -> None:
        """Prepare runs of these sizes, which start from pictures and are decoded, or not."""
        manifest = self.bundle.manifest
        images = integer("num_images_per_prompt", num_images_per_prompt, 1, MAX_IMAGES)
        scale = manifest.latent_space.scale
        latents = [(height // scale, width // scale) for height, width in sizes_of_runs(sizes, manifest)]
        texts = not self.prompt_encoder.offloads
        warm_up(self.engines, latents, images, texts=texts, pictures=pictures, decodes=decodes)

    def request(self, prompt: str | Sequence[str], **arguments: Unpack[CallArguments]) -> Request:
        """Check the arguments of a call."""
        check_names(arguments)
        for name in _TENSORS & arguments.keys():
            arguments[name] = self._on_host(name, arguments[name])  # type: ignore[literal-required]
        return request_from_arguments(self.bundle.manifest, prompt, **arguments)

    def table(self, request: Request) -> SamplerTable:
        """The sampler's table of a request."""
        return table_of(request, self.bundle.manifest, self._model_schedule)

    def run(
        self,
        request: Request,
        table: SamplerTable,
        streams: Sequence[NoiseSource],
        timings: Timings,
        observer: Observer | None,
    ) -> Run:
        """Run the steps of a request; ``streams`` gives each image its noise."""
        rows = self.prompt_encoder.rows(request, timings)
        with timings.stage("prepare"):
            start = start_of(
                request, table, self.bundle.manifest, streams, lambda pictures: encode(self.engines, pictures, timings)
            )
            noise = step_noise(table, request.seeds, streams, start.state.shape[1:])
        steps = denoise(self.engines, self._task(request, table, rows, start, noise), timings)
        with timings.stage("denoise"), closing(steps):  # until it is closed, the device is not the next call's
            return _follow(steps, observer)

    def images(self, latents: Array, request: Request, timings: Timings) -> Any:
        """Latents in the form that the request asks for; as pictures for people not before ``finished``."""
        if request.output_type == "latent-dlpack":
            return self.engines.runner.send(latents)
        if request.decoding is None:
            return latents
        if request.output_type == "np":
            return decode(self.engines, latents, request.decoding, timings)
        if request.output_type == "dlpack":
            return decode_on_device(self.engines, latents, request.decoding, timings)
        return list(decode_bytes(self.engines, latents, request.decoding, timings))

    def _on_host(self, name: str, value: Any) -> Any:
        """Tensors of other libraries as arrays, everything else as it is."""
        if isinstance(value, list):
            return [self._on_host(name, one) for one in value]
        if not is_tensor(value):
            return value
        return self.engines.runner.fetch(name, value) if is_elsewhere(value) else array_of(name, value)

    def _task(
        self,
        request: Request,
        table: SamplerTable,
        rows: Mapping[str, NDArray[Any]],
        start: Start,
        noise: StepNoise,
    ) -> Task:
        """What there is to denoise, with what the denoiser takes beside the noisy latents."""
        edit = start.image_latents is not None
        skips = request.guidance.skip_layers is not None
        return Task(
            table,
            start.state,
            row_groups(rows, request.images, edit=edit, skip=skips),
            noise,
            kept=start.kept,
            extra_channels=start.image_latents if edit else start.extra_channels,
            image_guidance_scale=request.source.image_guidance_scale if edit else None,
            skip_scales=skip_scales(request.guidance.skip_layers, table) if skips else None,
            guidance_rescale=request.guidance.rescale,
        )


def finished(images: Any, request: Request, timings: Timings) -> Any:
    """What a call returns of ``Pipeline.images``: the part that takes no device, so that it is the next call's."""
    if request.decoding is None or request.output_type != "pil":
        return images
    with timings.stage("postprocess"):
        return [Image.fromarray(picture[0]) for picture in images]


def _follow(steps: Generator[DenoiseStep, Array | None, Array], observer: Observer | None) -> Run:
    """Run the loop to its end, or until the observer stops it.

    An observed run stays at most one step ahead of the device, so that progress is true and a stop comes soon.
    """
    before, replacement, done = None, None, 0
    while True:
        try:
            step = steps.send(replacement)
        except StopIteration as end:
            return Run(end.value, done, stopped=False)
        done, replacement = step.index + 1, None
        if observer is None:
            continue
        if before is not None:
            before.wait()
        answer = observer(step)
        if not answer.go_on:
            return Run(step.latents(), done, stopped=True)
        before, replacement = step, answer.latents


def _pil(pictures: Array) -> list[Image.Image]:
    return [Image.fromarray(picture) for picture in bytes_from_image(pictures)]
