"""A program's own export of a checkpoint, made once and kept from run to run.

``python -P -m latentrt.benchmarks.sides.own_export MODULE CHECKPOINT FOLDER`` makes one.
"""

from __future__ import annotations

import importlib
import shutil
import subprocess
import sys
import time
from pathlib import Path

from ..workload import Start


def exported(module: str, start: Start) -> tuple[Path, float]:
    """The folder of a side's export, and the seconds that making it took, if it was not there.

    Made by the module's ``export(checkpoint, folder)`` in a process of its own, so that the memory that it needs does
    not count as the side's, under another name until it is whole.

    Raises:
        CalledProcessError: it failed; what it said is on standard error.
    """
    begun = time.perf_counter()
    folder = Path(start.cache)
    if not folder.exists():
        folder.parent.mkdir(parents=True, exist_ok=True)
        partial = folder.with_name(f"{folder.name}.partial")
        shutil.rmtree(partial, ignore_errors=True)
        command = [sys.executable, "-P", "-m", __name__, module, start.source, str(partial)]
        subprocess.run(command, stdout=sys.stderr, check=True)
        partial.rename(folder)
    return folder, time.perf_counter() - begun


def main() -> None:
    """Export."""
    module, checkpoint, folder = sys.argv[1:]
    importlib.import_module(module).export(checkpoint, Path(folder))


if __name__ == "__main__":
    main()
