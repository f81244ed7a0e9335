"""The README tells the truth: its example runs, its numbers are measured ones, its list of files is complete."""

from __future__ import annotations

import re
import subprocess
from pathlib import Path

import msgspec
import pytest

from latentrt.benchmarks.compare import Comparison
from latentrt.benchmarks.report import markdown

ROOT = Path(__file__).parents[1]
README = (ROOT / "README.md").read_text(encoding="utf-8")


def test_the_example_runs_as_written(
    emoji_bundle: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    (example,) = re.findall(r"```python\n(.*?)```", README, re.DOTALL)
    (tmp_path / "build").mkdir()
    (tmp_path / "build" / "emoji").symlink_to(emoji_bundle)
    monkeypatch.chdir(tmp_path)
    exec(compile(example, "README.md", "exec"), {})
    assert sorted(path.name for path in tmp_path.glob("*.png")) == ["picture-0.png", "picture-1.png"]
    assert capsys.readouterr().out.startswith("(7, 8) {'tokenize'")


def test_the_numbers_are_those_of_the_committed_measurement() -> None:
    (name, shown) = re.findall(r"<!-- measured: (\S+) -->\n(.*?)\n<!-- end measured -->", README, re.DOTALL)[0]
    result = msgspec.json.decode((ROOT / name).read_bytes(), type=Comparison)
    assert shown == markdown(result)


def test_every_source_file_is_listed_with_a_line() -> None:
    (tree,) = re.findall(r"## Files\n\n```\n(.*?)```", README, re.DOTALL)
    listed = {line.split()[0] for line in tree.splitlines() if line.strip()}
    tracked = subprocess.run(
        ["git", "ls-files", "export", "runtime", "kernels", "benchmarks"],
        capture_output=True, text=True, check=True, cwd=ROOT,
    ).stdout.split()  # fmt: skip
    sources = {name for name in tracked if name.endswith(".py") and not name.endswith("__init__.py")}
    assert sources - listed == set()
    assert {name for name in listed if name.endswith(".py") and not (ROOT / name).is_file()} == set()
