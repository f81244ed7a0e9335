"""Bundles with engines of TensorRT-RTX, built here for GPUs that are elsewhere."""

from __future__ import annotations

import json
import shutil
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pytest

from latentrt.export import estimates
from latentrt.export.build_engine import EngineOptions, compiler_for
from latentrt.export.bundle_from_bundle import EngineBuildOptions, bundle_from_bundle
from latentrt.export.bundle_from_checkpoint import BuildOptions, bundle_from_checkpoint, planned_changes
from latentrt.export.events import BuildEvent
from latentrt.runtime.bundles.bundle import open_bundle
from latentrt.runtime.errors import OutputError, RequestError, RunError

pytest.importorskip("tensorrt_rtx", reason="tensorrt-rtx has no wheel for this machine")

Run = Callable[..., subprocess.CompletedProcess[str]]

RTX = EngineOptions("tensorrt-rtx", ("sm89", "sm120"))
TEXT = BuildOptions(RTX, components=("text_encoder",))


def engines(provider: str, *targets: str) -> EngineBuildOptions:
    return EngineBuildOptions(EngineOptions(provider, targets))


@pytest.fixture(scope="module")
def rtx_bundle(tmp_path_factory: pytest.TempPathFactory, tiny_checkpoint: Path) -> Path:
    """The first text encoder in fp16, for two GPUs."""
    path = tmp_path_factory.mktemp("rtx") / "bundle"
    bundle_from_checkpoint(tiny_checkpoint, path, TEXT)
    return path


@pytest.fixture
def rtx_copy(rtx_bundle: Path, tmp_path: Path) -> Path:
    return Path(shutil.copytree(rtx_bundle, tmp_path / "bundle"))


def test_the_manifest_says_what_the_engine_is_for_and_that_it_did_not_run(rtx_bundle: Path) -> None:
    bundle = open_bundle(rtx_bundle)
    (engine,) = bundle.manifest.engines
    record = bundle.manifest.components["text_encoder"]
    assert (engine.provider, engine.targets) == ("tensorrt-rtx", ("sm89", "sm120"))
    assert engine.gate == ()
    assert engine.not_run == "it was built without a GPU of sm89 or sm120"
    assert record.precision == "fp16"  # what providers for GPUs are used with
    assert record.gate, "the graph was compared"
    assert {figures.non_finite for figures in record.gate} == {0}
    assert bundle.file(engine.path).stat().st_size > bundle.manifest.files[record.weights[0]].size
    on_disk = {str(path.relative_to(rtx_bundle)) for path in rtx_bundle.rglob("*") if path.is_file()}
    assert on_disk == {*bundle.manifest.files, "manifest.json", "build.json"}


def test_the_record_of_a_build_says_what_a_bug_report_needs(rtx_bundle: Path) -> None:
    record = json.loads((rtx_bundle / "build.json").read_text())
    built = record["components"]["text_encoder"]
    assert built["reason"] == "new"
    assert {"export", "compile"} <= built["stages"].keys()
    assert built["peak_memory"] > 50 << 20
    assert "Int64" in built["warnings"][0]
    assert record["options"]["engine"]["targets"] == ["sm89", "sm120"]
    assert record["versions"]["torch"]
    assert record["peak_memory"] > 100 << 20


def test_a_rebuild_takes_the_engine_over_or_says_what_changed(rtx_copy: Path, tiny_checkpoint: Path) -> None:
    events: list[BuildEvent] = []
    bundle_from_checkpoint(tiny_checkpoint, rtx_copy, TEXT, events.append)
    done = [(event.component, event.reason) for event in events if event.stage == "done"]
    assert done == [("text_encoder", "reused"), ("kernels", "reused")]
    fewer = BuildOptions(EngineOptions("tensorrt-rtx", ("sm89",)), components=("text_encoder",))
    change = "targets changed sm89, sm120 -> sm89"
    expected = {"text_encoder": change, "kernels": "targets changed sm89, sm120, ptx -> sm89, ptx"}
    before = (rtx_copy / "manifest.json").read_bytes()
    assert planned_changes(tiny_checkpoint, rtx_copy, fewer) == expected
    assert (rtx_copy / "manifest.json").read_bytes() == before


def test_engines_of_several_providers_live_side_by_side(rtx_copy: Path, tiny_checkpoint: Path) -> None:
    """A bundle made where torch is, completed from its own graphs; engines of the other provider stay."""
    manifest = bundle_from_bundle(rtx_copy, rtx_copy, engines("tensorrt-rtx", "sm86"))
    assert [engine.targets for engine in manifest.engines] == [("sm86",)]
    manifest = bundle_from_bundle(rtx_copy, rtx_copy, engines("onnxruntime-cpu"))
    assert {engine.provider for engine in manifest.engines} == {"tensorrt-rtx", "onnxruntime-cpu"}
    cpu = next(engine for engine in manifest.engines if engine.provider == "onnxruntime-cpu")
    assert cpu.gate, "it was compared with the portable graph"
    assert max(figures.cosine_distance for figures in cpu.gate) < 1e-3
    open_bundle(rtx_copy)  # every file is what the manifest says


