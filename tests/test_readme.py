"""The README tells the truth: its example runs, its numbers are measured ones, and every file has its line."""

from __future__ import annotations

import importlib.util
import json
import re
from pathlib import Path

import pytest

from latentrt.benchmarks.report_markdown import summary
from latentrt.benchmarks.results import read_results

ROOT = Path(__file__).parents[1]
README = (ROOT / "README.md").read_text(encoding="utf-8")


def test_the_example_runs_as_written(
    emoji_bundle: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    example = re.findall(r"```python\n(.*?)```", README, re.DOTALL)[0]
    (tmp_path / "build").mkdir()
    (tmp_path / "build" / "emoji").symlink_to(emoji_bundle)
    monkeypatch.chdir(tmp_path)
    exec(compile(example, "README.md", "exec"), {})
    assert sorted(path.name for path in tmp_path.glob("*.png")) == ["picture-0.png", "picture-1.png"]
    assert capsys.readouterr().out.startswith("(7, 8) {'tokenize'")


def test_the_numbers_are_those_of_the_committed_measurement() -> None:
    (name, shown) = re.findall(r"<!-- measured: (\S+) -->\n(.*?)\n<!-- end measured -->", README, re.DOTALL)[0]
    assert shown == summary(read_results(ROOT / name))


def test_the_build_is_the_committed_record_of_one() -> None:
    (name, shown) = re.findall(r"<!-- build: (\S+) -->\n(.*?)\n<!-- end build -->", README, re.DOTALL)[0]
    record = json.loads((ROOT / name).read_text(encoding="utf-8"))
    assert " ".join(record["command"]) in README
    assert f"{record['seconds'] / 60:.1f} minutes, {record['peak_memory'] / 1e9:.1f} GB of memory at most" in shown
    networks = {name: built for name, built in record["components"].items() if name != "kernels"}
    assert shown.count("\n| ") == len(networks)
    for component, built in networks.items():
        times = [f"{built['stages'][stage]:.0f} s" for stage in ("export", "gate", "compile")]
        distance = max(comparison["cosine_distance"] for comparison in built["graph"]["gate"])
        figures = [component, *times, f"{built['peak_memory'] / 1e9:.1f} GB", f"{distance:.0e}"]
        assert "| " + " | ".join(figures) + " |" in shown


def test_every_source_file_has_a_line() -> None:
    spec = importlib.util.spec_from_file_location("list_files", ROOT / "docs" / "list_files.py")
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    assert (ROOT / "docs" / "files.md").read_text(encoding="utf-8") == module.listing(), (
        "run: python -P docs/list_files.py > docs/files.md"
    )
