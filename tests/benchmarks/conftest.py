"""Fixtures of the benchmarks' tests."""

from __future__ import annotations

from pathlib import Path

import pytest

from latentrt.benchmarks import run as run_module
from latentrt.benchmarks.prepare import Prepared, Wishes, prepare
from latentrt.benchmarks.results import Peaks, Results
from latentrt.benchmarks.suites import limit

from .fake_sides import FakeWorker
from .small_results import results_with

SHORTEST = Wishes(
    suites=("latency",), sides=("diffusers",), steps=(1,), threads=1, runs=1, warm_up=0, cold_runs=0, prompts=("a fox",)
)


@pytest.fixture(scope="session")
def results() -> Results:
    """The small result."""
    return results_with()


@pytest.fixture
def prepared(emoji_bundle: Path, emoji_checkpoint: Path) -> Prepared:
    """The shortest run."""
    return prepare(emoji_bundle, emoji_checkpoint, SHORTEST)


@pytest.fixture
def no_peaks(monkeypatch: pytest.MonkeyPatch) -> None:
    """Peaks as they might be; measuring them takes seconds."""
    monkeypatch.setattr(limit, "measure_peaks", lambda threads, device, precision: Peaks(1e11, "numpy", 1e10, threads))


@pytest.fixture
def no_processes(no_peaks: None, monkeypatch: pytest.MonkeyPatch) -> None:
    """Sides that are measured without being there."""
    monkeypatch.setattr(run_module, "Worker", FakeWorker)
