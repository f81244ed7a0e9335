"""What a bundle takes over from the previous one, and what it does not trust."""

from __future__ import annotations

from pathlib import Path

import pytest

from latentrt.export import store
from latentrt.export.store import BundleWriter
from latentrt.runtime.bundles.bundle import Bundle, open_bundle
from latentrt.runtime.errors import BundleError, OutputError

from .stored import contents, manifest, write_bundle


def test_files_are_taken_over_only_while_they_are_what_the_manifest_says(tmp_path: Path) -> None:
    out = tmp_path / "bundle"
    write_bundle(out, {"onnx/a": b"one", "onnx/b": b"two"})
    (out / "onnx/b").write_bytes(b"owt")
    with BundleWriter(out) as writer:
        writer.take_over(["onnx/a"])
        for name in ("onnx/b", "onnx/missing"):
            assert not writer.intact([name])
            with pytest.raises(BundleError, match=name):
                writer.take_over([name])
        assert set(writer.files) == {"onnx/a"}
        writer.commit(manifest(writer))
    assert set(contents(out)) == {"onnx/a", "manifest.json"}


def test_a_file_that_was_taken_over_is_never_written_to(tmp_path: Path) -> None:
    out = tmp_path / "bundle"
    write_bundle(out, {"onnx/a": b"one"})
    with BundleWriter(out) as writer:
        writer.take_over(["onnx/a"])
        with pytest.raises(OutputError, match="File exists"):
            writer.write("onnx/a", b"two")
    assert open_bundle(out).read("onnx/a") == b"one"


def test_files_are_copied_where_links_are_not_possible(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    out = tmp_path / "bundle"
    write_bundle(out, {"onnx/a": b"one"})

    def refuse(source: Path, target: Path) -> None:
        raise OSError("no links here")

    monkeypatch.setattr(store.os, "link", refuse)
    with BundleWriter(out) as writer:
        writer.take_over(["onnx/a"])
        writer.commit(manifest(writer))
    assert open_bundle(out).read("onnx/a") == b"one"


def test_files_of_the_previous_bundle_are_read_once(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    out, read = tmp_path / "bundle", []
    write_bundle(out, {"onnx/a": b"one", "onnx/b": b"two"})
    verify = Bundle.verify
    monkeypatch.setattr(Bundle, "verify", lambda bundle, names: (read.extend(names), verify(bundle, names)))
    with BundleWriter(out) as writer:
        assert writer.intact(["onnx/a"])
        writer.take_over(["onnx/a", "onnx/b"])
        writer.take(["onnx/a", "onnx/b"], open_bundle(out, verify=False))
    assert sorted(read) == ["onnx/a", "onnx/b"]
