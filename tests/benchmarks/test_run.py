"""A whole run of the shortest kind, and one that is interrupted."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from latentrt.benchmarks import run as run_module
from latentrt.benchmarks.prepare import Wishes, prepare
from latentrt.benchmarks.results import Bound, Difference, Peaks, Picture, Record, Run, read_results
from latentrt.benchmarks.run import Recorder, amount, measure
from latentrt.runtime.cli import main

SHORTEST = Wishes(
    suites=("latency",), sides=("diffusers",), steps=(1,), threads=1, runs=1, warm_up=0, cold_runs=0, prompts=("a fox",)
)


@pytest.fixture
def no_peaks(monkeypatch: pytest.MonkeyPatch) -> None:
    """Peaks as they might be; measuring them takes seconds."""
    from latentrt.benchmarks.suites import limit

    monkeypatch.setattr(limit, "measure_peaks", lambda threads: Peaks(1e11, "numpy", 1e10, threads))


@pytest.mark.usefixtures("no_peaks")
def test_from_the_command_line_to_a_report(
    emoji_bundle: Path, emoji_checkpoint: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    status = main(
        [
            "bench", str(emoji_bundle), "--reference", str(emoji_checkpoint), "--out", str(tmp_path), "--side",
            "diffusers", "--suite", "latency", "--suite", "quality", "--runs", "1", "--warm-up", "0", "--cold-runs",
            "0", "--threads", "1", "--steps", "1", "--prompt", "a fox",
        ]
    )  # fmt: skip
    assert status == 0
    line = json.loads(capsys.readouterr().out.splitlines()[-1])
    assert line["partial"] is None
    assert line["sides"]["diffusers"]["warm_ratio"]["value"] > 0
    results = read_results(tmp_path)
    assert [(run.side, run.phase) for run in results.of(Run)] == [
        ("latentrt", "first"), ("diffusers", "first"), ("latentrt", "measured"), ("diffusers", "measured"),
    ]  # fmt: skip
    (difference,) = results.of(Difference)
    assert difference.latents_max_abs < 1e-4
    assert difference.pixels_max <= 1
    assert len(results.of(Picture)) == 2
    kinds = [type(record) for record in results.records]
    assert kinds.index(Bound) < kinds.index(Run)  # the bound is known before the measurement
    assert (tmp_path / "report.html").stat().st_size > 10_000
    assert "| LatentRT |" in (tmp_path / "report.md").read_text(encoding="utf-8")


@pytest.mark.usefixtures("no_peaks")
def test_what_was_measured_before_an_interruption_is_kept(
    emoji_bundle: Path, emoji_checkpoint: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(run_module, "_load", lambda *arguments: iter(()))  # no process is needed to be interrupted

    def interrupt(record: Record) -> None:
        if isinstance(record, Bound):
            raise KeyboardInterrupt

    prepared = prepare(emoji_bundle, emoji_checkpoint, SHORTEST)
    recorder = Recorder()
    partial = measure(prepared.plan, prepared.suites, prepared.missing, recorder, seen=interrupt)
    results = prepared.results(["latentrt"], recorder.records, partial)
    assert results.partial == "starting"
    assert len(results.of(Bound)) == 1


def test_the_amount_of_work_is_known_beforehand(emoji_bundle: Path, emoji_checkpoint: Path) -> None:
    prepared = prepare(emoji_bundle, emoji_checkpoint, SHORTEST)
    assert amount(prepared.plan, prepared.suites) == 1 + 2 * 2 + 2
