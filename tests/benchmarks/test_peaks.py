"""The machine's peaks: that they are measured, and in what; not how high they are."""

from __future__ import annotations

import time
from collections.abc import Callable

import pytest

from latentrt.benchmarks import peaks
from latentrt.benchmarks.results import Peaks


def test_a_processor_has_peaks(monkeypatch: pytest.MonkeyPatch) -> None:
    small = {
        "ROUNDS": 2,
        "SECONDS": 0.01,
        "SIDES": (64,),
        "PICTURES": (8,),
        "CHANNELS": 16,
        "COPY_BYTES": 1 << 20,
    }
    for name, value in small.items():
        monkeypatch.setattr(peaks, name, value)
    found = peaks.processor_peaks(1)
    assert found.matmul > 0
    assert found.copy > 0
    assert found.matmul_by in ("numpy matmul", "torch matmul", "onnxruntime convolution")
    assert (found.threads, found.precision, found.device) == (1, "fp32", "cpu")


def test_the_best_of_all_turns_counts() -> None:
    seconds = iter([2.0, 4.0, 1.0, 4.0] + [4.0] * 16)

    def busy_at_first(work: Callable[[], object]) -> float:
        time.sleep(peaks.SECONDS)
        return next(seconds)

    assert peaks.best_rates({"a": [(8, int)], "b": [(8, int)]}, busy_at_first) == {"a": 8.0, "b": 2.0}


def test_a_peak_that_a_busy_machine_hid_is_found_by_another_measurement() -> None:
    busy, idle = Peaks(2e11, "numpy matmul", 4e10, 2), Peaks(5e11, "torch matmul", 3e10, 2)
    assert peaks.highest([busy, idle]) == Peaks(5e11, "torch matmul", 4e10, 2)


@pytest.mark.gpu
def test_a_gpu_has_peaks() -> None:
    pytest.importorskip("torch")
    found = peaks.measure_peaks(1, "cuda", "fp16")
    assert found.matmul > 1e13
    assert found.copy > 1e11
    assert (found.matmul_by, found.precision) == ("torch matmul", "fp16")
