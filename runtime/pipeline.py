"""The public face of the runtime: load a bundle, call it, get pictures."""

from __future__ import annotations

import contextlib
import os
from collections.abc import Callable, Iterable, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from types import TracebackType
from typing import Any

import numpy as np
from numpy.typing import NDArray
from PIL import Image
from tokenizers import Tokenizer

from ..kernels.reference import bytes_from_image, image_from_decoded
from .bundle import Bundle, open_bundle
from .conditioning import conditioning_rows, encode_texts, unique_texts
from .denoise import DenoiseStep, denoise, initial_latents, step_noise
from .errors import BundleError, RequestError
from .noise import TorchCpuNoise
from .output import Output, provenance_of
from .providers import Engine, available_threads, choose_provider, import_provider
from .request import Request, Size, request_from_arguments
from .samplers import SamplerTable, build_table, model_schedule_from_config
from .spec import axis_and_factor
from .timing import Timings
from .tokenizer import load_vocabulary, token_ids, tokenizer_for

#: ``callback(pipeline, step_index, timestep, {"latents": array})``. It may return a dict with new ``latents``, or
#: ``False`` to stop the run: what is there then is decoded and returned.
StepCallback = Callable[["Pipeline", int, float, dict[str, NDArray[np.float32]]], Mapping[str, Any] | bool | None]


