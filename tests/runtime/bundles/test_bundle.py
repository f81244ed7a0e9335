"""Bundles are checked when they are opened; each kind of damage has its own message."""

from __future__ import annotations

import json
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from latentrt.runtime import load
from latentrt.runtime.bundles.bundle import open_bundle
from latentrt.runtime.bundles.manifest import decode_manifest, encode_manifest
from latentrt.runtime.errors import BundleError, RequestError

Edit = Callable[[dict[str, Any]], object]


@pytest.fixture
def copy(emoji_bundle: Path, tmp_path: Path) -> Path:
    return Path(shutil.copytree(emoji_bundle, tmp_path / "bundle"))


def edit_manifest(bundle: Path, edit: Edit) -> None:
    path = bundle / "manifest.json"
    content = json.loads(path.read_text())
    edit(content)
    path.write_text(json.dumps(content))


def test_a_whole_bundle_opens_and_its_hash_is_that_of_the_manifest(emoji_bundle: Path) -> None:
    bundle = open_bundle(emoji_bundle)
    assert bundle.manifest.family == "sdxl"
    assert len(bundle.hash) == 64
    listed = set(bundle.manifest.files)
    present = {str(path.relative_to(emoji_bundle)) for path in emoji_bundle.rglob("*") if path.is_file()}
    assert present == listed | {"manifest.json", "build.json"}  # the record of the build is no part of the bundle


def test_encoding_a_manifest_and_decoding_it_changes_nothing(emoji_bundle: Path) -> None:
    manifest = open_bundle(emoji_bundle).manifest
    data = encode_manifest(manifest)
    assert decode_manifest(data, where="here") == manifest
    assert data == (emoji_bundle / "manifest.json").read_bytes()


def flip_byte(path: Path) -> None:
    data = bytearray(path.read_bytes())
    data[len(data) // 2] ^= 1
    path.write_bytes(data)


@pytest.mark.parametrize("pattern", ["onnx/weights/denoiser-*.bin", "engines/*/vae_encoder.onnx", "tokenizers/*.json"])
def test_a_flipped_byte_is_found_and_the_file_is_named(copy: Path, pattern: str) -> None:
    (damaged,) = copy.glob(pattern)
    flip_byte(damaged)
    with pytest.raises(BundleError, match=f"{damaged.name} is damaged .*sha256.*build the bundle again"):
        load(copy)


def test_a_truncated_file_is_found(copy: Path) -> None:
    path = copy / "onnx/denoiser.onnx"
    path.write_bytes(path.read_bytes()[:-1])
    with pytest.raises(BundleError, match=r"onnx/denoiser.onnx is damaged \| received: \d+ bytes"):
        load(copy)


def test_a_missing_engine_file_is_found(copy: Path) -> None:
    (copy / "engines/onnxruntime-cpu/denoiser.onnx").unlink()
    with pytest.raises(BundleError, match=r"denoiser.onnx cannot be read \| received: no such file"):
        load(copy)


def test_a_bundle_without_a_needed_engine_says_which(copy: Path) -> None:
    edit_manifest(copy, lambda m: m.update(engines=[e for e in m["engines"] if e["component"] != "denoiser"]))
    with pytest.raises(BundleError, match=r"no engine for denoiser .*latentrt build-engines"):
        load(copy)


def test_a_bundle_without_engines_says_so(copy: Path) -> None:
    edit_manifest(copy, lambda m: m.update(engines=[]))
    with pytest.raises(BundleError, match=r"no engines for auto .*--onnx-only"):
        load(copy)


@pytest.mark.parametrize(("version", "age"), [(99, "a newer"), (1, "an older")])
def test_another_schema_is_refused(copy: Path, version: int, age: str) -> None:
    edit_manifest(copy, lambda m: m.update(schema_version=version, something_new=1))
    with pytest.raises(
        BundleError, match=rf"made by {age} LatentRT \| received: schema version {version} \| expected: 2"
    ):
        load(copy)


@pytest.mark.parametrize("content", ["", "{", "[]", "{}", '{"schema_version": "2"}', '{"schema_version": 2}'])
def test_a_manifest_that_is_none(copy: Path, content: str) -> None:
    (copy / "manifest.json").write_text(content)
    with pytest.raises(BundleError, match=r"manifest.json cannot be read"):
        load(copy)


@pytest.mark.parametrize("name", ["../outside.bin", "/etc/hostname", "onnx/../../outside.bin"])
def test_a_path_that_leaves_the_folder_is_refused_even_without_verification(copy: Path, name: str) -> None:
    (copy.parent / "outside.bin").write_bytes(b"x")
    edit_manifest(copy, lambda m: m["files"].update({name: {"size": 1, "sha256": "0" * 64}}))
    with pytest.raises(BundleError, match=r"a file outside the bundle"):
        load(copy, verify=False)


def test_a_link_that_leaves_the_folder_is_refused(copy: Path) -> None:
    outside = copy.parent / "outside.onnx"
    (copy / "onnx/denoiser.onnx").rename(outside)
    (copy / "onnx/denoiser.onnx").symlink_to(outside)
    with pytest.raises(BundleError, match=r"a file outside the bundle"):
        load(copy)


def test_an_engine_that_is_not_in_the_files_is_refused(copy: Path) -> None:
    edit_manifest(copy, lambda m: m["engines"][0].update(path="engines/other.onnx"))
    with pytest.raises(BundleError, match=r"a file listed in the manifest"):
        load(copy)


@pytest.mark.parametrize("make", [lambda p: None, lambda p: p.mkdir(), lambda p: p.write_text("x")])
def test_no_bundle_there(tmp_path: Path, make: Callable[[Path], object]) -> None:
    make(tmp_path / "nothing")
    with pytest.raises(BundleError, match=r"no bundle here .*latentrt build-engines CHECKPOINT"):
        load(tmp_path / "nothing")


def test_a_bundle_is_built_in_another_folder_than_what_it_is_built_from(emoji_checkpoint: Path, tmp_path: Path) -> None:
    with pytest.raises(BundleError) as told:
        load(emoji_checkpoint)
    assert told.value.received == "a checkpoint"
    assert told.value.remedy == f"build it: latentrt build-engines {emoji_checkpoint} --out BUNDLE, a new folder"
    with pytest.raises(BundleError, match=r"received: no manifest.json .* CHECKPOINT --out BUNDLE, a new folder"):
        load(tmp_path)


def test_an_unknown_provider(emoji_bundle: Path) -> None:
    with pytest.raises(RequestError, match=r"provider \| received: 'cuda' \| expected: auto or one of tensorrt, "):
        load(emoji_bundle, provider="cuda")


@pytest.mark.parametrize("threads", [0, -1, 1.5, True])
def test_a_bad_thread_count(emoji_bundle: Path, threads: Any) -> None:
    with pytest.raises(RequestError, match=r"threads"):
        load(emoji_bundle, threads=threads)
