"""A loaded bundle: call it, get pictures."""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Generator, Mapping, Sequence
from types import TracebackType
from typing import Any, Unpack

import numpy as np
from numpy.typing import NDArray
from PIL import Image
from tokenizers import Tokenizer

from ..kernels.reference import bytes_from_image
from .arguments import CallArguments, check_names
from .bundle import Bundle
from .conditioning import conditioning_rows, encode_texts, unique_texts
from .decode import decode, decoding_from
from .denoise import DenoiseStep, RunDenoiser, denoise, step_noise
from .encode import encode
from .engines import Engines
from .errors import RequestError
from .guidance import skip_scales, with_extra_channels, with_image_guidance, with_skipped_layers
from .noise import TorchCpuNoise
from .output import Output, provenance_of
from .request import Request, request_from_arguments
from .samplers import SamplerTable, model_schedule_from_config
from .start import Kept, Start, start_of
from .tables import table_of
from .timing import Timings
from .tokenizer import token_ids

Array = NDArray[np.float32]

#: ``callback(pipeline, step_index, timestep, state)`` with a ``StepState``. It may return a dict with new ``latents``,
#: or ``False`` to stop the run: what is there then is decoded and returned.
StepCallback = Callable[["Pipeline", int, float, dict[str, Array]], Mapping[str, Any] | bool | None]


class StepState(dict[str, Array]):
    """What a callback sees: ``state["latents"]``, and ``state["denoised"]``, which is computed when it is asked for.

    The latents still have their noise; ``pipeline.preview(state["denoised"])`` shows the picture that becomes of them.
    """

    def __init__(self, step: DenoiseStep):
        super().__init__(latents=step.latents)
        self._step = step

    def __missing__(self, name: str) -> Array:
        if name != "denoised":
            raise KeyError(name)
        self[name] = self._step.denoised()
        return self[name]


