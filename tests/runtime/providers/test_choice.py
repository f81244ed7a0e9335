"""Which provider runs a bundle here, and what an error says where none does."""

from __future__ import annotations

import sys
from dataclasses import replace
from pathlib import Path

import msgspec
import pytest

from latentrt.runtime.bundles.bundle import Bundle, open_bundle
from latentrt.runtime.bundles.manifest import EngineRecord
from latentrt.runtime.device import driver
from latentrt.runtime.errors import BundleError, EngineError, LatentRTError, MissingDependencyError, RequestError
from latentrt.runtime.providers import choice, tensorrt_library
from latentrt.runtime.providers.choice import choose_provider, engines_here
from latentrt.runtime.providers.tensorrt_library import Library


@pytest.fixture
def bundle(emoji_bundle: Path) -> Bundle:
    return open_bundle(emoji_bundle, verify=False)


@pytest.fixture
def rtx(monkeypatch: pytest.MonkeyPatch) -> Library:
    """TensorRT-RTX as it is installed here, and no other TensorRT."""
    library = Library(pytest.importorskip("tensorrt_rtx", reason="tensorrt-rtx has no wheel for this machine"))
    monkeypatch.setattr(tensorrt_library, "installed", lambda provider: [library] if provider == "tensorrt-rtx" else [])
    pytest.importorskip("cuda.core", reason="cuda-core is not installed")
    return library


def on_gpu(monkeypatch: pytest.MonkeyPatch, target: str | None) -> None:
    monkeypatch.setattr(choice, "gpu_target", lambda: target)
    monkeypatch.setattr(driver, "driver_version", lambda: None if target is None else (99, 0))


def with_engines(bundle: Bundle, *more: tuple[str, str, tuple[str, ...]], cpu: bool = True) -> Bundle:
    """The bundle with an engine of each component for each (provider, version, targets) besides its own."""
    own = bundle.manifest.engines
    added = [
        msgspec.structs.replace(
            engine, provider=provider, provider_version=version, targets=targets, path=f"{engine.component}.{targets}"
        )
        for provider, version, targets in more
        for engine in own
    ]
    engines = (*added, *(own if cpu else ()))
    return replace(bundle, manifest=msgspec.structs.replace(bundle.manifest, engines=engines))


def test_without_a_gpu_the_processor_is_the_choice(
    bundle: Bundle, rtx: Library, monkeypatch: pytest.MonkeyPatch
) -> None:
    on_gpu(monkeypatch, None)
    both = with_engines(bundle, ("tensorrt-rtx", rtx.version, ("sm89", "sm120")))
    assert choose_provider(both, "auto").name == "onnxruntime-cpu"
    with pytest.raises(EngineError, match=r"tensorrt-rtx needs an NVIDIA GPU .* no driver .* --gpus all"):
        choose_provider(both, "tensorrt-rtx")


def test_the_gpu_comes_first_where_its_engines_run(
    bundle: Bundle, rtx: Library, monkeypatch: pytest.MonkeyPatch
) -> None:
    both = with_engines(bundle, ("tensorrt-rtx", rtx.version, ("sm89", "sm120")))
    on_gpu(monkeypatch, "sm120")
    assert choose_provider(both, "auto").name == "tensorrt-rtx"
    assert choose_provider(both, "onnxruntime-cpu").name == "onnxruntime-cpu"
    on_gpu(monkeypatch, "sm90")
    assert choose_provider(both, "auto").name == "onnxruntime-cpu"


def test_an_engine_for_other_gpus_says_what_it_looked_for(
    bundle: Bundle, rtx: Library, monkeypatch: pytest.MonkeyPatch
) -> None:
    on_gpu(monkeypatch, "sm90")
    only = with_engines(bundle, ("tensorrt-rtx", rtx.version, ("sm86", "sm89", "sm120")), cpu=False)
    says = r"no tensorrt-rtx engine for this GPU \| received: engines for sm86, sm89, sm120 \| expected: sm90"
    for provider in ("auto", "tensorrt-rtx"):
        with pytest.raises(BundleError, match=rf"{says} .*--provider tensorrt-rtx --target-sm 90"):
            choose_provider(only, provider)


