"""What results were measured on."""

from __future__ import annotations

import os
import platform
import subprocess
from pathlib import Path

from ..export.machine import gpus, processor_name


def machine() -> dict[str, str]:
    """Processor, GPUs, system, Python, and the commit where this runs from a checkout."""
    found = {
        "cpu": processor_name(),
        "processors": str(len(os.sched_getaffinity(0))),
        "system": f"{platform.system()} {platform.release()}",
        "python": platform.python_version(),
    }
    if devices := gpus():
        found["gpu"] = devices[0]
    here = str(Path(__file__).resolve().parent)
    if commit := _first_line(["git", "-C", here, "rev-parse", "--short=12", "HEAD"]):
        changed = _first_line(["git", "-C", here, "status", "--porcelain", "--untracked-files=no"])
        found["commit"] = commit + (", with changes" if changed else "")
    return found


def _first_line(command: list[str]) -> str:
    """The first line that a command prints; nothing where it is missing or fails."""
    try:
        done = subprocess.run(command, capture_output=True, text=True, check=False)
    except OSError:
        return ""
    return done.stdout.partition("\n")[0].strip() if done.returncode == 0 else ""
