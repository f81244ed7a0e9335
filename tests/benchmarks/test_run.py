"""A whole run of the shortest kind, and one that is interrupted."""

from __future__ import annotations

import json
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import msgspec
import pytest

from latentrt.benchmarks import run as run_module
from latentrt.benchmarks.baselines import Installed
from latentrt.benchmarks.figures import bounds
from latentrt.benchmarks.prepare import Prepared
from latentrt.benchmarks.recorder import Recorder
from latentrt.benchmarks.results import (
    Bound,
    Difference,
    Failure,
    Overhead,
    Peaks,
    Picture,
    Record,
    Run,
    Size,
    read_results,
)
from latentrt.benchmarks.run import Stopped, measure
from latentrt.benchmarks.workload import Ask, Done, Start
from latentrt.runtime.cli.main import main
from latentrt.runtime.errors import RunError

from .fake_sides import DONE, FakeWorker


@pytest.mark.usefixtures("no_peaks")
def test_from_the_command_line_to_a_report(
    emoji_bundle: Path, emoji_checkpoint: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    status = main(
        [
            "bench", str(emoji_bundle), "--reference", str(emoji_checkpoint), "--out", str(tmp_path), "--side",
            "diffusers", "--suite", "latency", "--suite", "overhead", "--suite", "quality", "--runs", "1", "--warm-up",
            "0", "--cold-runs", "0", "--threads", "1", "--steps", "1", "--prompt", "a fox", "--images", "2",
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
    (overhead,) = results.of(Overhead)
    assert overhead.allocations == 0
    assert overhead.seconds > overhead.outside_engines_seconds > 0
    assert [difference.image for difference in results.of(Difference)] == [0, 1]
    for difference in results.of(Difference):
        assert difference.latents_max_abs < 1e-4
        assert difference.pixels_max <= 1
    assert [(picture.side, picture.image) for picture in results.of(Picture)] == [
        ("latentrt", 0), ("latentrt", 1), ("diffusers", 0), ("diffusers", 1),
    ]  # fmt: skip
    kinds = [type(record) for record in results.records]
    assert kinds.index(Bound) < kinds.index(Run)  # the bound is known before the measurement
    assert (kinds.count(Peaks), kinds[-1]) == (2, Peaks)  # and what it is made from is measured again after it
    assert (tmp_path / "report.html").stat().st_size > 10_000
    assert "| LatentRT |" in (tmp_path / "report.md").read_text(encoding="utf-8")


@pytest.mark.usefixtures("no_processes")
@pytest.mark.parametrize(("stop", "status"), [(KeyboardInterrupt(), 130), (SystemExit(143), 143)])
def test_what_was_measured_before_an_interruption_is_kept(
    stop: BaseException, status: int, prepared: Prepared, monkeypatch: pytest.MonkeyPatch
) -> None:
    def interrupted(name: str, ask: Ask) -> Done:
        if name == "diffusers":
            raise stop
        return DONE

    monkeypatch.setattr(FakeWorker, "answers", staticmethod(interrupted))
    kept: list[tuple[int, str]] = []
    recorder = Recorder(keep=lambda records, during: kept.append((len(records), during)))
    assert measure(prepared.plan, prepared.suites, (), recorder) == Stopped("warming up", status)
    assert [type(record) for record in recorder.records][-1] is Run
    assert [during for _, during in kept] == ["starting", "limit", "loading", "warming up"]


@pytest.mark.usefixtures("no_processes")
def test_a_call_that_fails_is_recorded_once_and_the_rest_is_measured(
    prepared: Prepared, monkeypatch: pytest.MonkeyPatch
) -> None:
    def without_two(name: str, ask: Ask) -> Done:
        if name == "diffusers" and ask.workload.images == 2:
            raise RunError("diffusers failed", received="out of memory")
        return DONE

    monkeypatch.setattr(FakeWorker, "answers", staticmethod(without_two))
    work = prepared.plan.workload
    two = msgspec.structs.replace(work, images=2)
    plan = replace(prepared.plan, variations=(two, msgspec.structs.replace(work, num_inference_steps=2)), runs=2)
    recorder = Recorder()
    assert measure(plan, prepared.suites, (), recorder) is None
    assert [(failed.side, failed.what) for failed in recorder.failures] == [
        ("diffusers", f"{two.label}, first"),
        ("diffusers", f"{two.label}, measured"),
    ]
    runs = [record for record in recorder.records if isinstance(record, Run)]
    assert {(run.side, run.case) for run in runs if run.phase == "measured"} >= {
        ("latentrt", two.label), ("diffusers", plan.variations[1].label),
    }  # fmt: skip


@pytest.mark.usefixtures("no_processes")
def test_a_suite_that_breaks_takes_no_other_with_it(prepared: Prepared, monkeypatch: pytest.MonkeyPatch) -> None:
    def broken(plan: object, workers: object) -> Iterator[Record]:
        yield Size("bundle", 1)
        raise ZeroDivisionError("division by zero")

    monkeypatch.setitem(run_module.SUITES, "memory", run_module.Suite(broken, lambda plan: 1))
    recorder = Recorder()
    assert measure(prepared.plan, ("memory", "latency"), (), recorder) is None
    assert recorder.failures == [Failure("", "memory", "ZeroDivisionError: division by zero")]
    kinds = [type(record) for record in recorder.records]
    assert kinds.index(Size) < kinds.index(Failure) < len(kinds) - 1 - kinds[::-1].index(Run)


@pytest.mark.usefixtures("no_peaks")
def test_without_the_reference_there_is_nothing_to_compare(prepared: Prepared, monkeypatch: pytest.MonkeyPatch) -> None:
    class Refused(FakeWorker):
        def __init__(self, installed: Installed, start: Start):
            if installed.side.name == "diffusers":
                raise RunError("diffusers ended or went silent")
            super().__init__(installed, start)

    monkeypatch.setattr(run_module, "Worker", Refused)
    recorder = Recorder()
    assert measure(prepared.plan, prepared.suites, (), recorder) == Stopped("loading", 1)
    assert [(failed.side, failed.what) for failed in recorder.failures] == [("diffusers", "loading")]
    assert Bound in [type(record) for record in recorder.records]


@pytest.mark.usefixtures("no_processes")
def test_a_higher_peak_after_the_measurement_makes_new_bounds(
    prepared: Prepared, monkeypatch: pytest.MonkeyPatch
) -> None:
    from latentrt.benchmarks.suites import limit

    found = iter([Peaks(1e11, "numpy", 1e10, 1), Peaks(2e11, "numpy", 2e10, 1)])
    monkeypatch.setattr(limit, "measure_peaks", lambda threads, device, precision: next(found))
    recorder = Recorder()
    assert measure(prepared.plan, prepared.suites, (), recorder) is None
    results = prepared.results((), recorder.records, None)
    first, second = (results.of(Bound)[part] for part in (slice(3), slice(3, None)))
    assert bounds(results) == second
    assert [bound.seconds for bound in second] == pytest.approx([bound.seconds / 2 for bound in first])


@pytest.mark.usefixtures("no_processes")
def test_the_status_tells_of_failures(
    emoji_bundle: Path, emoji_checkpoint: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def failing(name: str, ask: Ask) -> Done:
        raise RunError(f"{name} failed", received="no memory")

    command = [
        "bench", str(emoji_bundle), "--reference", str(emoji_checkpoint), "--out", str(tmp_path), "--side",
        "diffusers", "--suite", "memory", "--runs", "1", "--warm-up", "0", "--steps", "1",
    ]  # fmt: skip
    assert main(command) == 0
    monkeypatch.setattr(FakeWorker, "answers", staticmethod(failing))
    assert main(command) == 1
    results = read_results(tmp_path)
    assert results.partial is None
    assert [failed.what for failed in results.of(Failure)][-2:] == ["memory", "memory"]
    assert "not measured: latentrt" in (tmp_path / "report.md").read_text(encoding="utf-8")
    assert main(["bench", "report", str(tmp_path), "--out", str(tmp_path / "again")]) == 0
    again = (tmp_path / "again" / "report.html").read_text(encoding="utf-8")
    assert again == (tmp_path / "report.html").read_text(encoding="utf-8")
