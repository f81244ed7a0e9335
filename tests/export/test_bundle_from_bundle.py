"""Engines for the graphs of a bundle: what is built, what is read, and what cannot be asked for."""

from __future__ import annotations

import json
import subprocess
from collections.abc import Callable
from pathlib import Path

import pytest

from latentrt.export.build_engine import EngineOptions
from latentrt.export.bundle_from_bundle import EngineBuildOptions, bundle_from_bundle, planned_engines
from latentrt.export.events import BuildEvent
from latentrt.export.store import BundleWriter
from latentrt.runtime.bundles.bundle import Bundle, open_bundle
from latentrt.runtime.errors import BundleError, RequestError

CPU = EngineBuildOptions(EngineOptions("onnxruntime-cpu"))


def flip_a_byte(path: Path) -> None:
    data = bytearray(path.read_bytes())
    data[len(data) // 2] ^= 1
    path.write_bytes(data)


def test_each_file_is_read_once_and_nothing_changes(text_bundle_copy: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    before, read = open_bundle(text_bundle_copy), []
    verify = Bundle.verify

    def recorded(bundle: Bundle, names: list[str] | None = None) -> None:
        read.extend(names or ())
        verify(bundle, names)

    monkeypatch.setattr(Bundle, "verify", recorded)
    events: list[BuildEvent] = []
    bundle_from_bundle(text_bundle_copy, text_bundle_copy, CPU, events.append)
    assert [event.reason for event in events if event.stage == "done"] == ["reused"]
    assert sorted(read) == sorted(before.manifest.files)
    assert open_bundle(text_bundle_copy).hash == before.hash


def test_an_engine_is_built_into_another_bundle(text_bundle: Path, tmp_path: Path) -> None:
    assert planned_engines(text_bundle, tmp_path / "other", CPU) == {"text_encoder": "reused"}, "it has one already"
    assert list(tmp_path.iterdir()) == []
    bundle_from_bundle(text_bundle, tmp_path / "other", EngineBuildOptions(CPU.engine, force=True))
    assert open_bundle(tmp_path / "other").manifest.engines[0].gate


@pytest.mark.parametrize("file", ["onnx/text_encoder.onnx", "tokenizers/tokenizer.json"])
def test_a_damaged_file_of_the_source_is_named_and_nothing_is_built(text_bundle_copy: Path, file: str) -> None:
    flip_a_byte(text_bundle_copy / file)
    before = (text_bundle_copy / "manifest.json").read_bytes()
    for build in (bundle_from_bundle, planned_engines):
        with pytest.raises(BundleError, match=f"{file} is damaged"):
            build(text_bundle_copy, text_bundle_copy, CPU)
    assert (text_bundle_copy / "manifest.json").read_bytes() == before
    assert [path.name for path in text_bundle_copy.parent.iterdir()] == ["bundle"]


def test_a_damaged_engine_is_planned_and_built_anew(text_bundle_copy: Path) -> None:
    before = open_bundle(text_bundle_copy)
    flip_a_byte(text_bundle_copy / before.manifest.engines[0].path)
    assert planned_engines(text_bundle_copy, text_bundle_copy, CPU) == {"text_encoder": "its files were damaged"}
    bundle_from_bundle(text_bundle_copy, text_bundle_copy, CPU)
    made = open_bundle(text_bundle_copy).manifest
    assert made.files == before.manifest.files


def test_the_source_is_read_when_nobody_writes_it_any_more(text_bundle_copy: Path) -> None:
    def stop(event: BuildEvent) -> None:
        raise RuntimeError(event.stage)

    with BundleWriter(text_bundle_copy), pytest.raises(RuntimeError, match="wait"):
        bundle_from_bundle(text_bundle_copy, text_bundle_copy, CPU, stop)


def test_a_source_that_is_no_bundle_and_a_component_that_it_lacks(text_bundle: Path, tmp_path: Path) -> None:
    with pytest.raises(BundleError, match="no bundle here"):
        bundle_from_bundle(tmp_path / "nowhere", tmp_path / "new" / "bundle", CPU)
    with pytest.raises(RequestError, match=r"--component \| received: unet \| expected: text_encoder"):
        bundle_from_bundle(text_bundle, tmp_path / "bundle", EngineBuildOptions(CPU.engine, ("unet",)))
    assert list(tmp_path.iterdir()) == []


def test_what_only_a_checkpoint_can_be_asked_for_is_refused_by_name(
    latentrt: Callable[..., subprocess.CompletedProcess[str]], text_bundle: Path
) -> None:
    options = (
        "--precision", "--aspects", "--batch", "--prediction-type", "--skip-layers", "--vae", "--tiny-vae",
        "--text-encoder", "--text-encoder-2", "--text-encoder-3", "--tokenizer-3",
    )  # fmt: skip
    done = latentrt("build-engines", text_bundle, "--onnx-only", *(word for name in options for word in (name, "x")))
    assert done.returncode == 2
    subject, received, expected = done.stderr.splitlines()[-1].removeprefix("error: ").split(" | ")
    assert sorted(subject.split(", ")) == sorted((*options, "--onnx-only"))
    assert received == f"received: with the bundle {text_bundle}"
    assert expected == "expected: a checkpoint: the graphs of a bundle are what they are"


def test_a_dry_run_for_scripts(
    latentrt: Callable[..., subprocess.CompletedProcess[str]], text_bundle: Path, tmp_path: Path
) -> None:
    done = latentrt("build-engines", text_bundle, "--out", tmp_path / "new", "--dry-run", "--json")
    assert (done.returncode, done.stderr) == (0, "")
    assert json.loads(done.stdout) == {"components": {"text_encoder": {"why": "reused"}}, "dropped": []}
    assert list(tmp_path.iterdir()) == []


def test_two_processes_at_once(start_latentrt: Callable[..., subprocess.Popen[str]], text_bundle_copy: Path) -> None:
    """The second says that it waits, and takes over what the first has built."""
    before = open_bundle(text_bundle_copy)
    with BundleWriter(text_bundle_copy) as first:
        second = start_latentrt("build-engines", text_bundle_copy)
        assert second.stderr is not None
        assert second.stderr.readline() == "waiting for another build of this bundle to end\n"
        first.take_over(before.manifest.files)
        first.commit(before.manifest)
    output, messages = second.communicate(timeout=60)
    assert second.returncode == 0, messages
    assert "text_encoder: reused" in messages
    assert "not compared" not in output
    assert open_bundle(text_bundle_copy).hash == before.hash
    assert [path.name for path in text_bundle_copy.parent.iterdir()] == ["bundle"]
