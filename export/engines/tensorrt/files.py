"""Files of a build that are there whole or not at all."""

from __future__ import annotations

from pathlib import Path

from ....runtime import whole_files
from ....runtime.errors import OutputError


def write_whole(file: Path, content: memoryview) -> None:
    """Write a file, also in the place of another one, and the folders that it is in.

    Raises:
        OutputError: there is no room, or no right to write there.
    """
    try:
        file.parent.mkdir(parents=True, exist_ok=True)
        whole_files.write_whole(file, content)
    except OSError as error:
        raise OutputError(
            f"{file}: cannot be written",
            received=error.strerror or str(error),
            remedy="make room, or choose another folder that you may write to",
        ) from error
