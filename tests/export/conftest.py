"""Fixtures of the export tests: copies to change, a bundle of one component, calls that are errors, the command."""

from __future__ import annotations

import shutil
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pytest

LATENTRT = Path(sys.executable).parent / "latentrt"


@pytest.fixture
def checkpoint_copy(tmp_path: Path, tiny_checkpoint: Path) -> Path:
    """A copy of the untrained checkpoint that a test may change."""
    return Path(shutil.copytree(tiny_checkpoint, tmp_path / "checkpoint"))


@pytest.fixture(scope="session")
def text_bundle(once: Callable[[str, Callable[[Path], object]], Path], tiny_checkpoint: Path) -> Path:
    """The untrained checkpoint's first text encoder alone. Tests must not change it: copy it first."""
    from latentrt.export.bundle_from_checkpoint import BuildOptions, bundle_from_checkpoint

    options = BuildOptions(components=("text_encoder",))
    return once("text-bundle", lambda path: bundle_from_checkpoint(tiny_checkpoint, path, options))


@pytest.fixture
def text_bundle_copy(tmp_path: Path, text_bundle: Path) -> Path:
    """A copy of that bundle that a test may change."""
    return Path(shutil.copytree(text_bundle, tmp_path / "bundle"))


@pytest.fixture
def no_export(monkeypatch: pytest.MonkeyPatch) -> None:
    """Exporting any component from torch is an error."""
    from latentrt.export import build_graph

    def refuse(*arguments: object) -> None:
        raise AssertionError("torch was asked to export")

    monkeypatch.setattr(build_graph, "onnx_from_component", refuse)


@pytest.fixture
def latentrt() -> Callable[..., subprocess.CompletedProcess[str]]:
    """``latentrt(*arguments, **options)``: the installed command, run to its end in a process of its own."""

    def run(*arguments: object, **options: object) -> subprocess.CompletedProcess[str]:
        command = [str(LATENTRT), *map(str, arguments)]
        return subprocess.run(command, capture_output=True, text=True, timeout=300, check=False, **options)  # type: ignore[call-overload]

    return run
