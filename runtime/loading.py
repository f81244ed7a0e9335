"""From a bundle's folder to a pipeline."""

from __future__ import annotations

import contextlib
import os
from collections.abc import Iterable, Mapping
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass
from typing import TypedDict, Unpack, overload

from tokenizers import Tokenizer

from .bundles.bundle import Bundle, open_bundle
from .checks import boolean, integer, one_of, shown
from .device.runner import DeviceRunner
from .engines import Engines, content, no_engine
from .errors import RequestError
from .pipeline import Pipeline
from .providers import PROVIDERS, Engine, available_threads
from .providers.choice import Choice, choose_provider
from .refiner import RefinedPipeline, check_latent_spaces
from .requests.arguments import unknown_argument
from .samplers import model_schedule_from_config
from .samplers.model_schedule import ModelSchedule
from .text.embeddings import EmbeddingsCache
from .text.prompt_encoder import PromptEncoder
from .text.tokenizer import load_vocabulary, tokenizer_for

Path = str | os.PathLike[str]


MAX_THREADS = 1024  # of an engine, which makes as many as it is told to

#: Bytes of prompt embeddings that a pipeline keeps: those of about a hundred texts of SDXL.
EMBEDDINGS_CACHE = 64 << 20


class LoadOptions(TypedDict, total=False):
    """The options of ``load`` that are the same with and without a refiner; it describes them."""

    provider: str
    threads: int | None
    verify: bool
    offload: str | None
    embeddings_cache: int
    plans_memory: int | None
    provider_options: Mapping[str, str] | None


@overload
def load(bundle: Path, *, refiner: None = None, **options: Unpack[LoadOptions]) -> Pipeline: ...
@overload
def load(bundle: Path, *, refiner: Path, **options: Unpack[LoadOptions]) -> RefinedPipeline: ...
def load(
    bundle: Path,
    *,
    refiner: Path | None = None,
    provider: str = "auto",
    threads: int | None = None,
    verify: bool = True,
    offload: str | None = None,
    embeddings_cache: int = EMBEDDINGS_CACHE,
    plans_memory: int | None = None,
    provider_options: Mapping[str, str] | None = None,
    **unknown: object,
) -> Pipeline | RefinedPipeline:
    """Load a bundle.

    Args:
        bundle: a folder made by ``latentrt build-engines``.
        refiner: the bundle of a model that goes on where the first one stops. An engine that both bundles hold, such
            as SDXL's second text encoder and its autoencoder, is loaded once.
        provider: the name of one the bundle has engines for, or ``"auto"``: the first of tensorrt, tensorrt-rtx,
            onnxruntime-cuda and onnxruntime-cpu that can run here.
        threads: processor threads an engine uses; by default all that this process may use.
        verify: check the SHA-256 of every file first.
        offload: ``"text"`` loads the text encoders when a text has to be encoded, and releases them after that.
        embeddings_cache: bytes of encoded texts to keep for calls with the same texts; 0 for none.
        plans_memory: bytes of the device's memory that buffers and recorded graphs of earlier calls may keep for calls
            of the same sizes; by default an eighth of all that it has. Those of the call at work always stay.
        provider_options: settings of ONNX Runtime's CUDA provider, by its names for them.

    Raises:
        BundleError: a bundle is missing, damaged or incomplete, or nothing here can run it.
        RequestError: an unknown provider, an option that is not what it should be, or a refiner with other latents.
        CheckpointError: a bundle's scheduler is not one that this version knows.
        EngineError: there is no GPU, or a provider refuses an engine.
        MissingDependencyError: the provider's library is not installed.
    """
    for name in unknown:
        raise unknown_argument("load", name, ["refiner", *LoadOptions.__annotations__])
    if provider_options is not None and not isinstance(provider_options, Mapping):
        raise RequestError("provider_options", received=shown(provider_options), expected="options by name")
    common = _Common(
        threads=available_threads() if threads is None else integer("threads", threads, 1, MAX_THREADS),
        verify=boolean("verify", verify),
        offloads_text=offload is not None and one_of("offload", offload, ("text",)) == "text",
        provider_options=dict(provider_options or {}),
        embeddings=EmbeddingsCache(integer("embeddings_cache", embeddings_cache, 0, None)),
        vocabularies={},
    )
    plans = None if plans_memory is None else integer("plans_memory", plans_memory, 0, None)
    models = [_model(bundle, provider)]
    choice = models[0].choice
    if common.provider_options and not PROVIDERS[choice.name].has_options:
        able = ", ".join(name for name, info in PROVIDERS.items() if info.has_options)
        raise RequestError("provider_options", received=f"some for {choice.name}", expected=f"none, or provider={able}")
    if refiner is not None:
        models.append(_model(refiner, choice.name))
        check_latent_spaces(models[0].bundle.manifest, models[1].bundle.manifest)
    with contextlib.ExitStack() as opened:
        runner = DeviceRunner(choice.module.open_device(*(model.bundle for model in models)), plans)
        opened.callback(runner.close)
        pipe: Pipeline | RefinedPipeline
        pipe = base = _load(models[0], common, runner)
        if refiner is not None:
            pipe = RefinedPipeline(base, _load(models[1], common, runner, base.engines))
        opened.pop_all()
    return pipe