def test_engines_are_built_from_a_bundle_into_another_folder(rtx_bundle: Path, tmp_path: Path) -> None:
    made = bundle_from_bundle(rtx_bundle, tmp_path / "other", engines("tensorrt-rtx", "sm120"))
    assert made.components == open_bundle(rtx_bundle).manifest.components
    assert [engine.targets for engine in open_bundle(tmp_path / "other").manifest.engines] == [("sm120",)]


def test_building_from_a_bundle_needs_no_torch(rtx_copy: Path) -> None:
    script = (
        "import sys; from pathlib import Path\n"
        "from latentrt.export.build_engine import EngineOptions\n"
        "from latentrt.export.bundle_from_bundle import EngineBuildOptions, bundle_from_bundle\n"
        "if __name__ == '__main__':\n"
        "    bundle = Path(sys.argv[1])\n"
        "    bundle_from_bundle(bundle, bundle, EngineBuildOptions(EngineOptions('tensorrt-rtx', ('sm86',))))\n"
        "    print(sorted({'torch', 'diffusers', 'transformers'} & sys.modules.keys()))\n"
    )
    path = rtx_copy.parent / "build_there.py"
    path.write_text(script)
    done = subprocess.run([sys.executable, "-P", path, rtx_copy], capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    assert done.stdout.strip() == "[]"


def test_a_profile_for_each_bucket(rtx_copy: Path, tiny_checkpoint: Path) -> None:
    """The text encoder has no axis that buckets differ in: one profile is enough for it."""
    options = BuildOptions(
        EngineOptions("tensorrt-rtx", ("sm89", "sm120"), profiles="buckets"), components=("text_encoder",)
    )
    assert planned_changes(tiny_checkpoint, rtx_copy, options) == {"text_encoder": "reused", "kernels": "reused"}
    changes = planned_changes(tiny_checkpoint, rtx_copy, BuildOptions(options.engine, aspects="96x96,64x96"))
    assert changes == dict.fromkeys(changes, "new") | {"text_encoder": "reused", "kernels": changes["kernels"]}


def test_the_command_line_builds_for_gpus_that_are_named(latentrt: Run, rtx_copy: Path, tiny_checkpoint: Path) -> None:
    arguments = ("build-engines", tiny_checkpoint, "--out", rtx_copy, "--component", "text_encoder")
    done = latentrt(*arguments, "--provider", "tensorrt-rtx", "--target-sm", "sm_89, 12.0,", "--dry-run")
    assert done.returncode == 0, done.stderr
    assert done.stdout == "text_encoder: reused\nkernels: reused\n"
    done = latentrt("build-engines", rtx_copy, "--provider", "tensorrt-rtx", "--target-sm", "75")
    assert done.returncode == 0, done.stderr
    assert "text_encoder: rebuilt because targets changed sm89, sm120 -> sm75" in done.stderr
    done = latentrt("build-engines", rtx_copy, "--precision", "fp32")
    assert done.returncode == 2
    assert "the graphs of a bundle are what they are" in done.stderr
    told = " ".join(latentrt("inspect", rtx_copy).stdout.split())
    assert "not compared: engines of tensorrt-rtx: it was built without a GPU of sm75" in told
    assert "engines of tensorrt-rtx hold a copy of their weights, one for all of their targets" in told
    done = latentrt("inspect", rtx_copy, "--component", "text_encoder", "--layers")
    assert done.returncode == 0, done.stderr
    assert done.stdout.startswith("text_encoder, shapes at texts 2\n")
    assert "[Op: Attention]" in done.stdout
    assert max(map(len, done.stdout.splitlines())) <= 120
    assert "dtype=float16, shape=(2, 3, 77, 8)" in done.stdout
    assert "dtype=float16" in done.stdout


def test_too_little_memory_and_too_little_disk_are_told_before_the_work(
    tiny_checkpoint: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(estimates, "_DISK_BASE", 1 << 60)
    with pytest.raises(OutputError, match="not enough room for the bundle"):
        bundle_from_checkpoint(tiny_checkpoint, tmp_path / "bundle", TEXT)
    monkeypatch.undo()
    monkeypatch.setattr(estimates, "_MEMORY_BASE", 1 << 60)
    with pytest.raises(RunError, match="text_encoder: not enough memory to build its engine"):
        bundle_from_checkpoint(tiny_checkpoint, tmp_path / "bundle", TEXT)
    assert list(tmp_path.iterdir()) == []


def test_settings_of_tensorrt_are_not_for_other_providers() -> None:
    with pytest.raises(RequestError, match="a provider for GPUs with --target-sm"):
        compiler_for(EngineOptions(profiles="buckets"))
    with pytest.raises(RequestError, match=r"--profiles .* span or buckets"):
        compiler_for(EngineOptions("tensorrt-rtx", ("sm89",), profiles="each"))


def test_a_graph_that_somebody_edited_is_refused(rtx_copy: Path) -> None:
    graph = rtx_copy / "onnx" / "text_encoder.onnx"
    graph.write_bytes(graph.read_bytes() + b"\0")
    with pytest.raises(ValueError, match=r"onnx/text_encoder.onnx is damaged"):
        bundle_from_bundle(rtx_copy, rtx_copy, engines("tensorrt-rtx", "sm89"))
