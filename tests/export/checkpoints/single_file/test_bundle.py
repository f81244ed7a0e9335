"""A bundle built from a single file is the bundle that is built from its folder."""

from __future__ import annotations

import shutil
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from latentrt.export.bundle_from_checkpoint import BuildOptions, bundle_from_checkpoint
from latentrt.export.events import REUSED
from latentrt.runtime import load
from latentrt.runtime.bundles.manifest import Manifest

from . import tiny_families

OPTIONS = BuildOptions(aspects="64x64,64x128")


@pytest.fixture(scope="module")
def checkpoints(tmp_path_factory: pytest.TempPathFactory, emoji_checkpoint: Path) -> tuple[Path, Path]:
    """A tiny SDXL with a vocabulary of the real size: its folder, with tokenizers, and its file."""
    folder, file = tiny_families.make("sdxl", vocabulary=49408).save(tmp_path_factory.mktemp("checkpoints"))
    for tokenizer in ("tokenizer", "tokenizer_2"):
        shutil.copytree(emoji_checkpoint / tokenizer, folder / tokenizer)
    return folder, file


@pytest.fixture(scope="module")
def bundle_of_file(checkpoints: tuple[Path, Path], tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, Manifest]:
    """The file's bundle, with engines that have passed the gate."""
    path = tmp_path_factory.mktemp("bundles") / "of-file"
    return path, bundle_from_checkpoint(checkpoints[1], path, OPTIONS)


def test_one_component_is_the_folders(checkpoints: tuple[Path, Path], tmp_path: Path) -> None:
    """The encoder whose weights are converted most: matrices split and transposed. Its engine has passed the gate."""
    options = replace(OPTIONS, components=("text_encoder_2",))
    folder, file = (bundle_from_checkpoint(path, tmp_path / path.name, options) for path in checkpoints)
    assert [engine.component for engine in file.engines] == ["text_encoder_2"]
    assert {name: record.sha256 for name, record in file.files.items()} == {
        name: record.sha256 for name, record in folder.files.items()
    }
    assert file.text_encodings == folder.text_encodings


@pytest.mark.slow
def test_graphs_weights_and_tokenizers_are_the_folders(
    checkpoints: tuple[Path, Path], bundle_of_file: tuple[Path, Manifest], tmp_path: Path
) -> None:
    """What engines are compiled from is the same to the byte."""
    folder = bundle_from_checkpoint(checkpoints[0], tmp_path / "of-folder", replace(OPTIONS, onnx_only=True))
    file = bundle_of_file[1]
    assert len(folder.files) > 10
    assert {name: file.files[name].sha256 for name in folder.files} == {
        name: record.sha256 for name, record in folder.files.items()
    }
    assert file.text_encodings == folder.text_encodings
    assert (file.family, file.conditioning) == (folder.family, folder.conditioning)
    assert {**file.scheduler, **folder.scheduler} == file.scheduler
    assert (file.name, folder.name) == ("model", "folder")


@pytest.mark.slow
def test_it_draws(bundle_of_file: tuple[Path, Manifest]) -> None:
    with load(bundle_of_file[0]) as pipe:
        call = {"width": 64, "height": 128, "num_inference_steps": 2, "output_type": "np"}
        images = [np.asarray(pipe("a red circle", seed=seed, **call).images) for seed in (3, 3, 4)]
    assert images[0].shape == (1, 128, 64, 3)
    assert np.ptp(images[0]) > 0
    assert np.array_equal(images[0], images[1])
    assert not np.array_equal(images[0], images[2])


@pytest.mark.slow
def test_a_rebuild_takes_everything_over(checkpoints: tuple[Path, Path], bundle_of_file: tuple[Path, Manifest]) -> None:
    reasons: list[str] = []
    path, _ = bundle_of_file
    bundle_from_checkpoint(checkpoints[1], path, OPTIONS, lambda event: reasons.append(event.reason))
    assert set(filter(None, reasons)) == {REUSED}
