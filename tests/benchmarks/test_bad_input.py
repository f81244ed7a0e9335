"""What cannot be measured is told before anything is."""

from __future__ import annotations

import os
import shutil
from collections.abc import Callable
from pathlib import Path

import msgspec
import pytest

from latentrt.benchmarks.prepare import Wishes, prepare
from latentrt.runtime.bundles.bundle import open_bundle
from latentrt.runtime.bundles.manifest import MANIFEST_NAME, Manifest, encode_manifest
from latentrt.runtime.cli.main import main
from latentrt.runtime.errors import InputError, RequestError


def changed(bundle: Path, target: Path, change: Callable[[Manifest], Manifest]) -> Path:
    """A copy of a bundle with another manifest."""
    shutil.copytree(bundle, target, copy_function=os.link)
    (target / MANIFEST_NAME).unlink()
    (target / MANIFEST_NAME).write_bytes(encode_manifest(change(open_bundle(bundle, verify=False).manifest)))
    return target


@pytest.mark.parametrize(
    ("wishes", "message"),
    [
        (Wishes(suites=("speed",)), "--suite | received: speed | expected: all, memory, latency"),
        (Wishes(suites=("recognition",)), "the suite recognition needs --judge"),
        (Wishes(sides=("pytorch",)), "--side | received: pytorch"),
        (Wishes(runs=0), "--runs | received: 0"),
        (Wishes(cold_runs=-1), "--cold-runs | received: -1"),
        (Wishes(also={"diffusers": Path("b")}), "--also | received: diffusers"),
        (Wishes(sizes=((100, 128),)), "--size: width | received: 100"),
        (Wishes(steps=(0,)), "--steps | received: 0"),
        *(
            (Wishes(guidance=(5.0, scale)), f"--guidance-scale | received: {scale} | expected: a number of at least 0")
            for scale in (float("nan"), float("inf"), -1.0)
        ),
        (Wishes(images=(1, 0)), "--images | received: 0"),
        (Wishes(load_seconds=0.0), "--load-seconds | received: 0.0"),
        (Wishes(threads=0), "--threads | received: 0"),
        (Wishes(provider="cuda"), "provider | received: 'cuda'"),
    ],
)
def test_wishes_that_cannot_be_met(wishes: Wishes, message: str, emoji_bundle: Path, emoji_checkpoint: Path) -> None:
    with pytest.raises(RequestError) as error:
        prepare(emoji_bundle, emoji_checkpoint, wishes)
    assert message in str(error.value)


def test_other_weights_are_refused_unless_allowed(emoji_bundle: Path, emoji_checkpoint: Path, tmp_path: Path) -> None:
    def change(manifest: Manifest) -> Manifest:
        denoiser = manifest.components["denoiser"]
        denoiser = msgspec.structs.replace(denoiser, key=denoiser.key | {"weights": "0" * 64})
        return msgspec.structs.replace(manifest, components=manifest.components | {"denoiser": denoiser})

    bundle = changed(emoji_bundle, tmp_path / "bundle", change)
    with pytest.raises(RequestError) as error:
        prepare(bundle, emoji_checkpoint, Wishes())
    assert "other weights than the bundle's | received: other hashes of denoiser" in str(error.value)
    assert not prepare(bundle, emoji_checkpoint, Wishes(allow_different_weights=True)).subject.same_weights
    assert prepare(emoji_bundle, emoji_checkpoint, Wishes()).subject.same_weights


def test_another_family_is_refused_even_so(emoji_bundle: Path, emoji_checkpoint: Path, tmp_path: Path) -> None:
    bundle = changed(
        emoji_bundle, tmp_path / "bundle", lambda manifest: msgspec.structs.replace(manifest, family="sd1")
    )
    with pytest.raises(RequestError) as error:
        prepare(bundle, emoji_checkpoint, Wishes(allow_different_weights=True))
    assert "another family | received: sdxl | expected: sd1" in str(error.value)


def test_only_pictures_from_texts_are_compared(emoji_bundle: Path, emoji_checkpoint: Path, tmp_path: Path) -> None:
    bundle = changed(
        emoji_bundle, tmp_path / "bundle", lambda manifest: msgspec.structs.replace(manifest, task="inpainting")
    )
    with pytest.raises(RequestError) as error:
        prepare(bundle, emoji_checkpoint, Wishes())
    assert "received: inpainting | expected: a bundle for text-to-image" in str(error.value)


def test_providers_that_cannot_run_here_are_told(emoji_bundle: Path, emoji_checkpoint: Path, tmp_path: Path) -> None:
    def change(manifest: Manifest) -> Manifest:
        engines = [
            msgspec.structs.replace(engine, provider="tensorrt-rtx", targets=("sm10",)) for engine in manifest.engines
        ]
        return msgspec.structs.replace(manifest, engines=(*manifest.engines, *engines))

    prepared = prepare(changed(emoji_bundle, tmp_path / "bundle", change), emoji_checkpoint, Wishes())
    assert prepared.plan.provider == "onnxruntime-cpu"
    assert "GPU" in {gone.side.name: gone.reason for gone in prepared.missing}["latentrt-tensorrt-rtx"]


def test_missing_bundles_and_checkpoints_are_named(emoji_bundle: Path, emoji_checkpoint: Path, tmp_path: Path) -> None:
    with pytest.raises(InputError, match="no bundle here"):
        prepare(tmp_path, emoji_checkpoint, Wishes())
    with pytest.raises(InputError, match="no checkpoint here"):
        prepare(emoji_bundle, tmp_path, Wishes())
    file = tmp_path / "model.safetensors"
    file.touch()
    with pytest.raises(InputError, match=r"model\.safetensors \| received: a file \| expected: a diffusers folder"):
        prepare(emoji_bundle, file, Wishes())


def test_the_command_line_ends_with_status_2(
    emoji_bundle: Path, emoji_checkpoint: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    bench = ["bench", str(emoji_bundle), "--reference", str(emoji_checkpoint), "--out"]
    assert main([*bench, str(tmp_path / "report"), "--suite", "speed"]) == 2
    assert "--suite | received: speed" in capsys.readouterr().err
    assert not (tmp_path / "report").exists()
    (tmp_path / "file").touch()
    assert main([*bench, str(tmp_path / "file" / "report")]) == 2
    assert "--out" in capsys.readouterr().err
    assert main([*bench, str(tmp_path / "report"), "--also", "fp16"]) == 2
    assert "--also | received: fp16 | expected: NAME=BUNDLE" in capsys.readouterr().err
    assert main(["bench", "setup", "tensorflow"]) == 2
    assert "openvino, optimum-onnx" in capsys.readouterr().err
