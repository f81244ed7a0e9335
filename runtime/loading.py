"""From a bundle's folder to a pipeline."""

from __future__ import annotations

import contextlib
import os
from collections.abc import Mapping
from concurrent.futures import ThreadPoolExecutor
from typing import overload

from .bundle import open_bundle
from .engines import Engines, content, no_engine
from .errors import RequestError
from .pipeline import Pipeline
from .providers import Engine, available_threads, choose_provider, import_provider
from .refiner import RefinedPipeline
from .tokenizer import load_vocabulary, tokenizer_for

Path = str | os.PathLike[str]


@overload
def load(
    bundle: Path, *, refiner: None = None, provider: str = "auto", threads: int | None = None, verify: bool = True
) -> Pipeline: ...
@overload
def load(
    bundle: Path, *, refiner: Path, provider: str = "auto", threads: int | None = None, verify: bool = True
) -> RefinedPipeline: ...
def load(
    bundle: Path,
    *,
    refiner: Path | None = None,
    provider: str = "auto",
    threads: int | None = None,
    verify: bool = True,
) -> Pipeline | RefinedPipeline:
    """Load a bundle.

    Args:
        bundle: a folder made by ``latentrt build-engines``.
        refiner: the bundle of a model that goes on where the first one stops. An engine that both bundles hold, such
            as SDXL's second text encoder and its autoencoder, is loaded once.
        provider: ``"auto"``, or the name of one the bundle has engines for.
        threads: processor threads an engine uses; by default all that this process may use.
        verify: check the SHA-256 of every file first.

    Raises:
        BundleError: a bundle is missing, damaged or incomplete.
        RequestError: an unknown provider, a bad thread count, or a refiner with other latents.
        MissingDependencyError: the provider's library is not installed.
    """
    if threads is not None and (isinstance(threads, bool) or not isinstance(threads, int) or threads < 1):
        raise RequestError("threads", received=repr(threads), expected="an integer of at least 1")
    count = threads or available_threads()
    base = _load(bundle, provider, count, verify, {})
    if refiner is None:
        return base
    records = base.bundle.engines(base.provider).items()
    shared = {content(base.bundle, record): component for component, record in records}
    with contextlib.ExitStack() as opened:
        opened.callback(base.close)
        second = _load(refiner, base.provider, count, verify, shared, base.engines)
        opened.callback(second.close)
        pipe = RefinedPipeline(base, second)
        opened.pop_all()
    return pipe


def _load(
    path: Path,
    provider: str,
    threads: int,
    verify: bool,
    shared: Mapping[tuple[str, ...], str],
    others: Engines | None = None,
) -> Pipeline:
    """Load one bundle. Engines whose content is among the ``shared`` ones are components of the ``others``."""
    bundle = open_bundle(path, verify=False)
    chosen = choose_provider(bundle, provider)
    module = import_provider(chosen)
    held = bundle.engines(chosen)
    encodings = [encoding for encoding in bundle.manifest.text_encodings if encoding.tokenizer is not None]
    needed = [*(encoding.component for encoding in encodings), "denoiser"]
    for component in needed:
        if component not in held:
            raise no_engine(bundle, component, held)
    if "vae_decoder" in held:  # a bundle without one still gives latents
        needed.append("vae_decoder")

    def load_engine(component: str) -> Engine:
        if component not in held:
            raise no_engine(bundle, component, held)
        if others is not None and (same := shared.get(content(bundle, held[component]))) is not None:
            return others[same]
        return module.load_engine(bundle, component, threads=threads)

    files = {encoding.tokenizer for encoding in encodings if encoding.tokenizer is not None}
    # Parsing the vocabulary, building sessions and hashing run side by side: that halves the start on two processors.
    with ThreadPoolExecutor(max(3, min(threads, 8))) as pool:
        texts = {name: pool.submit(lambda file: load_vocabulary(bundle.read(file)), name) for name in files}
        engines = {name: pool.submit(load_engine, name) for name in needed}
        if verify:
            bundle.verify()  # before any engine complains about a file that it cannot read
        loaded = {name: future.result() for name, future in engines.items()}
        tokenizers = {e.component: tokenizer_for(e, texts[e.tokenizer].result()) for e in encodings if e.tokenizer}
    return Pipeline(bundle, chosen, Engines(bundle, chosen, loaded, load_engine), tokenizers)