def test_of_engines_for_several_gpus_the_one_for_this_gpu_is_taken(
    bundle: Bundle, monkeypatch: pytest.MonkeyPatch
) -> None:
    several = with_engines(bundle, *(("tensorrt", "11.4.0.106", (target,)) for target in ("sm86", "sm90", "sm120")))
    on_gpu(monkeypatch, "sm90")
    chosen = engines_here(several, "tensorrt")
    assert chosen.keys() == several.engines("onnxruntime-cpu").keys()
    assert {engine.targets for engine in chosen.values()} == {("sm90",)}


def test_where_nothing_can_run_every_reason_is_told(
    bundle: Bundle, rtx: Library, monkeypatch: pytest.MonkeyPatch
) -> None:
    on_gpu(monkeypatch, "sm90")
    neither = with_engines(
        bundle, ("tensorrt", "11.4.0.106", ("sm90",)), ("tensorrt-rtx", rtx.version, ("sm89",)), cpu=False
    )
    with pytest.raises(BundleError) as caught:
        choose_provider(neither, "auto")
    assert "no provider that it has engines for can run here" in caught.value.subject
    first, second = str(caught.value.received).split("; ")
    assert first.startswith("the provider tensorrt needs tensorrt or tensorrt_lean | install it")
    assert "no tensorrt-rtx engine for this GPU | received: engines for sm89 | expected: sm90" in second


def test_what_is_missing_beside_the_driver(bundle: Bundle, rtx: Library, monkeypatch: pytest.MonkeyPatch) -> None:
    on_gpu(monkeypatch, "sm89")
    both = with_engines(
        bundle,
        ("tensorrt-rtx", rtx.version, ("sm89",)),
        ("onnxruntime-cuda", "1.22", ()),
        ("tensorrt", "11", ("sm89",)),
    )
    expected: dict[str, tuple[type[LatentRTError], str]] = {
        "tensorrt": (MissingDependencyError, r"needs tensorrt or tensorrt_lean .*NVIDIA's package index"),
        "onnxruntime-cuda": (MissingDependencyError, r"onnxruntime-cuda needs onnxruntime-gpu .*latentrt\[cuda\]"),
    }
    for provider, (kind, says) in expected.items():
        with pytest.raises(kind, match=says):
            choose_provider(both, provider)
    for package in ("cuda.core", "cuda.bindings"):
        with monkeypatch.context() as patch:
            patch.setitem(sys.modules, package, None)
            with pytest.raises(MissingDependencyError, match=r"need cuda-core .* pip install cuda-core cuda-bindings"):
                choose_provider(both, "tensorrt-rtx")
    monkeypatch.setitem(sys.modules, "cuda.core", None)
    assert choose_provider(both, "auto").name == "onnxruntime-cpu"


def test_a_driver_that_is_too_old(bundle: Bundle, rtx: Library, monkeypatch: pytest.MonkeyPatch) -> None:
    on_gpu(monkeypatch, "sm89")
    monkeypatch.setattr(driver, "driver_version", lambda: (11, 8))
    both = with_engines(bundle, ("tensorrt-rtx", rtx.version, ("sm89",)))
    with pytest.raises(
        EngineError, match=r"driver is too old .* received: one for CUDA 11.8 .* expected: a driver for"
    ):
        choose_provider(both, "tensorrt-rtx")
    assert choose_provider(both, "auto").name == "onnxruntime-cpu"


def test_engines_of_a_provider_that_the_bundle_lacks(bundle: Bundle) -> None:
    with pytest.raises(
        BundleError, match=r"no engines for tensorrt \| received: onnxruntime-cpu \| expected: tensorrt"
    ):
        choose_provider(bundle, "tensorrt")
    with pytest.raises(RequestError, match=r"provider \| received: 'cuda' \| expected: auto or one of tensorrt, "):
        choose_provider(bundle, "cuda")


def test_records_of_older_manifests_are_not_version_compatible(bundle: Bundle) -> None:
    record = msgspec.to_builtins(bundle.manifest.engines[0])
    del record["version_compatible"]
    assert msgspec.convert(record, EngineRecord).version_compatible is False
