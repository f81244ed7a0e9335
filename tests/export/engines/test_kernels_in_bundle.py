"""Kernels beside engines for GPUs: compiled once for each change, found again by the runtime."""

from __future__ import annotations

import re
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path

import msgspec
import pytest

from latentrt.export.build_engine import EngineOptions, compiler_for
from latentrt.export.engines.kernels_in_bundle import add_kernels, gpus_of, planned_kernels
from latentrt.export.events import BuildEvent
from latentrt.export.store import BundleWriter
from latentrt.kernels.launch import PTX
from latentrt.runtime.bundles.bundle import Bundle, open_bundle
from latentrt.runtime.bundles.kernels import kernels_of
from latentrt.runtime.bundles.manifest import Component, EngineRecord, Manifest
from latentrt.runtime.bundles.spec import AxisRange, TensorSpec
from latentrt.runtime.errors import BundleError, ExportError, MissingDependencyError, OutputError

pytest.importorskip("triton", reason="triton has no wheel for this machine")


@pytest.fixture(scope="module")
def empty(emoji_bundle: Path) -> Manifest:
    """A manifest of a bundle that holds nothing yet."""
    manifest = open_bundle(emoji_bundle, verify=False).manifest
    return msgspec.structs.replace(manifest, components={}, engines=(), files={})


def component(dtype: str) -> Component:
    tensors = (TensorSpec("sample", dtype, ("rows", 4)),)
    return Component(tensors, tensors, {"rows": AxisRange(1, 2, 4)}, "fp16", 1, 20, "denoiser.onnx", (), {})


def engine(provider: str, *targets: str) -> EngineRecord:
    return EngineRecord("denoiser", provider, "1", "denoiser.engine", (), (), {}, targets)


@contextmanager
def building(
    out: Path, manifest: Manifest, dtype: str, *engines: EngineRecord, force: bool = False
) -> Iterator[list[BuildEvent]]:
    """A build of nothing but the kernels; gives its events."""
    events: list[BuildEvent] = []
    with BundleWriter(out) as writer:
        add_kernels(writer, [component(dtype)], engines, events.append, force=force)
        yield events
        writer.commit(msgspec.structs.replace(manifest, files=dict(sorted(writer.files.items()))))


def reason(out: Path, manifest: Manifest, dtype: str, *engines: EngineRecord, force: bool = False) -> str:
    with building(out, manifest, dtype, *engines, force=force) as events:
        (done,) = [event for event in events if event.stage == "done"]
    assert done.component == "kernels"
    return done.reason


def planned(bundle: Bundle, dtype: str, *engines: EngineRecord, force: bool = False) -> dict[str, str]:
    """What a build is said to do with the kernels before it begins."""
    with BundleWriter(bundle.path) as writer:
        return planned_kernels(writer, [component(dtype)], gpus_of(engines), force=force)


@pytest.fixture(scope="module")
def bundle(tmp_path_factory: pytest.TempPathFactory, empty: Manifest) -> Bundle:
    """For engines of two providers."""
    out = tmp_path_factory.mktemp("kernels") / "bundle"
    engines = (engine("tensorrt-rtx", "sm120", "sm89"), engine("onnxruntime-cpu"))
    assert reason(out, empty, "float16", *engines) == "new"
    return open_bundle(out)


def test_the_runtime_finds_the_code_for_its_gpu(bundle: Bundle) -> None:
    kernels = kernels_of(bundle)
    assert kernels is not None
    assert kernels.index.key["targets"] == "sm89, sm120, ptx"
    assert {f"kernels/{kernel.file}" for kernel in kernels.index.kernels} | {"kernels/kernels.json"} == set(
        bundle.manifest.files
    )
    own = kernels.select("denoise_step", "float16", "sm89")
    assert (own.target, own.dtype) == ("sm89", "float16")
    assert kernels.read(own.file).startswith(b"\x7fELF")
    assert kernels.select("denoise_step", "float16", "sm120").target == "sm120"
    newer = kernels.select("denoise_step", "float16", "sm90")
    assert newer.target == PTX
    assert f".visible .entry {newer.symbol}(".encode() in kernels.read(newer.file)
    assert kernels.select("philox_normal", "float16", "sm89").dtype is None
    with pytest.raises(LookupError, match="denoise_step of float32 for sm89 is not among float16 for sm89, float16"):
        kernels.select("denoise_step", "float32", "sm89")


def test_they_are_taken_over_until_something_changes(bundle: Bundle, empty: Manifest) -> None:
    engines = (engine("tensorrt-rtx", "sm89", "sm120"),)
    before = {name: bundle.file(name).stat().st_ino for name in bundle.manifest.files}
    assert reason(bundle.path, empty, "float16", *engines) == "reused"
    assert {name: bundle.file(name).stat().st_ino for name in bundle.manifest.files} == before
    damaged = bundle.file("kernels/kernels.json").parent / "philox_normal.ptx"
    damaged.unlink()
    damaged.write_bytes(b"?")
    assert reason(bundle.path, empty, "float16", *engines) == "its files were damaged"
    open_bundle(bundle.path)
    changed = reason(bundle.path, empty, "float16", engine("tensorrt-rtx", "sm89"), engine("tensorrt", "sm120"))
    assert changed == "reused", "whichever engines want them"


