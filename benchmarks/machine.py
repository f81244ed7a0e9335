"""What results were measured on."""

from __future__ import annotations

import os
import platform
import subprocess
from pathlib import Path


def machine() -> dict[str, str]:
    """Processor, GPUs, system, Python, and the commit where this runs from a checkout."""
    found = {
        "cpu": _cpu(),
        "processors": str(len(os.sched_getaffinity(0))),
        "system": f"{platform.system()} {platform.release()}",
        "python": platform.python_version(),
    }
    if gpu := _first_line(["nvidia-smi", "--query-gpu=name,driver_version", "--format=csv,noheader"]):
        found["gpu"] = gpu
    here = str(Path(__file__).resolve().parent)
    if commit := _first_line(["git", "-C", here, "rev-parse", "--short=12", "HEAD"]):
        changed = _first_line(["git", "-C", here, "status", "--porcelain", "--untracked-files=no"])
        found["commit"] = commit + (", with changes" if changed else "")
    return found


def _cpu() -> str:
    path = Path("/proc/cpuinfo")
    for line in path.read_text(encoding="utf-8").splitlines() if path.exists() else ():
        if line.startswith("model name"):
            return line.partition(":")[2].strip()
    return platform.processor() or platform.machine()


def _first_line(command: list[str]) -> str:
    """The first line that a command prints; nothing where it is missing or fails."""
    try:
        done = subprocess.run(command, capture_output=True, text=True, check=False)
    except OSError:
        return ""
    return done.stdout.partition("\n")[0].strip() if done.returncode == 0 else ""
