"""Sides as processes that take turns: each waits for its own request while another runs, so that whatever else the
machine does falls on all of them alike.
"""

from __future__ import annotations

import atexit
import contextlib
import functools
import os
import select
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator, Sequence
from pathlib import Path
from types import TracebackType
from typing import TypeVar

import msgspec

from ..runtime.errors import RunError
from .baselines import Installed, importable
from .processes import kill_group
from .results import Failure
from .workload import Account, Accounted, Ask, Done, Failed, Load, Profile, Profiled, Ready, Request, Served, Start

R = TypeVar("R", Done, Served, Accounted, Profiled)

#: Idle OpenMP and ONNX Runtime workers spin for some milliseconds after a run.
_PAUSE_SECONDS = 0.05

#: The longest silence of a side: building a large checkpoint's graphs by torch.compile takes minutes.
PATIENCE_SECONDS = 3600.0


class Worker:
    """A side's process. Use it as a context manager; ``ready`` is there once it is loaded, ``ended`` is true once the
    process has ended, or been ended because it went silent: nothing can be asked of it any more."""

    def __init__(self, installed: Installed, start: Start):
        self.side = installed.side
        self.ended = False
        self._errors = tempfile.TemporaryFile("w+")  # noqa: SIM115  # closed when the worker is left
        self._process = subprocess.Popen(
            worker_command(installed, start),
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=self._errors,
            env=environment(start.threads, installed),
            start_new_session=True,  # an interrupt is the driver's to handle
        )
        self._unread = b""
        try:
            self.ready = msgspec.json.decode(self._line(), type=Ready)
        except BaseException:
            self._end(at_once=True)
            raise

    def __enter__(self) -> Worker:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._end(at_once=kind is not None)

    def draw(self, ask: Ask) -> Done:
        """One call, after a pause in which the other sides' threads come to rest.

        Raises:
            RunError: the side could not do it, or its process ended or went silent.
        """
        return self._answer(ask, Done)

    def load(self, load: Load) -> Served:
        """Many calls.

        Raises:
            RunError: as ``draw``.
        """
        return self._answer(load, Served)

    def account(self, account: Account) -> Accounted:
        """One call of LatentRT's, for what it takes outside of its engines.

        Raises:
            RunError: as ``draw``.
        """
        return self._answer(account, Accounted)

    def profile(self, profile: Profile) -> Profiled:
        """One step by its kernels.

        Raises:
            RunError: as ``draw``.
        """
        return self._answer(profile, Profiled)

    def _answer(self, request: Request, kind: type[R]) -> R:
        assert self._process.stdin is not None
        time.sleep(_PAUSE_SECONDS)
        with contextlib.suppress(BrokenPipeError):  # _line says why
            self._process.stdin.write(msgspec.json.encode(request) + b"\n")
            self._process.stdin.flush()
        reply = msgspec.json.decode(self._line(), type=kind | Failed)
        if isinstance(reply, Failed):
            raise RunError(f"{self.side.name} failed", received=reply.reason)
        return reply

    def _line(self) -> bytes:
        assert self._process.stdout is not None
        pipe = self._process.stdout.fileno()
        while b"\n" not in self._unread:
            readable, _, _ = select.select([pipe], [], [], PATIENCE_SECONDS)
            received = os.read(pipe, 1 << 16) if readable else b""
            if not received:
                self.ended = True
                kill_group(self._process)  # a silent one would go on beside the others
                raise RunError(f"{self.side.name} ended or went silent", received=self._last_words())
            self._unread += received
        line, _, self._unread = self._unread.partition(b"\n")
        return line

    def _last_words(self) -> str:
        self._errors.seek(0)
        return self._errors.read()[-2000:].strip()

    def _end(self, at_once: bool = False) -> None:
        assert self._process.stdin is not None
        assert self._process.stdout is not None
        with contextlib.suppress(BrokenPipeError):
            self._process.stdin.close()
        if at_once:
            kill_group(self._process)
        try:
            self._process.wait(timeout=30)
        except subprocess.TimeoutExpired:
            kill_group(self._process)
        self._process.stdout.close()
        self._errors.close()


def in_turn(workers: Sequence[Worker], rounds: int) -> Iterator[tuple[int, int, Worker]]:
    """(round, order, worker): all workers in every round, in an order that turns around from one to the next, so that
    neither a drift of the machine nor who ran before falls always on the same side."""
    for i in range(rounds):
        for order, worker in enumerate(reversed(workers) if i % 2 else workers):
            if not worker.ended:
                yield i, order, worker


def alive(workers: Sequence[Worker]) -> list[Worker]:
    """Those that can be asked."""
    return [worker for worker in workers if not worker.ended]


def failure(worker: Worker, what: str, error: RunError) -> Failure:
    """What is recorded of a call that failed; the others go on, and so does this side if its process is there."""
    return Failure(worker.side.name, what, str(error))


def worker_command(installed: Installed, start: Start, *out: str) -> list[str]:
    """The command line of a side's process; with a file, of its cold start."""
    encoded = msgspec.json.encode(start).decode()
    return [installed.python, "-P", "-m", "latentrt.benchmarks.worker", installed.side.module, encoded, *out]


def environment(threads: int, installed: Installed | None = None) -> dict[str, str]:
    """The environment of a side: the same number of threads for every library, no network, and this package also for
    the interpreter of another environment."""
    names = ("OMP_NUM_THREADS", "MKL_NUM_THREADS", "OPENBLAS_NUM_THREADS")
    variables = {**os.environ, **{name: str(threads) for name in names}}
    variables |= {"HF_HUB_OFFLINE": "1", "TRANSFORMERS_VERBOSITY": "error"}
    if installed is not None and installed.python != sys.executable:
        variables["PYTHONPATH"] = str(_namespace())
    return variables


@functools.cache
def _namespace() -> Path:
    """This package for other environments, until this process ends."""
    stack = contextlib.ExitStack()
    atexit.register(stack.close)
    return stack.enter_context(importable())
