"""A process that is started to be measured, with all that it starts: they end together."""

from __future__ import annotations

import contextlib
import os
import signal
import subprocess
from collections.abc import Iterator, Sequence
from typing import IO, Any


@contextlib.contextmanager
def process_group(
    command: Sequence[str], *, stdout: int | IO[str], stderr: int | IO[str], env: dict[str, str] | None = None
) -> Iterator[subprocess.Popen[str]]:
    """A process in a session of its own; what raises in the block ends it, an interrupt too."""
    with subprocess.Popen(command, stdout=stdout, stderr=stderr, text=True, env=env, start_new_session=True) as process:
        try:
            yield process
        except BaseException:
            kill_group(process)
            raise


def kill_group(process: subprocess.Popen[Any]) -> None:
    """End at once what was started in a session of its own, and what it has started."""
    with contextlib.suppress(ProcessLookupError):
        os.killpg(process.pid, signal.SIGKILL)
    process.wait()
