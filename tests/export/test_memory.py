"""What memory is left on a machine, in a container or not, and what is given back."""

from __future__ import annotations

import weakref
from pathlib import Path

import pytest

from latentrt.export.memory import available_memory, release_memory


def machine(folder: Path, own: str = "") -> tuple[Path, Path]:
    """A /proc with 8,000,000 KiB available whose process is in the cgroups ``own``, and an empty folder of those."""
    proc, cgroup = folder / "proc", folder / "cgroup"
    (proc / "self").mkdir(parents=True)
    (proc / "meminfo").write_text(
        "MemTotal:       16000000 kB\nMemAvailable:    8000000 kB\nHugePages_Total:       0\n"
    )
    (proc / "self" / "cgroup").write_text(own)
    return proc, cgroup


def v1(folder: Path, limit: int) -> None:
    """A cgroup of version 1 that uses 3 MB, 2 of which are pages of files; its own figures leave out those below it."""
    folder.mkdir(parents=True)
    (folder / "memory.limit_in_bytes").write_text(f"{limit}\n")
    (folder / "memory.usage_in_bytes").write_text("3000000\n")
    (folder / "memory.stat").write_text(
        "cache 500\ninactive_file 100\nactive_file 100\ntotal_inactive_file 1500000\ntotal_active_file 500000\n"
    )


def v2(folder: Path, limit: str) -> None:
    """The same of version 2."""
    folder.mkdir(parents=True, exist_ok=True)
    (folder / "memory.max").write_text(f"{limit}\n")
    (folder / "memory.current").write_text("3000000\n")
    (folder / "memory.stat").write_text("anon 1000000\nfile 2000000\ninactive_file 1500000\nactive_file 500000\n")


V1_UNLIMITED = 9_223_372_036_854_771_712
SYSTEM = 8_192_000_000


def test_without_containers_the_system_says_what_is_left(tmp_path: Path) -> None:
    proc, cgroup = machine(tmp_path, "0::/\n")
    assert available_memory(proc, cgroup) == SYSTEM
    (proc / "self" / "cgroup").unlink()
    assert available_memory(proc, cgroup) == SYSTEM


@pytest.mark.parametrize(("limit", "expected"), [("max", SYSTEM), ("5000000", 4_000_000)])
def test_pages_of_files_are_available_in_a_container(limit: str, expected: int, tmp_path: Path) -> None:
    proc, cgroup = machine(tmp_path, "0::/\n")
    v2(cgroup, limit)
    assert available_memory(proc, cgroup) == expected


@pytest.mark.parametrize(("limit", "expected"), [(V1_UNLIMITED, SYSTEM), (5_000_000, 4_000_000)])
def test_pages_of_files_are_available_in_a_container_of_version_1(limit: int, expected: int, tmp_path: Path) -> None:
    """Docker mounts a container's group where the root is, and its process still sees the path on the host."""
    proc, cgroup = machine(tmp_path, "9:cpuacct,cpu:/docker/ab\n4:memory:/docker/ab\n0::/\n")
    v1(cgroup / "memory", limit)
    assert available_memory(proc, cgroup) == expected


def test_the_narrowest_of_nested_containers_counts(tmp_path: Path) -> None:
    proc, cgroup = machine(tmp_path, "0::/pods/worker\n")
    v2(cgroup / "pods" / "worker", "9000000")
    v2(cgroup / "pods", "6000000")
    assert available_memory(proc, cgroup) == 5_000_000


def test_what_is_only_held_by_a_cycle_is_released() -> None:
    class Module:
        def __init__(self) -> None:
            self.itself = self

    gone = weakref.ref(Module())
    release_memory()
    assert gone() is None
