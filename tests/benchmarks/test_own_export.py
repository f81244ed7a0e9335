"""What other programs export from a checkpoint, and compile: there whole or not at all, and told truly."""

from __future__ import annotations

import subprocess
from pathlib import Path

import pytest

from latentrt.benchmarks.sides.own_export import exported
from latentrt.benchmarks.workload import Start

from .small_results import WORKLOAD

EXPORTS = """
import os
def export(checkpoint, folder):
    print("exporting", checkpoint)
    folder.mkdir()
    (folder / "model_index.json").write_text(str(os.getpid()))
    if os.path.exists(checkpoint):
        raise MemoryError("no more")
    (folder / "model").touch()
"""


def test_an_export_that_was_interrupted_is_made_again(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str]
) -> None:
    (tmp_path / "exporter.py").write_text(EXPORTS, encoding="utf-8")
    monkeypatch.setenv("PYTHONPATH", str(tmp_path))
    checkpoint, cache = tmp_path / "checkpoint", tmp_path / "exported" / "exporter-1"
    start = Start(str(checkpoint), 1, WORKLOAD, str(cache))
    checkpoint.touch()
    with pytest.raises(subprocess.CalledProcessError):
        exported("exporter", start)
    assert "no more" in capfd.readouterr().err
    assert not cache.exists()
    checkpoint.unlink()
    folder, seconds = exported("exporter", start)
    assert folder == cache
    assert sorted(path.name for path in folder.iterdir()) == ["model", "model_index.json"]
    assert seconds > 0
    assert capfd.readouterr().out == ""  # where a reply is expected
    maker = (folder / "model_index.json").read_text()
    exported("exporter", start)
    assert (folder / "model_index.json").read_text() == maker
    assert [path.name for path in cache.parent.iterdir()] == ["exporter-1"]


def test_compiled_code_is_cached_once_a_run_has_left_some(tmp_path: Path) -> None:
    pytest.importorskip("diffusers")
    from latentrt.benchmarks.sides.diffusers_pipeline import compiled_before

    cache = tmp_path / "cache"
    assert not compiled_before(cache)
    cache.mkdir()
    assert not compiled_before(cache)
    (cache / "fxgraph").mkdir()
    assert compiled_before(cache)
