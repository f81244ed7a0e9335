"""Memory and disk are asked for before they are needed."""

from __future__ import annotations

import shutil
from pathlib import Path

import pytest

from latentrt.export.tensorrt import resources
from latentrt.export.tensorrt.resources import available_memory, check_disk, check_memory
from latentrt.runtime.errors import OutputError, RunError

GB = 10**9


def machine(folder: Path, limit: str | None) -> tuple[Path, Path]:
    """A /proc with 8,000,000 KiB available, and a container's limits."""
    proc, cgroup = folder / "proc", folder / "cgroup"
    proc.mkdir()
    cgroup.mkdir()
    (proc / "meminfo").write_text(
        "MemTotal:       16000000 kB\nMemAvailable:    8000000 kB\nHugePages_Total:       0\n"
    )
    if limit is not None:
        (cgroup / "memory.max").write_text(f"{limit}\n")
        (cgroup / "memory.current").write_text("1000000\n")
    return proc, cgroup


@pytest.mark.parametrize(("limit", "expected"), [(None, 8_192_000_000), ("max", 8_192_000_000), ("5000000", 4_000_000)])
def test_a_container_may_have_less_memory_than_its_machine(limit: str | None, expected: int, tmp_path: Path) -> None:
    assert available_memory(*machine(tmp_path, limit)) == expected


def test_memory_that_is_not_there_is_refused_with_the_numbers(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(resources, "available_memory", lambda: 8 * GB)
    check_memory("denoiser", 2 * GB)
    with pytest.raises(RunError, match=r"denoiser.*8\.0 GB available.*17\.8 GB, for 5\.1 GB of weights"):
        check_memory("denoiser", 5_100_000_000)


def test_disk_that_is_not_there_is_refused_with_the_numbers(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    usage = shutil.disk_usage(tmp_path)
    monkeypatch.setattr(shutil, "disk_usage", lambda path: usage._replace(free=3 * GB))
    check_disk(tmp_path / "not" / "there", {"denoiser": 2 * GB})
    with pytest.raises(OutputError, match=r"3\.0 GB free.*about 4\.2 GB for denoiser, vae_decoder"):
        check_disk(tmp_path / "not" / "there", {"denoiser": 3 * GB, "vae_decoder": GB})
