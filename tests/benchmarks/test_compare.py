"""``latentrt bench compare``: what changed, and the exit status."""

from __future__ import annotations

from pathlib import Path

import msgspec
import pytest

from latentrt.benchmarks.changes import differences, table_of
from latentrt.benchmarks.results import Memory, Results, encode_results
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


def verdicts(old: Results, new: Results, limit: float = 0.05) -> dict[str, str]:
    """What is said of each of LatentRT's figures."""
    return {entry.what: entry.verdict(limit) for entry in differences(old, new) if entry.side == "latentrt"}


def test_without_enough_runs_there_is_no_verdict() -> None:
    found = verdicts(results_with(0.1, rounds=5), results_with(0.2, rounds=6))
    assert found.pop("peak memory") == "one observation of each"
    assert set(found.values()) == {"too few runs to tell"}
    assert not any(entry.regressed(0.05) for entry in differences(results_with(0.1, 5), results_with(0.2, 5)))


@pytest.mark.parametrize(
    ("factor", "verdict"), [(0.5, "one observation of each"), (1.04, "one observation of each"), (1.06, "worse")]
)
def test_memory_counts_beyond_the_limit_and_is_never_beyond_chance(factor: float, verdict: str) -> None:
    old = results_with()
    records = [
        msgspec.structs.replace(record, peak_bytes=int(factor * record.peak_bytes))
        if isinstance(record, Memory)
        else record
        for record in old.records
    ]
    new = msgspec.structs.replace(old, records=tuple(records))
    assert verdicts(old, new)["peak memory"] == verdict
    (row,) = [
        row for row in table_of(old, new, differences(old, new), 0.05).rows if row[:2] == ("Latentrt", "peak memory")
    ]
    assert row[4] == f"{factor - 1:+.1%}"


def test_what_differs_between_the_machines_is_named() -> None:
    old = results_with()
    new = msgspec.structs.replace(old, threads=1, machine=old.machine | {"cpu": "another", "commit": "abc"})
    note = table_of(old, new, [], 0.05).note
    assert (
        note == "Not the same in both: cpu (a processor, then another); threads (2, then 1); commit (none, then abc)."
    )
    assert table_of(old, old, [], 0.05).note == ""


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
