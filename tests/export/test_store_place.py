"""Where a bundle may be written, and what is said where it may not."""

from __future__ import annotations

import errno
import os
import resource
from pathlib import Path

import pytest

from latentrt.export.store import BundleWriter
from latentrt.runtime.bundles.bundle import open_bundle
from latentrt.runtime.bundles.manifest import FileRecord
from latentrt.runtime.errors import OutputError

from .stored import contents, manifest, names, refused, write_bundle


def test_a_place_that_is_taken(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("mine")
    (tmp_path / "folder").mkdir()
    (tmp_path / "folder" / "thesis.txt").write_text("mine")
    (tmp_path / "loop").symlink_to(tmp_path / "loop")
    for name in ("file", "folder", "loop"):
        assert "exists and is not a bundle" in refused(tmp_path / name)
    assert "exists and is not a bundle" in refused(Path("/"))
    assert (tmp_path / "folder" / "thesis.txt").read_text() == "mine"
    assert names(tmp_path) == ["file", "folder", "loop"]


def test_an_empty_folder_is_not_taken(tmp_path: Path) -> None:
    (tmp_path / "bundle").mkdir()
    write_bundle(tmp_path / "bundle", {"onnx/a": b"one"})
    assert open_bundle(tmp_path / "bundle").read("onnx/a") == b"one"


def test_a_bundle_of_another_schema_version_is_replaced(tmp_path: Path) -> None:
    out = tmp_path / "bundle"
    out.mkdir()
    (out / "manifest.json").write_text('{"schema_version": 1, "latentrt": "0.0.1", "files": {}, "models": 7}')
    write_bundle(out, {"onnx/a": b"one"})
    assert open_bundle(out).read("onnx/a") == b"one"


@pytest.mark.parametrize(
    ("files", "found"),
    [
        ({"manifest.json": '{"name": "my app", "icons": []}'}, "a manifest.json that LatentRT did not write"),
        ({"onnx/model.onnx": "mine"}, "a folder without manifest.json"),
    ],
)
def test_a_folder_that_looks_like_a_bundle_is_somebodys(tmp_path: Path, files: dict[str, str], found: str) -> None:
    out = tmp_path / "bundle"
    for name, content in files.items():
        (out / name).parent.mkdir(parents=True, exist_ok=True)
        (out / name).write_text(content)
    assert f"exists and is not a bundle | received: {found} | expected" in refused(out)
    assert {str(path.relative_to(out)) for path in out.rglob("*") if path.is_file()} == set(files)
    assert names(tmp_path) == ["bundle"]


@pytest.mark.parametrize("damage", ["", "{", '{"schema_version": "six"}'])
def test_a_bundle_with_a_damaged_manifest_is_replaced_if_that_is_said(tmp_path: Path, damage: str) -> None:
    out = tmp_path / "bundle"
    write_bundle(out, {"onnx/a": b"one"})
    (out / "manifest.json").write_text(damage)
    assert "a bundle with a damaged manifest.json | give --force to replace it" in refused(out)
    with BundleWriter(out, force=True) as writer:
        assert writer.unreadable == f"{out}: manifest.json cannot be read"
        writer.write("onnx/a", b"two")
        writer.commit(manifest(writer))
    assert open_bundle(out).read("onnx/a") == b"two"


def test_a_bundle_that_somebody_keeps_files_in_is_not_replaced(tmp_path: Path) -> None:
    out = tmp_path / "bundle"
    write_bundle(out, {"onnx/a": b"one"})
    (out / "thesis.txt").write_text("mine")
    assert "received: thesis.txt | expected" in refused(out)
    assert (out / "thesis.txt").read_text() == "mine"


def test_a_link_to_a_bundle_stays_a_link(tmp_path: Path) -> None:
    write_bundle(tmp_path / "v1", {"onnx/a": b"one"})
    (tmp_path / "current").symlink_to(tmp_path / "v1")
    write_bundle(tmp_path / "current", {"onnx/b": b"two"})
    assert (tmp_path / "current").is_symlink()
    assert open_bundle(tmp_path / "v1").read("onnx/b") == b"two"
    assert names(tmp_path) == ["current", "v1"]


def test_a_place_that_cannot_be_written_to(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("mine")
    assert "a folder that you may write to" in refused(tmp_path / "file" / "bundle")
    assert "a folder that you may write to" in refused(Path("/proc/latentrt/bundle"))


def test_folders_that_were_made_on_the_way_to_one_that_cannot_be_are_removed(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    mkdir = os.mkdir

    def full(path: Path, mode: int = 0o777) -> None:
        if path.name == "full" and path.parent.exists():
            raise OSError(errno.ENOSPC, "No space left on device")
        mkdir(path, mode)

    monkeypatch.setattr(os, "mkdir", full)
    assert "No space left on device | make room" in refused(tmp_path / "made" / "too" / "full" / "bundle")
    assert names(tmp_path) == []


@pytest.mark.parametrize("write", ["write", "write_unlisted", "commit"])
def test_a_full_disk_names_the_place_and_leaves_the_previous_bundle(tmp_path: Path, write: str) -> None:
    out = tmp_path / "bundle"
    write_bundle(out, {"onnx/a": b"one"})
    before = contents(out)
    soft, hard = resource.getrlimit(resource.RLIMIT_FSIZE)

    def build() -> None:
        with BundleWriter(out) as writer:
            resource.setrlimit(resource.RLIMIT_FSIZE, (10_000, hard))
            if write == "commit":
                writer.files |= {str(number): FileRecord(0, "") for number in range(1000)}
                writer.commit(manifest(writer))
            else:
                getattr(writer, write)("onnx/b", b"x" * 20_000)

    try:
        with pytest.raises(OutputError, match=r"bundle: cannot be written \| received: File too large \| make room"):
            build()
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, (soft, hard))
    assert contents(out) == before
    assert names(tmp_path) == ["bundle"]
