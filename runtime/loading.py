"""From a bundle's folder to a pipeline."""

from __future__ import annotations

import contextlib
import os
from collections.abc import Iterable, Mapping
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass
from typing import TypedDict, Unpack, overload

from .bundles.bundle import Bundle, open_bundle
from .device.runner import DeviceRunner
from .engines import Engines, content, no_engine
from .errors import RequestError
from .pipeline import Pipeline
from .providers import PROVIDERS, Engine, available_threads, import_provider
from .providers.choice import choose_provider, engines_here
from .refiner import RefinedPipeline
from .requests.arguments import unknown_argument
from .requests.checks import integer, one_of, shown
from .text.embeddings import EmbeddingsCache
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
        provider_options: settings of ONNX Runtime's CUDA provider, by its names for them.

    Raises:
        BundleError: a bundle is missing, damaged or incomplete, or nothing here can run it.
        RequestError: an unknown provider or option, a bad thread count, or a refiner with other latents.
        EngineError: there is no GPU, or a provider refuses an engine.
        MissingDependencyError: the provider's library is not installed.
    """
    for name in unknown:
        raise unknown_argument("load", name, ["refiner", *LoadOptions.__annotations__])
    if provider_options is not None and not isinstance(provider_options, Mapping):
        raise RequestError("provider_options", received=shown(provider_options), expected="options by name")
    wishes = _Wishes(
        threads=available_threads() if threads is None else integer("threads", threads, 1, MAX_THREADS),
        verify=verify,
        offloads_text=offload is not None and one_of("offload", offload, ("text",)) == "text",
        embeddings_cache=integer("embeddings_cache", embeddings_cache, 0, None),
        provider_options=dict(provider_options or {}),
    )
    # That a refiner is there is known at once, and not after the base has been loaded.
    beside = None if refiner is None else open_bundle(refiner, verify=False)
    base = _load(bundle, provider, wishes, {}, beside=beside)
    if refiner is None:
        return base
    records = base.bundle.engines(base.provider).items()
    shared = {content(base.bundle, record): component for component, record in records}
    with contextlib.ExitStack() as opened:
        opened.callback(base.close)
        second = _load(refiner, base.provider, wishes, shared, base.engines)
        opened.callback(second.close)
        pipe = RefinedPipeline(base, second)
        opened.pop_all()
    return pipe


@dataclass(frozen=True)
class _Wishes:
    """What is the same for a base model and its refiner."""

    threads: int
    verify: bool
    offloads_text: bool
    embeddings_cache: int
    provider_options: Mapping[str, str]


def _load(
    path: Path,
    provider: str,
    wishes: _Wishes,
    shared: Mapping[tuple[str, ...], str],
    others: Engines | None = None,
    *,
    beside: Bundle | None = None,
) -> Pipeline:
    """Load one bundle. Engines whose content is among the ``shared`` ones are components of the ``others``; the device
    will also run those of the bundle ``beside``.
    """
    bundle = open_bundle(path, verify=False)
    chosen = choose_provider(bundle, provider)
    if wishes.provider_options and not PROVIDERS[chosen].has_options:
        able = ", ".join(name for name, info in PROVIDERS.items() if info.has_options)
        raise RequestError("provider_options", received=f"some for {chosen}", expected=f"none, or provider={able}")
    module = import_provider(chosen)
    held = engines_here(bundle, chosen)
    encodings = [encoding for encoding in bundle.manifest.text_encodings if encoding.tokenizer is not None]
    texts = [encoding.component for encoding in encodings]
    for component in (*texts, "denoiser"):
        if component not in held:
            raise no_engine(bundle, component, held)
    needed = ["denoiser"] if wishes.offloads_text else [*texts, "denoiser"]
    if "vae_decoder" in held:  # a bundle without one still gives latents
        needed.append("vae_decoder")
    borrowed = {}  # of the others; not what is offloaded, which nobody else must see released
    if others is not None:
        of_texts = texts if wishes.offloads_text else []
        contents = {name: content(bundle, record) for name, record in held.items() if name not in of_texts}
        borrowed = {name: shared[found] for name, found in contents.items() if found in shared}
    on_device = (bundle,) if beside is None else (bundle, beside)
    runner = DeviceRunner(module.open_device(*on_device)) if others is None else others.runner

    def load_engine(component: str) -> Engine:
        if component not in held:
            raise no_engine(bundle, component, held)
        if others is not None and component in borrowed:
            return others[borrowed[component]]
        record, options = held[component], wishes.provider_options
        return module.load_engine(bundle, record, device=runner.device, threads=wishes.threads, options=options)

    files = {encoding.tokenizer for encoding in encodings if encoding.tokenizer is not None}
    with runner.device.active(), contextlib.ExitStack() as opened:
        if others is None:
            opened.callback(runner.close)
        # Parsing the vocabulary, building sessions and hashing run side by side: that halves the start on two
        # processors.
        with ThreadPoolExecutor(max(3, min(wishes.threads, 8))) as pool:
            vocabularies = {name: pool.submit(lambda file: load_vocabulary(bundle.read(file)), name) for name in files}
            engines = {name: pool.submit(load_engine, name) for name in needed}
            opened.callback(_close, [engine for name, engine in engines.items() if name not in borrowed])
            if wishes.verify:
                bundle.verify()  # before any engine complains about a file that it cannot read
            loaded = {name: future.result() for name, future in engines.items()}
            tokenizers = {
                e.component: tokenizer_for(e, vocabularies[e.tokenizer].result()) for e in encodings if e.tokenizer
            }
        opened.pop_all()
    return Pipeline(
        bundle,
        chosen,
        Engines(bundle, chosen, loaded, load_engine, runner),
        tokenizers,
        EmbeddingsCache(wishes.embeddings_cache),
        offloads_text=wishes.offloads_text,
    )


def _close(engines: Iterable[Future[Engine]]) -> None:
    """Close those that were loaded before something else failed."""
    for engine in engines:
        if engine.exception() is None:
            engine.result().close()
