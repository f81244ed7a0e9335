"""Memory and disk are asked for before they are needed."""

from __future__ import annotations

import shutil
from pathlib import Path

import pytest

from latentrt.export import estimates
from latentrt.export.estimates import check_disk, check_memory
from latentrt.runtime.errors import OutputError, RunError

GB = 10**9


def test_memory_that_is_not_there_is_refused_with_the_numbers(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(estimates, "available_memory", lambda: 8 * GB)
    check_memory("denoiser", 2 * GB)
    with pytest.raises(RunError, match=r"denoiser.*8\.0 GB available.*17\.8 GB, for 5\.1 GB of weights"):
        check_memory("denoiser", 5_100_000_000)


def test_disk_that_is_not_there_is_refused_with_the_numbers(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    usage = shutil.disk_usage(tmp_path)
    monkeypatch.setattr(shutil, "disk_usage", lambda path: usage._replace(free=3 * GB))
    check_disk(tmp_path / "not" / "there", {"denoiser": 2 * GB})
    with pytest.raises(OutputError, match=r"3\.0 GB free.*about 4\.2 GB for denoiser, vae_decoder"):
        check_disk(tmp_path / "not" / "there", {"denoiser": 3 * GB, "vae_decoder": 12 * GB // 10})
