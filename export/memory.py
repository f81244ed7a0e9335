"""Memory: how much a process can get, how much it has taken, and how it gives some back."""

from __future__ import annotations

import contextlib
import ctypes
import gc
import os
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path


def total_memory() -> int:
    """Bytes of memory that the machine has."""
    return os.sysconf("SC_PHYS_PAGES") * os.sysconf("SC_PAGE_SIZE")


def available_memory(proc: Path = Path("/proc"), cgroup: Path = Path("/sys/fs/cgroup")) -> int:
    """Bytes of memory that this process can still get: the system's, or the least that its containers leave it."""
    lines = (proc / "meminfo").read_text(encoding="ascii").splitlines()
    fields = {name: int(rest.split()[0]) * 1024 for name, rest in (line.split(":", 1) for line in lines)}
    return min([fields["MemAvailable"], *_left_in_cgroups(proc, cgroup)])


@dataclass(frozen=True)
class _Accounting:
    """Where a version of cgroups keeps its figures; ``prefix`` is that of figures which include the groups below."""

    limit: str
    used: str
    prefix: str


_V1 = _Accounting("memory.limit_in_bytes", "memory.usage_in_bytes", "total_")
_V2 = _Accounting("memory.max", "memory.current", "")


def _left_in_cgroups(proc: Path, cgroup: Path) -> Iterator[int]:
    """What is left in each cgroup with a limit that this process is in: its own, and those above.

    Pages of files count as used there, and are given up as soon as memory is asked for: they are left as well.
    """
    try:
        lines = (proc / "self" / "cgroup").read_text(encoding="utf-8").splitlines()
    except OSError:
        return
    for _, controllers, path in (line.split(":", 2) for line in lines):
        if controllers not in ("", "memory"):
            continue
        accounting, root = (_V1, cgroup / "memory") if controllers else (_V2, cgroup)
        own = root / path.lstrip("/")
        # A container may see its own group at the root, whatever the path outside of it is.
        for group in (own, *(parent for parent in own.parents if parent.is_relative_to(root))):
            try:
                limit = (group / accounting.limit).read_text(encoding="ascii").strip()
                if limit == "max":
                    continue
                used = int((group / accounting.used).read_text(encoding="ascii"))
                stat = dict(line.split() for line in (group / "memory.stat").read_text(encoding="ascii").splitlines())
            except OSError:  # not there: the root of v2, a group outside the container
                continue
            cached = sum(int(stat.get(f"{accounting.prefix}{kind}_file", 0)) for kind in ("inactive", "active"))
            yield int(limit) - used + cached


def peak_memory(process: Path = Path("/proc/self")) -> int:
    """The most bytes of memory that a process has had, by default this one; 0 if it has ended.

    (``getrusage`` would count those of whoever started it.)
    """
    try:
        lines = (process / "status").read_text(encoding="ascii").splitlines()
    except OSError:
        return 0
    return next((int(line.split()[1]) * 1024 for line in lines if line.startswith("VmHWM")), 0)


def release_memory() -> None:
    """Give back to the system what is no longer used: modules in reference cycles, and what the allocator keeps."""
    gc.collect()
    with contextlib.suppress(OSError, AttributeError):  # another C library has no such call
        ctypes.CDLL("libc.so.6").malloc_trim(0)