def test_what_changed_is_told(bundle: Bundle, empty: Manifest, monkeypatch: pytest.MonkeyPatch) -> None:
    from latentrt.export.engines import kernels_in_bundle

    compiled: list[tuple[str, ...]] = []

    def compile_nothing(writer: BundleWriter, targets: tuple[str, ...], dtypes: list[str]) -> None:
        compiled.append((*targets, *dtypes))
        raise ExportError("stopped here")

    monkeypatch.setattr(kernels_in_bundle, "_compile", compile_nothing)
    targets = "targets changed sm89, sm120, ptx -> "
    for dtype, target, says in (
        ("float32", "sm89", f"{targets}sm89, ptx; dtypes changed float16 -> float32"),
        ("float16", "sm86", f"{targets}sm86, ptx"),
    ):
        assert planned(bundle, dtype, engine("tensorrt-rtx", target)) == {"kernels": says}
        with pytest.raises(ExportError, match="stopped here"):
            reason(bundle.path, empty, dtype, engine("tensorrt-rtx", target))
    assert compiled == [("sm89", PTX, "float32"), ("sm86", PTX, "float16")]
    of_any_gpu = engine("onnxruntime-cuda")
    with pytest.raises(ExportError, match="stopped here"):
        reason(bundle.path, empty, "float16", of_any_gpu)
    assert compiled[2] == ("sm80", "sm86", "sm89", "sm90", "sm100", "sm120", PTX, "float16")
    same = engine("tensorrt-rtx", "sm89", "sm120")
    assert planned(bundle, "float16", same) == {"kernels": "reused"}
    assert planned(bundle, "float16", same, force=True) == {"kernels": "forced"}
    assert planned(bundle, "float16", engine("onnxruntime-cpu")) == {}
    with pytest.raises(ExportError, match="stopped here"):
        reason(bundle.path, empty, "float16", same, force=True)


def test_a_bundle_for_the_processor_has_none(tmp_path: Path, empty: Manifest, emoji_bundle: Path) -> None:
    with building(tmp_path / "bundle", empty, "float32", engine("onnxruntime-cpu")) as events:
        assert events == []
    assert kernels_of(open_bundle(tmp_path / "bundle")) is None
    assert kernels_of(open_bundle(emoji_bundle, verify=False)) is None


def test_without_triton_the_extra_is_named_before_anything_is_built(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "triton", None)
    says = re.escape("triton, for the kernels beside them | install it: pip install 'latentrt[export]'")
    with pytest.raises(MissingDependencyError, match=says):
        compiler_for(EngineOptions("onnxruntime-cuda"))
    assert compiler_for(EngineOptions("onnxruntime-cpu")).provider == "onnxruntime-cpu"


@pytest.mark.parametrize(
    ("stderr", "kind", "says"),
    [
        ("OSError: [Errno 28] No space left on device", OutputError, "cannot be written .* make room"),
        ("ptxas fatal: unsupported", ExportError, "the kernels cannot be compiled .* ptxas fatal"),
    ],
)
def test_why_the_child_failed(
    tmp_path: Path, empty: Manifest, monkeypatch: pytest.MonkeyPatch, stderr: str, kind: type[Exception], says: str
) -> None:
    failed = subprocess.CompletedProcess[str]([], 1, "", f"Traceback\n{stderr}\n")
    monkeypatch.setattr(subprocess, "run", lambda *_, **__: failed)
    with pytest.raises(kind, match=says):
        reason(tmp_path / "bundle", empty, "float16", engine("tensorrt-rtx", "sm89"))


def test_a_compiler_that_fails_says_why(tmp_path: Path, empty: Manifest) -> None:
    with pytest.raises(ExportError, match=r"the kernels cannot be compiled .* expected: code for sm1, ptx"):
        reason(tmp_path / "bundle", empty, "float16", engine("tensorrt-rtx", "sm1"))
    assert not (tmp_path / "bundle").exists()


def test_kernels_of_another_version_are_not_used(bundle: Bundle, tmp_path: Path) -> None:
    for content, says in ((b'{"schema_version": 1', "cannot be read"), (b"", "cannot be read")):
        (tmp_path / "kernels").mkdir(exist_ok=True)
        (tmp_path / "kernels" / "kernels.json").write_bytes(content)
        with pytest.raises(BundleError, match=rf"kernels/kernels.json {says} .*build the bundle again"):
            kernels_of(replace(bundle, path=tmp_path))
    kernels = kernels_of(bundle)
    assert kernels is not None
    for change, version in (({"schema_version": 1}, 1), ({"layout": "another"}, 3)):
        (tmp_path / "kernels" / "kernels.json").write_bytes(
            msgspec.json.encode(msgspec.structs.replace(kernels.index, **change))
        )
        with pytest.raises(BundleError, match=rf"kernels of another LatentRT \| received: schema version {version}, "):
            kernels_of(replace(bundle, path=tmp_path))
