"""What a build will need of memory and disk, asked before it starts and not after hours."""

from __future__ import annotations

import shutil
from pathlib import Path

from ...runtime.errors import OutputError, RunError

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


def available_memory(proc: Path = Path("/proc"), cgroup: Path = Path("/sys/fs/cgroup")) -> int:
    """Bytes of memory that this process can still get: the system's, or what its container (cgroup v2) leaves."""
    lines = (proc / "meminfo").read_text(encoding="ascii").splitlines()
    fields = {name: int(rest.split()[0]) * 1024 for name, rest in (line.split(":", 1) for line in lines)}
    available = fields["MemAvailable"]
    try:
        limit = (cgroup / "memory.max").read_text(encoding="ascii").strip()
        used = int((cgroup / "memory.current").read_text(encoding="ascii"))
    except (OSError, ValueError):
        return available
    return available if limit == "max" else min(available, int(limit) - used)


def peak_memory(proc: Path = Path("/proc")) -> int:
    """The most bytes of memory that this program has had. (``getrusage`` would count those of whoever started it.)"""
    lines = (proc / "self" / "status").read_text(encoding="ascii").splitlines()
    return next(int(line.split()[1]) * 1024 for line in lines if line.startswith("VmHWM"))


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


def check_disk(folder: Path, sizes: dict[str, int]) -> None:
    """Raise OutputError if engines for components with these bytes of weights do not fit on the folder's disk."""
    needed = sum(engine_size(weights) for weights in sizes.values())
    while not folder.exists():
        folder = folder.parent
    free = shutil.disk_usage(folder).free
    if needed > free:
        raise OutputError(
            f"{folder}: not enough room for the engines",
            received=f"{free / 1e9:.1f} GB free",
            expected=f"about {needed / 1e9:.1f} GB for {', '.join(sizes)}",
            remedy="make room or choose another --out",
        )