class Pipeline:
    """A loaded bundle. Calls keep no state in it, so one pipeline serves any number of threads.

    It owns engines: use it as a context manager, or call ``close``.
    """

    def __init__(self, bundle: Bundle, provider: str, engines: Engines, tokenizers: Mapping[str, Tokenizer]):
        self.bundle = bundle
        self.provider = provider
        self.engines = engines
        self._tokenizers = dict(tokenizers)
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
            callback_on_step_end: called after every step, see ``StepCallback``.
            arguments: everything else, see ``CallArguments``.

        Raises:
            RequestError: arguments that cannot be run.
            EngineError: the provider failed.
        """
        timings = Timings()
        with timings.call():
            request = self.request(prompt, **arguments)
            if request.decoding is not None:
                self.engines.require(request.decoding.component)  # rather now than after the run
            table = self.table(request)
            streams = [TorchCpuNoise(seed) for seed in request.seeds]
            latents, steps_done = self.run(request, table, streams, timings, callback_on_step_end)
            images = self.images(latents, request, timings)
        made = provenance_of(request, table, self.bundle, self.provider)
        return Output(images, request.seeds, timings, made, steps_done)

    def decode(
        self, latents: Array, *, decoder: str = "vae", tile_size: int | None = None, tile_overlap: float = 0.25
    ) -> Array:
        """Latents ``[n, C, h, w]`` of any size that tiles can cover, as pictures ``[n, H, W, 3]`` in 0..1.

        ``decoder``, ``tile_size`` and ``tile_overlap`` are those of ``CallArguments``.
        """
        decoding = decoding_from(decoder, tile_size, tile_overlap, self.bundle.manifest)
        return decode(self.engines, np.asarray(latents, np.float32), decoding, Timings())

    def preview(self, latents: Array) -> list[Image.Image]:
        """Latents as pictures by the bundle's tiny decoder, fast enough for every step of a callback.

        Raises:
            BundleError: the bundle was built without ``tiny_decoder``.
        """
        return _pil(self.decode(latents, decoder="tiny"))

    # What a call is made of; a pipeline with a refiner makes its calls of the same parts.

    def request(self, prompt: str | Sequence[str], **arguments: Unpack[CallArguments]) -> Request:
        """Check the arguments of a call."""
        check_names(arguments)
        return request_from_arguments(self.bundle.manifest, prompt, **arguments)

    def table(self, request: Request) -> SamplerTable:
        """The sampler's table of a request."""
        return table_of(request, self.bundle.manifest, self._model_schedule)

    def run(
        self,
        request: Request,
        table: SamplerTable,
        streams: Sequence[TorchCpuNoise],
        timings: Timings,
        callback: StepCallback | None,
    ) -> tuple[Array, int]:
        """The latents of a request, and how many steps led to them; ``streams`` gives each image its noise."""
        rows = self._encode_prompts(request, timings)
        with timings.stage("prepare"):
            start = start_of(
                request, table, self.bundle.manifest, streams, lambda pixels: encode(self.engines, pixels, timings)
            )
            of_images = zip(request.seeds, streams, strict=True)
            draws = [step_noise(table, seed, stream, start.state.shape[1:]) for seed, stream in of_images]
        with timings.stage("denoise"):
            steps = denoise(self._denoiser(request, table, start, timings), rows, table, start.state, draws)
            done = self._follow(steps, table, start.kept, callback)
        return start.state, done

    def images(self, latents: Array, request: Request, timings: Timings) -> Any:
        """Latents in the form that the request asks for."""
        if request.decoding is None:
            return latents
        pictures = decode(self.engines, latents, request.decoding, timings)
        if request.output_type == "np":
            return pictures
        with timings.stage("postprocess"):
            return _pil(pictures)

    def _encode_prompts(self, request: Request, timings: Timings) -> dict[str, NDArray[Any]]:
        manifest = self.bundle.manifest
        texts = unique_texts(request, zero_omitted=manifest.force_zeros_for_empty_prompt)
        with timings.stage("tokenize"):
            ids = {
                encoding.component: token_ids(
                    self._tokenizers[encoding.component],
                    encoding,
                    texts,
                    request.max_sequence_length if encoding.max_tokens > encoding.tokens else None,
                )
                for encoding in manifest.text_encodings
                if encoding.tokenizer is not None
            }
        with timings.stage("text"):
            states = encode_texts(
                manifest,
                ids,
                lambda encoding, tokens: self.engines.run(encoding.component, {"input_ids": tokens}, timings),
            )
            return conditioning_rows(manifest, request, texts, states)

    def _denoiser(self, request: Request, table: SamplerTable, start: Start, timings: Timings) -> RunDenoiser:
        """What runs the denoiser, with what it takes beside the noisy latents."""

        def run(inputs: Mapping[str, NDArray[Any]]) -> dict[str, NDArray[Any]]:
            return self.engines.run("denoiser", inputs, timings)

        if start.extra_channels is not None:
            return with_extra_channels(run, start.extra_channels)
        if start.image_latents is not None:
            assert request.source.image_guidance_scale is not None
            return with_image_guidance(run, start.image_latents, request.source.image_guidance_scale)
        if self.bundle.manifest.skip_layer_guidance is not None:
            return with_skipped_layers(run, skip_scales(request.skip_layers, table), request.images)
        return run

    def _follow(
        self,
        steps: Generator[DenoiseStep, Array | None, None],
        table: SamplerTable,
        kept: Kept | None,
        callback: StepCallback | None,
    ) -> int:
        """Run the loop to its end, or until the callback stops it; returns the steps done."""
        done, replacement = 0, None
        with contextlib.suppress(StopIteration):
            while True:
                step = steps.send(replacement)
                done, replacement = step.index + 1, None
                if kept is not None:
                    kept.restore(step.latents, table, step.index)
                    replacement = step.latents
                if callback is not None:
                    go_on, given = self._call_back(callback, step)
                    replacement = replacement if given is None else given
                    if not go_on:
                        steps.close()
        return done

    def _call_back(self, callback: StepCallback, step: DenoiseStep) -> tuple[bool, Array | None]:
        """Whether the run goes on, and the latents that the callback put in place of the step's."""
        answer = callback(self, step.index, step.timestep, StepState(step))
        replacement = None
        if isinstance(answer, Mapping) and "latents" in answer:
            replacement = np.asarray(answer["latents"])
            if replacement.shape != step.latents.shape:
                received = list(replacement.shape)
                raise RequestError("the callback's latents", received=received, expected=list(step.latents.shape))
        return answer is not False, replacement


def _pil(pictures: Array) -> list[Image.Image]:
    return [Image.fromarray(picture) for picture in bytes_from_image(pictures)]
