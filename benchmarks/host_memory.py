"""Host memory of processes, by what Linux says of them."""

from __future__ import annotations

import os
from pathlib import Path


def memory(field: str, process: Path = Path("/proc/self")) -> int:
    """``VmRSS``, what a process has resident, or ``VmHWM``, the most it ever had; in bytes, 0 if it is gone.
    (``getrusage`` would count what whoever started it had.)"""
    try:
        status = (process / "status").read_text(encoding="utf-8", errors="replace")
    except OSError:
        return 0
    return next((int(line.split()[1]) * 1024 for line in status.splitlines() if line.startswith(f"{field}:")), 0)


def memory_of_session(leader: int) -> int:
    """Bytes that a process and all that it has started have resident now; of pages that they share, each its own."""
    processes = [path for path in Path("/proc").iterdir() if path.name.isdecimal()]
    return sum(memory("VmRSS", process) for process in processes if _session(int(process.name)) == leader)


def _session(pid: int) -> int | None:
    try:
        return os.getsid(pid)
    except OSError:  # it has ended
        return None
