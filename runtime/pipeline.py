"""A loaded bundle: call it, get pictures."""

from __future__ import annotations

import logging
from collections.abc import Callable, Generator, Mapping, Sequence
from contextlib import closing
from dataclasses import dataclass
from types import TracebackType
from typing import Any, Unpack

import numpy as np
from numpy.typing import NDArray
from PIL import Image
from tokenizers import Tokenizer

from ..kernels.reference import bytes_from_image
from .bundles.bundle import Bundle
from .bundles.manifest import TextEncoding
from .device.dlpack import is_elsewhere
from .engines import Engines
from .errors import DeviceError
from .images.decode import decode, decode_bytes, decode_on_device, decoding_from
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
from .requests.arguments import CallArguments, Size, check_names
from .requests.checks import integer, numbers
from .requests.request import MAX_IMAGES, Request, request_from_arguments
from .requests.sizes import sizes_of_runs
from .samplers import SamplerTable, model_schedule_from_config
from .text.conditioning import conditioning_rows, encode_texts, unique_texts
from .text.embeddings import EmbeddingsCache
from .text.tokenizer import token_ids
from .timing import Timings

Array = NDArray[np.float32]

logger = logging.getLogger(__name__)

#: Arguments that may be tensors on the device.
_TENSORS = {"latents", "image", "mask_image", "depth_map"}


@dataclass(frozen=True)
class Run:
    """What came of a request's steps: ``latents [images, C, h, w]``, and whether a callback ``stopped`` the run."""

    latents: Array
    steps_done: int
    stopped: bool


class Pipeline:
    """A loaded bundle. Calls keep no state in it, so one pipeline serves any number of threads.

    It owns engines: use it as a context manager, or call ``close``.
    """

    def __init__(
        self,
        bundle: Bundle,
        provider: str,
        engines: Engines,
        tokenizers: Mapping[str, Tokenizer],
        embeddings: EmbeddingsCache,
        *,
        offloads_text: bool,
    ):
        self.bundle = bundle
        self.provider = provider
        self.engines = engines
        self.embeddings = embeddings
        self._tokenizers = dict(tokenizers)
        self._offloads_text = offloads_text
        self._model_schedule = model_schedule_from_config(bundle.manifest.scheduler)

    def __enter__(self) -> Pipeline:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()

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
                images = self.images(run.latents, request, timings)
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
        return decode(self.engines, numbers("latents to decode", latents), decoding, Timings())

    def preview(self, latents: Array) -> list[Image.Image]:
        """Latents as pictures by the bundle's tiny decoder, fast enough for every step of a callback.

        Raises:
            BundleError: the bundle was built without ``tiny_decoder``.
        """
        return _pil(self.decode(latents, decoder="tiny"))

    def warmup(self, sizes: Sequence[Size], *, num_images_per_prompt: int = 1) -> None:
        """Prepare pictures of these sizes, (width, height) in pixels, so that calls for them only run.

        On a GPU they record nothing and allocate nothing then. Any number of sizes may be prepared one after another.

        Raises:
            RequestError: no sizes, or one that the bundle was not built for.
            DeviceMemoryError: the device has too little memory for one of them; the others can be used.
        """
        manifest = self.bundle.manifest
        images = integer("num_images_per_prompt", num_images_per_prompt, 1, MAX_IMAGES)
        scale = manifest.latent_space.scale
        latents = [(height // scale, width // scale) for height, width in sizes_of_runs(sizes, manifest)]
        warm_up(self.engines, latents, images, texts=not self._offloads_text)

    # What a call is made of; a pipeline with a refiner makes its calls of the same parts.

    def request(self, prompt: str | Sequence[str], **arguments: Unpack[CallArguments]) -> Request:
        """Check the arguments of a call."""
        check_names(arguments)
        for name in _TENSORS & arguments.keys():
            if is_elsewhere(tensor := arguments[name]):  # type: ignore[literal-required]
                arguments[name] = self.engines.runner.fetch(name, tensor)  # type: ignore[literal-required]
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
        rows = self._encode_prompts(request, timings)
        with timings.stage("prepare"):
            start = start_of(
                request, table, self.bundle.manifest, streams, lambda pixels: encode(self.engines, pixels, timings)
            )
            noise = step_noise(table, request.seeds, streams, start.state.shape[1:])
        steps = denoise(self.engines, self._task(request, table, rows, start, noise), timings)
        with timings.stage("denoise"), closing(steps):  # until it is closed, the device is not the next call's
            return _follow(steps, observer)

    def images(self, latents: Array, request: Request, timings: Timings) -> Any:
        """Latents in the form that the request asks for."""
        if request.decoding is None:
            return latents
        if request.output_type == "np":
            return decode(self.engines, latents, request.decoding, timings)
        if request.output_type == "dlpack":
            return decode_on_device(self.engines, latents, request.decoding, timings)
        pictures = []
        for picture in decode_bytes(self.engines, latents, request.decoding, timings):
            with timings.stage("postprocess"):
                pictures.append(Image.fromarray(picture[0]))
        return pictures

    def _encode_prompts(self, request: Request, timings: Timings) -> dict[str, NDArray[Any]]:
        manifest = self.bundle.manifest
        texts = unique_texts(request, zero_omitted=manifest.force_zeros_for_empty_prompt)
        cut: dict[str, list[str]] = {}  # what there is to say of a prompt -> the encoders of which that is true

        def reporter(component: str) -> Callable[[str], None]:
            return lambda said: cut.setdefault(said, []).append(component)

        with timings.stage("tokenize"):
            ids = {
                encoding.component: token_ids(
                    self._tokenizers[encoding.component],
                    encoding,
                    [of_encoders[number] for of_encoders in texts],
                    request.max_sequence_length if encoding.max_tokens > encoding.tokens else None,
                    reporter(encoding.component),
                )
                for number, encoding in enumerate(manifest.text_encodings)
                if encoding.tokenizer is not None
            }
        for said, components in cut.items():
            logger.warning("%s: %s", ", ".join(components), said)
        with timings.stage("text"):
            states = encode_texts(manifest, ids, lambda encoding, tokens: self._encode(encoding, tokens, timings))
            return conditioning_rows(manifest, request, texts, states)

    def _encode(self, encoding: TextEncoding, tokens: NDArray[np.int64], timings: Timings) -> dict[str, NDArray[Any]]:
        """One text encoder's outputs; an offloaded one is loaded where the texts are new, and released at once."""
        component, offloads = encoding.component, self._offloads_text
        try:
            return self.embeddings.encode(
                component, tokens, lambda ids: self.engines.run(component, {"input_ids": ids}, timings)
            )
        except DeviceError:
            offloads = False  # a failed device gives nothing back before it is closed
            raise
        finally:
            if offloads:
                self.engines.release(component)

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
        skips = request.skip_layers is not None
        return Task(
            table,
            start.state,
            row_groups(rows, request.images, edit=edit, skip=skips),
            noise,
            kept=start.kept,
            extra_channels=start.image_latents if edit else start.extra_channels,
            image_guidance_scale=request.source.image_guidance_scale if edit else None,
            skip_scales=skip_scales(request.skip_layers, table) if skips else None,
            guidance_rescale=request.guidance_rescale,
        )


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
