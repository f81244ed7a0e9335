"""A bundle is written whole or not at all."""

from __future__ import annotations

import signal
import subprocess
import sys
import threading
from collections.abc import Iterator
from pathlib import Path

import pytest

from latentrt.export.store import BundleWriter
from latentrt.runtime.bundles.bundle import open_bundle
from latentrt.runtime.errors import OutputError

from .stored import contents, manifest, names, write_bundle


def test_a_committed_bundle_opens_and_nothing_else_is_there(tmp_path: Path) -> None:
    write_bundle(tmp_path / "bundle", {"onnx/a": b"one", "onnx/er/b": b""})
    bundle = open_bundle(tmp_path / "bundle")
    assert bundle.read("onnx/a") == b"one"
    assert bundle.manifest.files["onnx/er/b"].size == 0
    assert names(tmp_path) == ["bundle"]


def test_a_file_is_written_chunk_by_chunk(tmp_path: Path) -> None:
    with BundleWriter(tmp_path / "bundle") as writer:
        seen = []

        def chunks() -> Iterator[bytes]:
            for number in range(3):
                seen.append((writer.folder / "onnx/a").stat().st_size if number else 0)
                yield bytes([number]) * (1 << 20)

        writer.write("onnx/a", chunks())
        writer.commit(manifest(writer))
    assert seen == [0, 1 << 20, 2 << 20]
    assert open_bundle(tmp_path / "bundle").manifest.files["onnx/a"].size == 3 << 20


@pytest.mark.parametrize("error", [RuntimeError("broken"), KeyboardInterrupt(), SystemExit(143)])
def test_whatever_ends_a_build_leaves_the_previous_bundle_alone(tmp_path: Path, error: BaseException) -> None:
    out = tmp_path / "bundle"
    write_bundle(out, {"onnx/a": b"one"})
    before = contents(out)

    def build() -> None:
        with BundleWriter(out) as writer:
            writer.take_over(["onnx/a"])
            writer.write("onnx/b", b"two")
            raise error

    with pytest.raises(type(error)):
        build()
    assert contents(out) == before
    assert names(tmp_path) == ["bundle"]


def test_folders_made_for_a_build_that_failed_go_with_it(tmp_path: Path) -> None:
    with pytest.raises(RuntimeError), BundleWriter(tmp_path / "new" / "deep" / "bundle"):
        raise RuntimeError
    assert names(tmp_path) == []


@pytest.mark.parametrize("renames_before", [0, 1])
def test_an_interrupt_while_committing_leaves_one_whole_bundle(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, renames_before: int
) -> None:
    out = tmp_path / "bundle"
    write_bundle(out, {"onnx/a": b"one"})
    rename, count = Path.rename, 0

    def interrupted(path: Path, target: Path) -> Path:
        nonlocal count
        count += 1
        if count == renames_before + 1:
            raise KeyboardInterrupt
        return rename(path, target)

    monkeypatch.setattr(Path, "rename", interrupted)
    with pytest.raises(KeyboardInterrupt):
        write_bundle(out, {"onnx/b": b"two"})
    assert open_bundle(out).read("onnx/a") == b"one"
    assert names(tmp_path) == ["bundle"]


def test_a_build_killed_between_the_two_renames_is_mended_by_the_next(tmp_path: Path) -> None:
    out = tmp_path / "bundle"
    write_bundle(out, {"onnx/a": b"one"})
    out.rename(tmp_path / ".bundle.old")
    with BundleWriter(out) as writer:
        writer.take_over(["onnx/a"])
    assert open_bundle(out).read("onnx/a") == b"one"
    assert names(tmp_path) == ["bundle"]


