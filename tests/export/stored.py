"""Bundles of nothing but files, written and listed."""

from __future__ import annotations

from pathlib import Path

import pytest

from latentrt.export.store import BundleWriter
from latentrt.runtime.bundles.manifest import SCHEMA_VERSION, Defaults, LatentSpace, Manifest
from latentrt.runtime.errors import OutputError


def manifest(writer: BundleWriter) -> Manifest:
    """A manifest of nothing but the files that were written."""
    return Manifest(
        schema_version=SCHEMA_VERSION, latentrt="0", name="nothing", family="sdxl", latent_space=LatentSpace(4, 8, 8),
        text_encodings=(), force_zeros_for_empty_prompt=True, scheduler={}, defaults=Defaults(8, 8, 1, 1),
        buckets=(), components={}, engines=(), files=dict(writer.files), tools={},
    )  # fmt: skip


def write_bundle(out: Path, files: dict[str, bytes]) -> None:
    with BundleWriter(out) as writer:
        for name, content in files.items():
            writer.write(name, content)
        writer.commit(manifest(writer))


def names(folder: Path) -> list[str]:
    return sorted(path.name for path in folder.iterdir())


def contents(folder: Path) -> dict[str, bytes]:
    return {str(path.relative_to(folder)): path.read_bytes() for path in folder.rglob("*") if path.is_file()}


def refused(out: Path) -> str:
    with pytest.raises(OutputError) as error:
        write_bundle(out, {"onnx/a": b"one"})
    return str(error.value)