class Pipeline:
    """A loaded bundle. Calls keep no state in it, so one pipeline serves any number of threads.

    It owns engines: use it as a context manager, or call ``close``.
    """

    def __init__(
        self, bundle: Bundle, provider: str, engines: Mapping[str, Engine], tokenizers: Mapping[str, Tokenizer]
    ):
        self.bundle = bundle
        self.provider = provider
        self._engines = dict(engines)
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
        for engine in self._engines.values():
            engine.close()

    def __call__(
        self,
        prompt: str | Sequence[str],
        *,
        negative_prompt: str | Sequence[str] | None = None,
        width: int | None = None,
        height: int | None = None,
        num_inference_steps: int | None = None,
        guidance_scale: float | Sequence[float] | None = None,
        guidance_interval: tuple[float, float] | None = None,
        seed: int | Sequence[int] | None = None,
        num_images_per_prompt: int = 1,
        sampler: str | None = None,
        schedule: str | None = None,
        sampler_options: Mapping[str, Any] | None = None,
        latents: NDArray[np.float32] | None = None,
        output_type: str = "pil",
        original_size: Size | None = None,
        crops_coords_top_left: Size = (0, 0),
        target_size: Size | None = None,
        negative_original_size: Size | None = None,
        negative_crops_coords_top_left: Size = (0, 0),
        negative_target_size: Size | None = None,
        callback_on_step_end: StepCallback | None = None,
    ) -> Output:
        """Make pictures from texts. Names and defaults are those of diffusers' ``StableDiffusionXLPipeline``.

        Args:
            prompt: one text, or a list of them; ``""`` is a text like any other.
            negative_prompt: one for all prompts or one for each. Omitted, it is what the checkpoint was trained with:
                zeros in place of embeddings, or the empty text.
            width, height: image pixels; multiples of the model's stride inside the bundle's profile.
            num_inference_steps: 1 to 1000.
            guidance_scale: classifier-free guidance; at 1 or less it is off, and each step costs half. A list has one
                for each step.
            guidance_interval: fractions of the run, ``(start, stop)``, outside which guidance is off.
            seed: image ``i`` has ``seed + i``, unless there is one seed per image. The same seed gives the same picture
                alone, in a batch and beside any neighbours. Omitted, a random one is drawn; ``Output.seeds`` tells.
            num_images_per_prompt: pictures per prompt, ordered by prompt.
            sampler, schedule: see ``latentrt samplers``; omitted, those of the checkpoint's scheduler config.
            sampler_options: settings of the sampler by name, such as ``eta``, ``solver_order``, ``timesteps``,
                ``sigmas`` or ``noise="brownian"``; see ``samplers.build_table``.
            latents: the initial noise, float32 ``[images, C, height/scale, width/scale]`` of unit variance.
            output_type: ``"pil"``, ``"np"`` (float32 ``[images, H, W, 3]`` in 0..1) or ``"latent"``.
            original_size, crops_coords_top_left, target_size: SDXL's size conditioning, (height, width) or (top, left)
                in pixels; by default the picture's own size, uncropped. ``negative_…``: the same for the
                unconditional rows, used when both of its sizes are given.
            callback_on_step_end: called after every step, see ``StepCallback``.

        Raises:
            RequestError: arguments that cannot be run.
            EngineError: the provider failed.
        """
        timings = Timings()
        with timings.stage("total"):
            request = request_from_arguments(
                self.bundle.manifest,
                prompt,
                negative_prompt=negative_prompt,
                width=width,
                height=height,
                num_inference_steps=num_inference_steps,
                guidance_scale=guidance_scale,
                guidance_interval=guidance_interval,
                seed=seed,
                num_images_per_prompt=num_images_per_prompt,
                sampler=sampler,
                schedule=schedule,
                sampler_options=sampler_options,
                latents=latents,
                output_type=output_type,
                original_size=original_size,
                crops_coords_top_left=crops_coords_top_left,
                target_size=target_size,
                negative_original_size=negative_original_size,
                negative_crops_coords_top_left=negative_crops_coords_top_left,
                negative_target_size=negative_target_size,
            )
            table = build_table(
                request.sampler,
                request.schedule,
                request.num_inference_steps,
                self._model_schedule,
                guidance_scale=request.guidance_scale if request.guided else 1.0,
                guidance_interval=request.guidance_interval,
                **request.sampler_options,
            )
            rows = self._encode(request, timings)
            final, steps_done = self._denoise(request, table, rows, timings, callback_on_step_end)
            images: Any = final if request.output_type == "latent" else self._decode(final, timings)
            if request.output_type == "pil":
                with timings.stage("postprocess"):
                    images = [Image.fromarray(picture) for picture in bytes_from_image(images)]
        return Output(
            images, request.seeds, timings, provenance_of(request, table, self.bundle, self.provider), steps_done
        )

    def _encode(self, request: Request, timings: Timings) -> dict[str, NDArray[Any]]:
        manifest = self.bundle.manifest
        texts = unique_texts(request, zero_omitted=manifest.force_zeros_for_empty_prompt)
        with timings.stage("tokenize"):
            ids = [token_ids(self._tokenizers[e.component], e, texts) for e in manifest.text_encodings]
        with timings.stage("text"):
            states = encode_texts(
                manifest, ids, lambda encoding, tokens: self._run(encoding.component, {"input_ids": tokens}, timings)
            )
            return conditioning_rows(manifest, request, texts, states)

    def _denoise(
        self,
        request: Request,
        table: SamplerTable,
        rows: Mapping[str, NDArray[Any]],
        timings: Timings,
        callback: StepCallback | None,
    ) -> tuple[NDArray[np.float32], int]:
        space = self.bundle.manifest.latent_space
        shape = (space.channels, request.height // space.scale, request.width // space.scale)
        with timings.stage("prepare"):
            sources = [TorchCpuNoise(seed) for seed in request.seeds]
            noise = request.latents
            if noise is None:
                noise = np.stack([source.randn(shape) for source in sources])
            latents = initial_latents(table, noise)
            draws = [step_noise(table, *of_image, shape) for of_image in zip(request.seeds, sources, strict=True)]
        done, replacement = 0, None
        with timings.stage("denoise"):
            steps = denoise(lambda inputs: self._run("denoiser", inputs, timings), rows, table, latents, draws)
            with contextlib.suppress(StopIteration):
                while True:
                    step = steps.send(replacement)
                    done = step.index + 1
                    if callback is not None:
                        go_on, replacement = self._call_back(callback, step)
                        if not go_on:
                            steps.close()
        return latents, done

    def _call_back(self, callback: StepCallback, step: DenoiseStep) -> tuple[bool, NDArray[np.float32] | None]:
        """Whether the run goes on, and the latents that the callback put in place of the step's."""
        answer = callback(self, step.index, step.timestep, {"latents": step.latents})
        replacement = None
        if isinstance(answer, Mapping) and "latents" in answer:
            replacement = np.asarray(answer["latents"])
            if replacement.shape != step.latents.shape:
                received = list(replacement.shape)
                raise RequestError("the callback's latents", received=received, expected=list(step.latents.shape))
        return answer is not False, replacement

    def _decode(self, latents: NDArray[np.float32], timings: Timings) -> NDArray[np.float32]:
        pictures = []
        for i in range(len(latents)):  # one by one: decoding is compute-bound, and its memory grows with the batch
            with timings.stage("decode"):
                decoded = self._run("vae_decoder", {"latents": latents[i : i + 1]}, timings)["image"]
            with timings.stage("postprocess"):
                pictures.append(image_from_decoded(decoded))
        return np.concatenate(pictures) if len(pictures) > 1 else pictures[0]

    def _run(self, component: str, inputs: Mapping[str, NDArray[Any]], timings: Timings) -> dict[str, NDArray[Any]]:
        """Run an engine, in parts where there are more rows than its profile allows."""
        engine = self._engine(component)
        record = self.bundle.manifest.components[component]
        rows = len(next(iter(inputs.values())))
        limit = record.profile[axis_and_factor(str(record.inputs[0].shape[0]))[0]].max
        if rows <= limit:
            return timings.run(engine, inputs)
        parts = [
            timings.run(engine, {name: value[i : i + limit] for name, value in inputs.items()})
            for i in range(0, rows, limit)
        ]
        return {name: np.concatenate([part[name] for part in parts]) for name in parts[0]}

    def _engine(self, component: str) -> Engine:
        try:
            return self._engines[component]
        except KeyError:
            raise _no_engine(self.bundle, component, self._engines) from None


def load(
    bundle: str | os.PathLike[str], *, provider: str = "auto", threads: int | None = None, verify: bool = True
) -> Pipeline:
    """Load a bundle.

    Args:
        bundle: a folder made by ``latentrt build-engines``.
        provider: ``"auto"``, or the name of one the bundle has engines for.
        threads: processor threads an engine uses; by default all that this process may use.
        verify: check the SHA-256 of every file first.

    Raises:
        BundleError: the bundle is missing, damaged or incomplete.
        RequestError: an unknown provider or a bad thread count.
        MissingDependencyError: the provider's library is not installed.
    """
    if threads is not None and (isinstance(threads, bool) or not isinstance(threads, int) or threads < 1):
        raise RequestError("threads", received=repr(threads), expected="an integer of at least 1")
    opened = open_bundle(bundle, verify=False)
    chosen = choose_provider(opened, provider)
    module = import_provider(chosen)
    count = threads or available_threads()
    manifest = opened.manifest
    held = opened.engines(chosen)
    needed = [*(encoding.component for encoding in manifest.text_encodings), "denoiser"]
    for component in needed:
        if component not in held:
            raise _no_engine(opened, component, held)
    if "vae_decoder" in held:  # a bundle without one still gives latents
        needed.append("vae_decoder")
    files = {encoding.tokenizer for encoding in manifest.text_encodings}
    # Parsing the vocabulary, building sessions and hashing run side by side: that halves the start on two processors.
    with ThreadPoolExecutor(max(3, min(count, 8))) as pool:
        texts = {name: pool.submit(lambda file: load_vocabulary(opened.read(file)), name) for name in files}
        engines = {name: pool.submit(module.load_engine, opened, name, threads=count) for name in needed}
        if verify:
            opened.verify()  # before any engine complains about a file that it cannot read
        return Pipeline(
            opened,
            chosen,
            {name: future.result() for name, future in engines.items()},
            {e.component: tokenizer_for(e, texts[e.tokenizer].result()) for e in manifest.text_encodings},
        )


def _no_engine(bundle: Bundle, component: str, held: Iterable[str]) -> BundleError:
    return BundleError(
        f"{bundle.path}: no engine for {component}",
        received="engines for " + ", ".join(held),
        remedy=f"build it: latentrt build-engines CHECKPOINT --out {bundle.path}",
    )