#: Builds a bundle over another one, and is killed at one of its stages.
_KILLED = """
import os, pathlib, signal, sys
from latentrt.export.store import BundleWriter
from latentrt.runtime.bundles.bundle import open_bundle

out, stage = sys.argv[1:]
rename, renames = pathlib.Path.rename, []

def kill(now):
    if now == stage:
        os.kill(os.getpid(), signal.SIGKILL)

def counted(path, target):
    kill(f"before rename {len(renames)}")
    rename(path, target)
    renames.append(target)
    kill(f"after rename {len(renames) - 1}")

def chunks():
    yield b"two"
    kill("written in part")

with BundleWriter(out) as writer:
    kill("entered")
    writer.take_over(["onnx/a"])
    kill("taken over")
    writer.write("onnx/b", chunks())
    kill("written")
    pathlib.Path.rename = counted
    writer.commit(writer.previous.manifest)
"""


@pytest.mark.parametrize(
    "stage",
    ["entered", "taken over", "written in part", "written", "before rename 0", "after rename 0", "after rename 1"],
)
def test_a_process_killed_at_any_stage_leaves_a_whole_bundle_to_the_next(tmp_path: Path, stage: str) -> None:
    out = tmp_path / "bundle"
    write_bundle(out, {"onnx/a": b"one"})
    before = open_bundle(out).manifest
    command = [sys.executable, "-P", "-c", _KILLED, str(out), stage]
    assert subprocess.run(command, check=False).returncode == -signal.SIGKILL
    with BundleWriter(out) as writer:
        assert writer.previous is not None
        assert writer.previous.manifest == before
        assert contents(writer.folder) == {}
        writer.take_over(["onnx/a"])
        writer.commit(manifest(writer))
    assert contents(out).keys() == {"onnx/a", "manifest.json"}
    assert names(tmp_path) == ["bundle"]


def test_remains_of_a_killed_build_are_not_trusted(tmp_path: Path) -> None:
    out = tmp_path / "bundle"
    write_bundle(tmp_path / "other", {"onnx/a": b"half"})
    (tmp_path / "other").rename(tmp_path / ".bundle.partial")
    (tmp_path / ".bundle.lock").touch()
    with BundleWriter(out) as writer:
        assert writer.previous is None
        assert contents(writer.folder) == {}
        writer.write("onnx/b", b"two")
        writer.commit(manifest(writer))
    assert set(contents(out)) == {"onnx/b", "manifest.json"}
    assert names(tmp_path) == ["bundle"]


def test_a_source_that_cannot_be_read_is_not_an_output_that_cannot_be_written(tmp_path: Path) -> None:
    def chunks() -> Iterator[bytes]:
        yield b"one"
        raise OSError("the checkpoint's disk is broken")

    with pytest.raises(OSError, match="the checkpoint's disk") as error, BundleWriter(tmp_path / "bundle") as writer:
        writer.write("onnx/a", chunks())
    assert not isinstance(error.value, OutputError)
    assert names(tmp_path) == []


def test_a_second_build_waits_for_the_first_and_takes_over_from_it(tmp_path: Path) -> None:
    out = tmp_path / "bundle"
    told, entered = threading.Event(), threading.Event()

    def second() -> None:
        with BundleWriter(out, told.set) as writer:
            entered.set()
            writer.take_over(["onnx/a"])
            writer.commit(manifest(writer))

    thread = threading.Thread(target=second)
    with BundleWriter(out) as writer:
        thread.start()
        assert told.wait(10)
        assert not entered.wait(0.2)
        writer.write("onnx/a", b"one")
        writer.commit(manifest(writer))
    thread.join(10)
    assert open_bundle(out).read("onnx/a") == b"one"
    assert names(tmp_path) == ["bundle"]


def test_a_build_interrupted_while_it_waits_leaves_the_other_alone(tmp_path: Path) -> None:
    def interrupt() -> None:
        raise KeyboardInterrupt

    out = tmp_path / "bundle"
    with BundleWriter(out) as writer:
        writer.write("onnx/a", b"one")
        with pytest.raises(KeyboardInterrupt), BundleWriter(out, interrupt):
            pass
        writer.commit(manifest(writer))
    assert open_bundle(out).read("onnx/a") == b"one"
