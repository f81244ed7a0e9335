"""The machine's peaks: that they are measured, and in what; not how high they are."""

from __future__ import annotations

import pytest

from latentrt.benchmarks import peaks


def test_a_processor_has_peaks(monkeypatch: pytest.MonkeyPatch) -> None:
    small = {"_SECONDS": 0.01, "_SIDES": (64,), "_PICTURES": (8,), "_CHANNELS": 16, "_COPY_BYTES": 1 << 20}
    for name, value in small.items():
        monkeypatch.setattr(peaks, name, value)
    found = peaks._processor_peaks(1)
    assert found.matmul > 0
    assert found.copy > 0
    assert found.matmul_by in ("numpy matmul", "torch matmul", "onnxruntime convolution")
    assert (found.threads, found.precision, found.device) == (1, "fp32", "cpu")


@pytest.mark.gpu
def test_a_gpu_has_peaks() -> None:
    pytest.importorskip("torch")
    found = peaks.measure_peaks(1, "cuda", "fp16")
    assert found.matmul > 1e13
    assert found.copy > 1e11
    assert (found.matmul_by, found.precision) == ("torch matmul", "fp16")
