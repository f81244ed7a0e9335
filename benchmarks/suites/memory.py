"""``memory``: host and GPU memory of each side's process, sizes of bundle and checkpoint.

A process's peak is the most since it started, so it is read before any suite asks for other sizes or batches than the
headline's.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from pathlib import Path

from ...runtime.errors import RunError
from ..plan import Plan
from ..results import Failure, Memory, Size
from ..turns import Worker, alive, failure
from ..workload import Ask


def measure(plan: Plan, workers: Sequence[Worker]) -> Iterator[Memory | Size | Failure]:
    """Every side's process, then what is on disk."""
    for worker in alive(workers):
        plan.progress(f"{worker.side.name}: memory")
        try:
            done = worker.draw(Ask(plan.workload, watch=True))
        except RunError as error:
            yield failure(worker, "memory", error)
        else:
            ready = worker.ready
            host = (ready.resident_bytes, done.peak_bytes)
            yield Memory(worker.side.name, *host, ready.device_bytes, done.device_bytes)
    files = plan.bundle.manifest.files.values()
    yield Size("bundle", sum(record.size for record in files))
    engines = {name for engine in plan.bundle.manifest.engines for name in (engine.path, *engine.weights)}
    yield Size("engines and their weights", sum(plan.bundle.manifest.files[name].size for name in engines))
    yield Size("checkpoint", bytes_of(plan.reference, "*.safetensors"))


def amount(plan: Plan) -> int:
    """How often ``measure`` reports progress."""
    return len(plan.sides)


def bytes_of(path: Path, pattern: str = "*") -> int:
    """Size of a file, or of all files below a folder, links left out."""
    files = [path] if path.is_file() else [p for p in path.rglob(pattern) if p.is_file() and not p.is_symlink()]
    return sum(file.stat().st_size for file in files)
