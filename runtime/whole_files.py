"""Files that are there whole or not at all: written beside their place under a name of their own, and moved there."""

from __future__ import annotations

import contextlib
import glob
import secrets
from pathlib import Path


def write_whole(target: Path, content: bytes | memoryview) -> None:
    """Write a file, also in the place of another one; any number of threads and processes may write the same one.

    Raises:
        OSError: the folder is missing or not writable, or the disk is full; nothing is left of the file then.
    """
    part = _write_part(target, content)
    try:
        part.replace(target)
    except OSError:
        part.unlink(missing_ok=True)
        raise


def try_to_write(target: Path) -> None:
    """Write a file beside ``target`` and remove it again.

    Raises:
        OSError: as ``write_whole``.
    """
    _write_part(target, b"").unlink()


def remove_parts(target: Path) -> None:
    """Remove what processes left that were killed while they wrote a file, and what others are writing of it."""
    for part in target.parent.glob(f".{glob.escape(target.name)}.*.part"):
        with contextlib.suppress(OSError):
            part.unlink()


def _write_part(target: Path, content: bytes | memoryview) -> Path:
    part = target.with_name(f".{target.name}.{secrets.token_hex(4)}.part")
    try:
        part.write_bytes(content)
    except BaseException:
        with contextlib.suppress(OSError):  # the folder that it cannot be written to
            part.unlink()
        raise
    return part
