"""Files that are there whole or not at all."""

from __future__ import annotations

import contextlib
from pathlib import Path

from ....runtime.errors import OutputError


def _partial(file: Path) -> Path:
    return file.with_name(f"{file.name}.partial")


def write_whole(file: Path, content: memoryview) -> None:
    """Write a file under another name and put it in place, also where another one is.

    Raises:
        OutputError: there is no room, or no right to write there.
    """
    partial = _partial(file)
    try:
        file.parent.mkdir(parents=True, exist_ok=True)
        partial.write_bytes(content)
        partial.replace(file)
    except OSError as error:
        remove_partial(file)
        raise OutputError(
            f"{file}: cannot be written",
            received=error.strerror or str(error),
            remedy="make room, or choose another folder that you may write to",
        ) from error


def remove_partial(file: Path) -> None:
    """Remove what a process left that was killed while it wrote a file."""
    with contextlib.suppress(OSError):
        _partial(file).unlink()
