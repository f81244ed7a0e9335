"""``memory``: host memory of each side's process, sizes of bundle and checkpoint, and of an installation that can run.

A process's memory is read before any suite asks it for other sizes or batches than the headline's.
"""

from __future__ import annotations

import subprocess
import sys
import tempfile
from collections.abc import Iterator, Sequence
from pathlib import Path

from ...runtime.errors import RunError
from ...runtime.version import __version__
from ..baselines import python_of
from ..plan import Plan
from ..results import Absent, Memory, Size
from ..turns import Worker, alive, failure
from ..workload import Ask


def measure(plan: Plan, workers: Sequence[Worker]) -> Iterator[Memory | Size | Absent]:
    """Every side's process, then what is on disk."""
    for worker in alive(workers):
        plan.progress(f"{worker.side.name}: memory")
        try:
            done = worker.draw(Ask(plan.workload))
        except RunError as error:
            yield failure(worker, error)
        else:
            yield Memory(worker.side.name, worker.ready.resident_bytes, done.peak_bytes)
    files = plan.bundle.manifest.files.values()
    yield Size("bundle", sum(record.size for record in files))
    engines = {name for engine in plan.bundle.manifest.engines for name in (engine.path, *engine.weights)}
    yield Size("engines and their weights", sum(plan.bundle.manifest.files[name].size for name in engines))
    yield Size("checkpoint", bytes_of(plan.reference, "*.safetensors"))


def amount(plan: Plan) -> int:
    """How often ``measure`` reports progress."""
    return len(plan.sides)


def measure_installation(plan: Plan, workers: Sequence[Worker]) -> Iterator[Size]:
    """What ``pip install latentrt[cpu]`` adds to a fresh environment, from the checkout that this runs from if it does.

    Raises:
        RunError: pip failed.
    """
    plan.progress("installing into a fresh environment")
    checkout = Path(__file__).resolve().parents[2]
    wanted = f"{checkout}[cpu]" if (checkout / "pyproject.toml").exists() else f"latentrt[cpu]=={__version__}"
    with tempfile.TemporaryDirectory() as folder:
        environment = Path(folder) / "environment"
        _call([sys.executable, "-m", "venv", str(environment)])
        before = bytes_of(environment)
        _call([str(python_of(environment)), "-m", "pip", "install", "--quiet", "--no-compile", wanted])
        yield Size("installation with the cpu extra", bytes_of(environment) - before)


def amount_of_installation(plan: Plan) -> int:
    """How often ``measure_installation`` reports progress."""
    return 1


def bytes_of(path: Path, pattern: str = "*") -> int:
    """Size of a file, or of all files below a folder, links left out."""
    files = [path] if path.is_file() else [p for p in path.rglob(pattern) if p.is_file() and not p.is_symlink()]
    return sum(file.stat().st_size for file in files)


def _call(command: list[str]) -> None:
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    if done.returncode != 0:
        raise RunError(f"{' '.join(command)} failed", received=done.stderr[-1000:])
