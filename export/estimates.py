"""What a build will need of memory and disk, asked before it starts and not after hours."""

from __future__ import annotations

import shutil
from collections.abc import Mapping
from pathlib import Path

from ..runtime.errors import OutputError, RunError
from .memory import available_memory

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


def check_memory(component: str, weights: int) -> None:
    """Raise RunError if building the engine would take more memory than there is."""
    needed, available = engine_memory(weights), available_memory()
    if needed > available:
        raise RunError(
            f"{component}: not enough memory to build its engine",
            received=f"{_gigabytes(available)} available",
            expected=f"about {_gigabytes(needed)}, for {_gigabytes(weights)} of weights",
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
            received=f"{_gigabytes(free)} free",
            expected=f"about {_gigabytes(total)} for {', '.join(needed)}",
            remedy="make room or choose another --out",
        )


def _gigabytes(size: int) -> str:
    return f"{size / 1e9:.1f} GB"
