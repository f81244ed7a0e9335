"""Where a bundle may be written, and what is said where it may not."""

from __future__ import annotations

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


def test_a_place_that_cannot_be_written_to(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("mine")
    assert "a folder that you may write to" in refused(tmp_path / "file" / "bundle")
    assert "a folder that you may write to" in refused(Path("/proc/latentrt/bundle"))


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
