"""What a build will need of memory and disk, asked before it starts and not after hours."""

from __future__ import annotations

import contextlib
import ctypes
import gc
import shutil
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path

from ....runtime.errors import OutputError, RunError

#: Bytes of memory per byte of weights while an engine is built, and beside it. Measured with TensorRT-RTX 1.7 on
#: full-size UNets in fp16: SD 1.5 (1.7 GB of weights) took 6 GB, SDXL (5.1 GB) 17.4 GB.
_MEMORY_FACTOR, _MEMORY_BASE = 3.4, 400 << 20

#: The same for disk: an engine holds its weights and its kernels (10 to 17 MB for the smallest networks).
_DISK_FACTOR, _DISK_BASE = 1.05, 20 << 20


def engine_memory(weights: int) -> int:
    """Bytes of memory that building an engine of so many bytes of weights is estimated to take."""
    return int(_MEMORY_FACTOR * weights) + _MEMORY_BASE


def engine_size(weights: int) -> int:
    """Bytes that the engine file is estimated to have."""
    return int(_DISK_FACTOR * weights) + _DISK_BASE


def release_memory() -> None:
    """Give back to the system what is no longer used: modules in reference cycles, and what the allocator keeps."""
    gc.collect()
    with contextlib.suppress(OSError, AttributeError):  # another C library has no such call
        ctypes.CDLL("libc.so.6").malloc_trim(0)


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


def check_memory(component: str, weights: int) -> None:
    """Raise RunError if building the engine would take more memory than there is."""
    needed, available = engine_memory(weights), available_memory()
    if needed > available:
        raise RunError(
            f"{component}: not enough memory to build its engine",
            received=f"{available / 1e9:.1f} GB available",
            expected=f"about {needed / 1e9:.1f} GB, for {weights / 1e9:.1f} GB of weights",
            remedy="close other programs, or build on a larger machine",
        )


def check_disk(folder: Path, needed: Mapping[str, int]) -> None:
    """Raise OutputError if what components need (in bytes, by name) does not fit on the folder's disk."""
    while not folder.exists():
        folder = folder.parent
    free, total = shutil.disk_usage(folder).free, sum(needed.values())
    if total > free:
        raise OutputError(
            f"{folder}: not enough room for the bundle",
            received=f"{free / 1e9:.1f} GB free",
            expected=f"about {total / 1e9:.1f} GB for {', '.join(needed)}",
            remedy="make room or choose another --out",
        )
