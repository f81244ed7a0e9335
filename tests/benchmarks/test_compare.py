"""``latentrt bench compare``: what changed, and the exit status."""

from __future__ import annotations

from pathlib import Path

import pytest

from latentrt.benchmarks.changes import differences
from latentrt.benchmarks.results import encode_results
from latentrt.runtime.cli.main import main

from .small_results import results_with


@pytest.fixture
def before(tmp_path: Path) -> Path:
    path = tmp_path / "before.json"
    path.write_bytes(encode_results(results_with(0.1)))
    return path


def after(tmp_path: Path, seconds: float) -> Path:
    path = tmp_path / "after.json"
    path.write_bytes(encode_results(results_with(seconds)))
    return path


@pytest.mark.parametrize(
    ("seconds", "limit", "status"),
    [(0.1, "5", 0), (0.102, "5", 0), (0.12, "5", 1), (0.12, "30", 0), (0.08, "5", 0), (0.102, "1", 1)],
)
def test_the_status_tells_of_a_regression_beyond_the_limit(
    seconds: float, limit: str, status: int, before: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main(["bench", "compare", str(before), str(after(tmp_path, seconds)), "--max-regression", limit]) == status
    printed = capsys.readouterr().out
    assert ('"worse":{}' in printed.splitlines()[-1]) == (status == 0)


def test_a_difference_within_chance_is_no_regression() -> None:
    (entry, *_) = differences(results_with(0.1), results_with(0.1))
    assert entry.change.ratio.value == 1
    assert not entry.change.significant
    assert not entry.regressed(0.0)


def test_results_of_another_schema_are_refused(
    before: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    other = tmp_path / "other.json"
    other.write_text('{"schema_version": 99}', encoding="utf-8")
    assert main(["bench", "compare", str(before), str(other)]) == 2
    assert "another schema" in capsys.readouterr().err


def test_a_negative_limit_is_refused(before: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["bench", "compare", str(before), str(before), "--max-regression", "-1"]) == 2
    assert "--max-regression" in capsys.readouterr().err
