"""Sides that take turns, and what happens when one does not come back."""

from __future__ import annotations

import sys
from pathlib import Path

import pytest

from latentrt.benchmarks import baselines
from latentrt.benchmarks.baselines import SIDES, Installed, Missing, Side, find, left_out, sides_named
from latentrt.benchmarks.results import Absent
from latentrt.benchmarks.turns import Worker, alive, failure, in_turn
from latentrt.benchmarks.workload import Start
from latentrt.runtime.errors import RunError

from .small_results import WORKLOAD


class Idle:
    """As much of a worker as taking turns needs."""

    def __init__(self, name: str):
        self.side = Side(name, name, "none", ())
        self.failed = False


def test_the_order_turns_around_from_round_to_round() -> None:
    workers = [Idle("a"), Idle("b"), Idle("c")]
    order = [(i, k, worker.side.name) for i, k, worker in in_turn(workers, 2)]  # type: ignore[arg-type]
    assert order == [(0, 0, "a"), (0, 1, "b"), (0, 2, "c"), (1, 0, "c"), (1, 1, "b"), (1, 2, "a")]


def test_a_baseline_that_fails_is_absent_and_the_others_go_on() -> None:
    workers = [Idle("a"), Idle("b")]
    record = failure(workers[0], RunError("a ended"))  # type: ignore[arg-type]
    assert record == Absent("a", "a", "a ended")
    assert [worker.side.name for _, _, worker in in_turn(workers, 1)] == ["b"]  # type: ignore[arg-type]
    assert alive(workers) == workers[1:]  # type: ignore[arg-type,comparison-overlap]


@pytest.mark.parametrize("name", ["latentrt", "diffusers"])
def test_without_ours_or_the_reference_there_is_nothing_to_compare(name: str) -> None:
    with pytest.raises(RunError, match="it ended"):
        failure(Idle(name), RunError("it ended"))  # type: ignore[arg-type]


def test_what_a_process_said_last_is_in_the_error(tmp_path: Path) -> None:
    start = Start(str(tmp_path / "none"), 1, WORKLOAD, str(tmp_path))
    with pytest.raises(RunError) as error:
        Worker(Installed(SIDES[0], sys.executable), start)
    assert "latentrt ended or went silent" in str(error.value)
    assert "no bundle here" in str(error.value)


def test_what_is_not_installed_is_missing_with_the_reason(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    absent = Side("x", "X", "none", ("no-such-distribution",), environment="openvino")
    found = find(absent, tmp_path)
    assert isinstance(found, Missing)
    assert found.reason == ("no-such-distribution not installed; make its environment: latentrt bench setup openvino")
    python = tmp_path / "openvino" / "bin" / "python"
    python.parent.mkdir(parents=True)
    python.touch()
    assert find(absent, tmp_path) == Installed(absent, str(python))
    monkeypatch.setattr(baselines.shutil, "which", lambda program: None)
    compiled = next(side for side in SIDES if side.programs)
    assert find(compiled, tmp_path) == Missing(compiled, "needs g++, which is not on the PATH")


def test_sides_are_chosen_by_name_and_the_rest_is_told() -> None:
    assert [side.name for side in sides_named(("openvino-f32",), {})] == ["latentrt", "diffusers", "openvino-f32"]
    assert len(sides_named(("all",), {})) == len(SIDES)
    assert [(m.side.name, m.reason) for m in left_out(())] == [
        ("diffusers-compile", "slow to start, so measured only if named")
    ]
    (more,) = [side for side in sides_named((), {"fp16": Path("b16")}) if side.name == "fp16"]
    assert (more.title, more.source, more.reads) == ("LatentRT fp16", "b16", "bundle")