@dataclass(frozen=True)
class _Common:
    """What a base model and its refiner have in common. ``vocabularies`` are by the SHA-256 of their files."""

    threads: int
    verify: bool
    offloads_text: bool
    provider_options: Mapping[str, str]
    embeddings: EmbeddingsCache
    vocabularies: dict[str, Future[Tokenizer]]


@dataclass(frozen=True)
class _Model:
    """A bundle with all that is known of it before any of its engines is loaded.

    ``tokenizers`` are the files of the text encoders that it was built with, by component.
    """

    bundle: Bundle
    choice: Choice
    model_schedule: ModelSchedule
    tokenizers: Mapping[str, str]


def _model(path: Path, provider: str) -> _Model:
    bundle = open_bundle(path, verify=False)
    choice = choose_provider(bundle, provider)
    tokenizers = {one.component: one.tokenizer for one in bundle.manifest.text_encodings if one.tokenizer is not None}
    for component in (*tokenizers, "denoiser"):
        if component not in choice.engines:
            raise no_engine(bundle, component, choice.engines)
    return _Model(bundle, choice, model_schedule_from_config(bundle.manifest.scheduler), tokenizers)


def _load(model: _Model, common: _Common, runner: DeviceRunner, others: Engines | None = None) -> Pipeline:
    """Load one bundle onto a runner's device; a refiner beside ``others``, which lend it the engines they have too."""
    bundle, choice = model.bundle, model.choice
    needed = ["denoiser"] if common.offloads_text else [*model.tokenizers, "denoiser"]
    if others is None and "vae_decoder" in choice.engines:  # a bundle without one still gives latents, as refiners do
        needed.append("vae_decoder")
    contents = {component: content(bundle, record) for component, record in choice.engines.items()}
    borrowed = {}  # of the others; not what is offloaded, which nobody else must see released
    if others is not None:
        theirs = {held: component for component, held in others.contents.items()}
        own = model.tokenizers if common.offloads_text else ()
        borrowed = {name: theirs[held] for name, held in contents.items() if held in theirs and name not in own}

    def load_engine(component: str) -> Engine:
        if component not in contents:
            raise no_engine(bundle, component, contents)
        if others is not None and component in borrowed:
            return others[borrowed[component]]
        record, options = choice.engines[component], common.provider_options
        return choice.module.load_engine(bundle, record, device=runner.device, threads=common.threads, options=options)

    with runner.device.active(), contextlib.ExitStack() as opened:
        # Parsing the vocabulary, building sessions and hashing run side by side: that halves the start on two
        # processors.
        with ThreadPoolExecutor(max(3, min(common.threads, 8))) as pool:
            for file in model.tokenizers.values():
                if bundle.sha256(file) not in common.vocabularies:
                    parsed = pool.submit(lambda name: load_vocabulary(bundle.read(name)), file)
                    common.vocabularies[bundle.sha256(file)] = parsed
            engines = {name: pool.submit(load_engine, name) for name in needed}
            opened.callback(_close, [engine for name, engine in engines.items() if name not in borrowed])
            if common.verify:
                bundle.verify()  # before any engine complains about a file that it cannot read
            loaded = {name: future.result() for name, future in engines.items()}
            tokenizers = {
                one.component: tokenizer_for(one, common.vocabularies[bundle.sha256(one.tokenizer)].result())
                for one in bundle.manifest.text_encodings
                if one.tokenizer is not None
            }
        opened.pop_all()
    held = Engines(bundle, contents, loaded, load_engine, runner)
    prompt_encoder = PromptEncoder(held, tokenizers, common.embeddings, offloads=common.offloads_text)
    return Pipeline(bundle, choice.name, held, prompt_encoder, model.model_schedule)


def _close(engines: Iterable[Future[Engine]]) -> None:
    """Close those that were loaded before something else failed."""
    for engine in engines:
        if engine.exception() is None:
            engine.result().close()
