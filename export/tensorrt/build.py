"""Building one engine, in a process of its own: its memory returns to the system, and a crash ends only the process."""

from __future__ import annotations

import ctypes
import multiprocessing
import os
import signal
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from multiprocessing.connection import Connection
from pathlib import Path
from typing import Any

from ...runtime.errors import ExportError, LatentRTError
from ...runtime.spec import Profile, TensorSpec
from .library import Library, import_library
from .network import add_profiles, check_interface, check_types, parse
from .resources import peak_memory

_PR_SET_PDEATHSIG = 1  # of Linux's prctl(2), the only system that these libraries build on here
_TOP_PHASES = 2  # of the nested phases that a builder reports, the outer ones are progress that a person can follow


@dataclass(frozen=True)
class BuilderOptions:
    """Settings of the builder; None leaves TensorRT's own.

    ``workspace`` bounds the scratch memory of a layer, in bytes. ``optimization_level`` is 0 to 5. A
    ``version_compatible`` engine also runs with later versions and with the lean runtime. ``timing_cache`` is read
    and written where the library keeps timings, and makes a build repeatable.
    """

    workspace: int | None = None
    optimization_level: int | None = None
    version_compatible: bool = False
    timing_cache: Path | None = None


@dataclass(frozen=True)
class EngineTask:
    """One engine to build: ``graph`` and its contract in, ``out`` written. ``types`` as ``check_types`` wants them."""

    provider: str
    component: str
    graph: Path
    out: Path
    inputs: tuple[TensorSpec, ...]
    outputs: tuple[TensorSpec, ...]
    profiles: tuple[Profile, ...]
    targets: tuple[str, ...]
    types: Mapping[str, str]
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
    """Build an engine in a child process.

    Raises:
        ExportError: the graph is refused, computes in other types than it says, or cannot be built; or the process
            died (of memory, most often), with its signal.
        LatentRTError: an option that the library does not have.
    """
    context = multiprocessing.get_context("spawn")  # a fork would share this process's threads and memory
    receiver, sender = context.Pipe(duplex=False)
    process = context.Process(target=_build_and_send, args=(task, sender, os.getpid()), daemon=True)
    process.start()
    sender.close()
    try:
        while True:
            message = receiver.recv()
            if isinstance(message, EngineFigures):
                return message
            if isinstance(message, _Failure):
                raise message.error()
            progress(*message)
    except EOFError:
        process.join()
        raise _died(task, process.exitcode) from None
    finally:
        if process.is_alive():
            process.terminate()
        process.join()
        receiver.close()


def _died(task: EngineTask, code: int | None) -> ExportError:
    name = signal.Signals(-code).name if code is not None and code < 0 else f"exit code {code}"
    killed = name == "SIGKILL"
    return ExportError(
        f"{task.component}: the process that built its {task.provider} engine died",
        received=name,
        remedy="give it more memory: the system ends processes when there is none left" if killed else None,
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


def _build_and_send(task: EngineTask, connection: Connection, parent: int) -> None:
    """The child: everything that happens goes to the parent as messages."""
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # Ctrl-C reaches both processes; the parent ends this one
    ctypes.CDLL(None).prctl(_PR_SET_PDEATHSIG, signal.SIGKILL)  # a killed parent cannot, and the next build may begin
    if os.getppid() != parent:  # it was killed before that
        return
    try:
        connection.send(_build(task, lambda phase, fraction: connection.send((phase, fraction))))
    except LatentRTError as error:
        connection.send(_Failure(type(error), error.subject, error.received, error.expected, error.remedy))


def _build(task: EngineTask, progress: Progress) -> EngineFigures:
    start = time.perf_counter()
    library = import_library(task.provider)
    log = _log(library)
    builder = library.module.Builder(log)
    network = library.create_network(builder)
    parser = parse(library, network, log, task.graph)
    check_interface(task.component, network, task.inputs, task.outputs)
    heavy = check_types(task.component, network, task.types)
    config = builder.create_builder_config()
    add_profiles(builder, config, task.inputs, task.profiles)
    library.set_targets(config, task.targets)
    _set_options(library, config, task.options)
    config.progress_monitor = monitor = _monitor(library, progress)
    engine = builder.build_serialized_network(network, config)
    del parser, monitor  # they had to live as long as the build
    if engine is None:
        subject = f"{task.component}: {library.provider} {library.version} cannot build it"
        raise ExportError(subject, received=log.last_error or "no reason given")
    task.out.parent.mkdir(parents=True, exist_ok=True)
    with task.out.open("wb") as file:
        file.write(memoryview(engine))
    _keep_timings(library, config, task.options)
    return EngineFigures(time.perf_counter() - start, peak_memory(), heavy, tuple(log.warnings))


def _set_options(library: Library, config: Any, options: BuilderOptions) -> None:
    if options.workspace is not None:
        config.set_memory_pool_limit(library.module.MemoryPoolType.WORKSPACE, options.workspace)
    if options.optimization_level is not None:
        config.builder_optimization_level = options.optimization_level
    if options.version_compatible:
        library.set_version_compatible(config)
    if options.timing_cache is not None and library.keeps_timings:
        held = options.timing_cache.read_bytes() if options.timing_cache.is_file() else b""
        config.set_timing_cache(config.create_timing_cache(held), ignore_mismatch=False)


def _keep_timings(library: Library, config: Any, options: BuilderOptions) -> None:
    if options.timing_cache is not None and library.keeps_timings:
        options.timing_cache.parent.mkdir(parents=True, exist_ok=True)
        options.timing_cache.write_bytes(memoryview(config.get_timing_cache().serialize()))


def _log(library: Library) -> Any:
    """A logger for the library that keeps each warning once, and the last error."""
    trt = library.module

    class Log(trt.ILogger):  # type: ignore[name-defined]  # the module is known at run time only
        def __init__(self) -> None:
            super().__init__()
            self.warnings: dict[str, None] = {}
            self.last_error: str | None = None

        def log(self, severity: Any, message: str) -> None:
            if severity == trt.ILogger.WARNING:
                self.warnings[message] = None
            elif severity in (trt.ILogger.ERROR, trt.ILogger.INTERNAL_ERROR):
                self.last_error = message

    return Log()


def _monitor(library: Library, progress: Progress) -> Any:
    """A progress monitor that reports the outer phases, a few times a second at most."""

    class Monitor(library.module.IProgressMonitor):  # type: ignore[name-defined]
        def __init__(self) -> None:
            super().__init__()
            self._phases: dict[str, tuple[int, int]] = {}  # name -> (depth, steps)
            self._told = 0.0

        def phase_start(self, phase_name: str, parent_phase: str | None, num_steps: int) -> None:
            depth = self._phases[parent_phase][0] + 1 if parent_phase in self._phases else 0
            self._phases[phase_name] = (depth, num_steps)
            if depth < _TOP_PHASES:
                progress(phase_name, 0.0)

        def step_complete(self, phase_name: str, step: int) -> bool:
            depth, steps = self._phases.get(phase_name, (0, 1))
            now = time.perf_counter()
            if depth < _TOP_PHASES and now - self._told > 0.1:
                self._told = now
                progress(phase_name, (step + 1) / max(steps, 1))
            return True

        def phase_finish(self, phase_name: str) -> None:
            self._phases.pop(phase_name, None)

    return Monitor()
