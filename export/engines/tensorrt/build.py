"""Building one engine, in a process of its own: its memory returns to the system, and a crash ends only the process."""

from __future__ import annotations

import ctypes
import multiprocessing
import os
import signal
import threading
from collections import deque
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, field
from multiprocessing.connection import Connection
from pathlib import Path

from ....runtime.bundles.spec import Profile, TensorSpec
from ....runtime.errors import ExportError, LatentRTError
from ....runtime.whole_files import remove_parts
from ...memory import available_memory, peak_memory

_PR_SET_PDEATHSIG = 1  # of Linux's prctl(2), the only system that these libraries build on here
_LOG_LINES = 3  # of a builder that fails without a reason: what it did last
_GLANCE = 0.2  # seconds between two looks at the builder's memory: nobody can ask for it once it was killed


@dataclass(frozen=True)
class BuilderOptions:
    """Settings of the builder; None leaves TensorRT's own.

    ``workspace`` bounds the scratch memory of a layer, in bytes. ``optimization_level`` is 0 to 5. A
    ``version_compatible`` engine also runs with the lean runtime. ``timing_cache`` is the folder of ``timings``, which
    make a build repeatable.
    """

    workspace: int | None = None
    optimization_level: int | None = None
    version_compatible: bool = False
    timing_cache: Path | None = None


@dataclass(frozen=True)
class EngineTask:
    """One engine to build: ``graph`` and its contract in, ``out`` written. ``types`` as ``check_types`` wants them.

    ``tf32`` allows products of fp32 numbers that are rounded to 10 bits of mantissa first, as TensorRT does by itself.
    """

    provider: str
    component: str
    graph: Path
    out: Path
    inputs: tuple[TensorSpec, ...]
    outputs: tuple[TensorSpec, ...]
    profiles: tuple[Profile, ...]
    targets: tuple[str, ...]
    types: Mapping[str, str]
    tf32: bool = True
    options: BuilderOptions = field(default_factory=BuilderOptions)


@dataclass(frozen=True)
class EngineFigures:
    """What a build took: seconds, and the peak of its process's memory in bytes; the distinct warnings it gave."""

    seconds: float
    peak_memory: int
    heavy_layers: int
    warnings: tuple[str, ...]


#: ``progress(phase, fraction)``: what the builder is doing, and how much of that is done.
Progress = Callable[[str, float], None]


def build_engine(task: EngineTask, progress: Progress = lambda phase, fraction: None) -> EngineFigures:
    """Build an engine in a child process; ``task.out`` is there afterwards, whole, or not at all.

    Raises:
        ExportError: the graph is refused, computes in other types than it says, or cannot be built; or the builder
            failed or was killed (for want of memory, most often), with the last lines of its log.
        OutputError: the engine cannot be written.
        LatentRTError: an option that the library does not have.
    """
    context = multiprocessing.get_context("spawn")  # a fork would share this process's threads and memory
    receiver, sender = context.Pipe(duplex=False)
    process = context.Process(target=_build_and_send, args=(task, sender, os.getpid()), daemon=True)
    log: deque[str] = deque(maxlen=_LOG_LINES)
    available, peak = available_memory(), 0
    process.start()
    sender.close()
    try:
        while True:
            peak = max(peak, peak_memory(Path(f"/proc/{process.pid}")))
            if not receiver.poll(_GLANCE):
                continue
            try:
                message = receiver.recv()
            except (EOFError, OSError):  # it died, maybe in the middle of a message
                process.join()
                raise _died(task, process.exitcode, peak, available, log) from None
            match message:
                case EngineFigures():
                    return message
                case _Failure():
                    raise message.error()
                case _Unexpected():
                    raise _failed(task, message.text, log)
                case str():
                    log.append(message)
                case _:
                    progress(*message)
    finally:
        if process.is_alive():
            process.terminate()
        process.join()
        receiver.close()
        remove_parts(task.out)


def _died(task: EngineTask, code: int | None, peak: int, available: int, log: Iterable[str]) -> ExportError:
    name = signal.Signals(-code).name if code is not None and code < 0 else f"exit code {code}"
    killed = name == "SIGKILL"
    return _failed(
        task,
        f"{name}, with {peak / 1e9:.1f} GB of memory taken of the {available / 1e9:.1f} GB that were available",
        log,
        "give it more memory: the system kills processes when there is none left" if killed else None,
    )


def _failed(task: EngineTask, reason: str, log: Iterable[str], remedy: str | None = None) -> ExportError:
    return ExportError(
        f"{task.component}: the process that built its {task.provider} engine failed",
        received="; ".join([reason, *(f"log: {line[:200]}" for line in log)]),
        remedy=remedy,
    )


@dataclass(frozen=True)
class _Failure:
    """An error on its way out of the child: these exceptions take keyword arguments, which pickling loses."""

    kind: type[LatentRTError]
    subject: str
    received: object
    expected: object
    remedy: str | None

    def error(self) -> LatentRTError:
        return self.kind(self.subject, received=self.received, expected=self.expected, remedy=self.remedy)


@dataclass(frozen=True)
class _Unexpected:
    """Any other exception, in words: its class may not be one that the parent can load."""

    text: str


def _build_and_send(task: EngineTask, connection: Connection, parent: int) -> None:
    """The child: everything that happens goes to the parent as messages. Lines of the log are texts."""
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # Ctrl-C reaches both processes; the parent ends this one
    ctypes.CDLL(None).prctl(_PR_SET_PDEATHSIG, signal.SIGKILL)  # a killed parent cannot, and the next build may begin
    if os.getppid() != parent:  # it was killed before that
        return
    one_at_a_time = threading.Lock()  # builders report from threads of their own

    def send(message: object) -> None:
        with one_at_a_time:
            connection.send(message)

    try:
        from .builder import build  # only here: the parent has no use for the library's memory

        send(build(task, lambda phase, fraction: send((phase, fraction)), send))
    except LatentRTError as error:
        send(_Failure(type(error), error.subject, error.received, error.expected, error.remedy))
    except Exception as error:
        send(_Unexpected(f"{type(error).__name__}: {error}"))
