"""One engine built by TensorRT in this process, from the parsed graph to the file."""

from __future__ import annotations

import time
from collections.abc import Callable
from typing import Any

from ....runtime.errors import ExportError
from ...memory import peak_memory
from .build import BuilderOptions, EngineFigures, EngineTask, Progress
from .files import write_whole
from .library import Library, import_library
from .network import add_profiles, check_interface, check_types, parse
from .timings import read_timings, timing_file, write_timings

#: What is refused where the largest pictures of a profile take more than any GPU has: smaller ones would do with less.
_NO_MEMORY = "OutOfMemory"
_OWN_MEMORY = "its largest sizes take too much memory to set it all aside: large runs are not recorded as CUDA graphs"

_TOP_PHASES = 2  # of the nested phases that a builder reports, the outer ones are progress that a person can follow


def build(task: EngineTask, progress: Progress, tell: Callable[[str], None]) -> EngineFigures:
    """Build an engine; ``tell`` gets the lines of the library's log.

    Raises:
        ExportError: the graph is refused, computes in other types than it says, or cannot be built.
        OutputError: the engine or the timings cannot be written.
        MissingDependencyError: the library is not installed.
    """
    start = time.perf_counter()
    library = import_library(task.provider)
    log = builder_log(library, tell)
    builder = library.module.Builder(log)
    network = library.create_network(builder)
    parser = parse(library, network, log, task.graph)
    check_interface(task.component, network, task.inputs, task.outputs)
    heavy = check_types(task.component, network, task.types)
    config = builder.create_builder_config()
    add_profiles(builder, config, task.inputs, task.profiles)
    if not library.set_targets(config, task.targets):
        subject = f"{task.component}: {library.provider} {library.version} does not build for {', '.join(task.targets)}"
        raise ExportError(subject, received=log.reason())
    set_options(library, config, task.options, tf32=task.tf32)
    folder = task.options.timing_cache
    timings = None if folder is None else timing_file(folder, library, task.targets)
    cache = None if timings is None else read_timings(config, timings)
    config.progress_monitor = monitor = _monitor(library, progress)
    engine = builder.build_serialized_network(network, config)
    if engine is None and _NO_MEMORY in log.reason() and library.set_own_memory(config, allowed=True):
        log.warnings[_OWN_MEMORY] = None
        log.errors.clear()
        engine = builder.build_serialized_network(network, config)
    del parser, cache, monitor  # they had to live as long as the build
    if engine is None:
        subject = f"{task.component}: {library.provider} {library.version} cannot build it"
        raise ExportError(subject, received=log.reason())
    write_whole(task.out, memoryview(engine))
    if timings is not None:
        write_timings(config, timings)
    return EngineFigures(time.perf_counter() - start, peak_memory(), heavy, tuple(log.warnings))


def set_options(library: Library, config: Any, options: BuilderOptions, *, tf32: bool) -> None:
    """Put the settings into a builder's config; see ``EngineTask`` for ``tf32``."""
    if not tf32:
        config.clear_flag(library.module.BuilderFlag.TF32)
    library.set_memory_by_size(config)
    library.set_own_memory(config, allowed=False)
    if options.workspace is not None:
        config.set_memory_pool_limit(library.module.MemoryPoolType.WORKSPACE, options.workspace)
    if options.optimization_level is not None:
        config.builder_optimization_level = options.optimization_level
    if options.version_compatible:
        library.set_version_compatible(config)


def builder_log(library: Library, tell: Callable[[str], None]) -> Any:
    """A logger for the library that keeps each warning and each error once."""
    trt = library.module
    told = (trt.ILogger.INFO, trt.ILogger.WARNING, trt.ILogger.ERROR, trt.ILogger.INTERNAL_ERROR)

    class Log(trt.ILogger):  # type: ignore[name-defined]  # the module is known at run time only
        def __init__(self) -> None:
            super().__init__()
            self.warnings: dict[str, None] = {}
            self.errors: dict[str, None] = {}

        def log(self, severity: Any, message: str) -> None:
            if severity == trt.ILogger.WARNING:
                self.warnings[message] = None
            elif severity in (trt.ILogger.ERROR, trt.ILogger.INTERNAL_ERROR):
                self.errors[message] = None
            if severity in told:
                tell(message)

        def reason(self) -> str:
            """Why something failed, in the library's words."""
            return "; ".join(self.errors) or "no reason given"

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
