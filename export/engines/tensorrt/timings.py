"""What TensorRT measured of layers, kept between builds: engines of the same choices, in less time."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

from ....runtime.errors import ExportError
from .files import write_whole
from .library import Library


def timing_file(folder: Path, library: Library, targets: Sequence[str]) -> Path:
    """Where the measurements of a library's version on a kind of GPU are: they tell nothing of another."""
    return folder / f"{library.provider}-{library.version}-{'-'.join(targets)}.timings"


def read_timings(config: Any, file: Path) -> Any:
    """Let a build start from what was measured before, if anything was. The cache has to live as long as the build.

    Raises:
        ExportError: the library does not take them.
    """
    cache = config.create_timing_cache(file.read_bytes() if file.is_file() else b"")
    if cache is None or not config.set_timing_cache(cache, ignore_mismatch=False):
        subject = f"{file}: measurements that TensorRT does not take"
        raise ExportError(subject, remedy="delete the file: they are measured again")
    return cache


def write_timings(config: Any, file: Path) -> None:
    """Keep what was measured before and in this build, in place of what the file held.

    Raises:
        OutputError: it cannot be written.
    """
    write_whole(file, memoryview(config.get_timing_cache().serialize()))
