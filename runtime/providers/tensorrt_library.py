"""The installed TensorRT packages: which of them runs which engine, and everything in which they differ at run time.

Each runs the engines of its own version. ``tensorrt_lean`` is TensorRT without the builder and with fewer kernels: it
runs those that were built as version-compatible. (They are built without the copy of it that would let other versions
run them too.) Behind that the packages have the same classes by the same names.
"""

from __future__ import annotations

import functools
import importlib
import itertools
import logging
import threading
from collections import deque
from collections.abc import Iterable
from dataclasses import dataclass
from typing import Any

from ..bundles.manifest import EngineRecord
from ..device.driver import gpu_target
from ..errors import EngineError
from . import PROVIDERS, missing_library

logger = logging.getLogger(__name__)

LEAN = "tensorrt_lean"

_ERRORS_KEPT = 32


@dataclass(frozen=True)
class Library:
    """One installed package. ``module`` is ``tensorrt``, ``tensorrt_lean`` or ``tensorrt_rtx``."""

    module: Any

    @property
    def name(self) -> str:
        """The Python module's name."""
        return str(self.module.__name__)

    @property
    def version(self) -> str:
        """Its version."""
        return str(self.module.__version__)

    @property
    def compiles_at_run_time(self) -> bool:
        """Whether it finishes kernels when they are first needed, and can keep them: TensorRT-RTX does."""
        return hasattr(self.module, "IRuntimeCache")

    def runs(self, record: EngineRecord) -> bool:
        """Whether it runs an engine of its provider, as far as the version tells."""
        return self.version == record.provider_version and (record.version_compatible or self.name != LEAN)

    def create_runtime(self) -> Any:
        """What engines are deserialized with.

        Raises:
            EngineError: there is no GPU. (The lean library lets a runtime be made all the same, and crashes at exit.)
        """
        if gpu_target() is None:
            raise EngineError(f"{self.name} needs an NVIDIA GPU", received="no driver, or no GPU that it may use")
        return self.module.Runtime(log_of(self))

    def create_context(self, engine: Any, cache: Any) -> Any:
        """An execution context without memory of its own, or None where the library fails.

        Of TensorRT-RTX, ``cache`` keeps what it compiles. Kernels for a shape are compiled when the shape is first run
        and not while others are used in their place, since a recorded graph would hold those for good; recording is
        ours, so its own is off.
        """
        user_managed = self.module.ExecutionContextAllocationStrategy.USER_MANAGED
        if not self.compiles_at_run_time:
            return engine.create_execution_context(user_managed)
        config = engine.create_runtime_config()
        config.set_execution_context_allocation_strategy(user_managed)
        config.cuda_graph_strategy = self.module.CudaGraphStrategy.DISABLED
        strategies = self.module.DynamicShapesKernelSpecializationStrategy
        config.dynamic_shapes_kernel_specialization_strategy = strategies.EAGER
        if cache is not None:
            config.set_runtime_cache(cache)
        return engine.create_execution_context(config)

    def is_capturable(self, context: Any, stream: int) -> bool:
        """Whether a run may be recorded in a graph; TensorRT says so by failing."""
        return bool(context.is_stream_capturable(stream)) if self.compiles_at_run_time else True


class Log:
    """What a library had to say: its last errors, and the thread that it said each on, which may be one of its own."""

    def __init__(self) -> None:
        self._numbers = itertools.count()
        self._errors: deque[tuple[int, int, str]] = deque(maxlen=_ERRORS_KEPT)
        self._thread = threading.local()

    def begin(self) -> None:
        """The calling thread is about to make a call: what was said before has nothing to do with it."""
        self._thread.begun = next(self._numbers)

    def errors(self) -> str:
        """All errors since ``begin``: those of this thread, or else of any."""
        begun = getattr(self._thread, "begun", -1)
        said = [(thread, message) for number, thread, message in tuple(self._errors) if number > begun]
        own = [message for thread, message in said if thread == threading.get_ident()]
        return "; ".join(own or [message for _, message in said]) or "no reason given"

    def keep_error(self, message: str) -> None:
        """Keep an error for whoever sees that something failed."""
        self._errors.append((next(self._numbers), threading.get_ident(), message))


_MAKING_LOG = threading.Lock()


def log_of(library: Library) -> Any:
    """The library's one logger: it keeps the first that it is given for as long as the process lives."""
    with _MAKING_LOG:  # threads that load the first engines at once must not make one each
        return _only_log(library)


@functools.cache
def _only_log(library: Library) -> Any:
    trt = library.module

    class LibraryLog(Log, trt.ILogger):  # type: ignore[name-defined,misc]  # the module is known at run time only
        def __init__(self) -> None:
            trt.ILogger.__init__(self)
            Log.__init__(self)

        def log(self, severity: Any, msg: str) -> None:
            if severity in (trt.ILogger.ERROR, trt.ILogger.INTERNAL_ERROR):
                self.keep_error(msg)
                logger.error("%s: %s", library.name, msg)
            elif severity == trt.ILogger.WARNING:
                logger.warning("%s: %s", library.name, msg)

    return LibraryLog()


def library_for(record: EngineRecord) -> Library:
    """The installed package that runs an engine.

    Raises:
        MissingDependencyError: none is installed.
        EngineError: those installed cannot run it; the message says which could.
    """
    libraries = installed(record.provider)
    if not libraries:
        raise missing_library(record.provider)
    for library in libraries:
        if library.runs(record):
            return library
    packages = [name for name in PROVIDERS[record.provider].libraries if record.version_compatible or name != LEAN]
    rebuild = f"latentrt build-engines BUNDLE --provider {record.provider}"
    if LEAN not in packages and [library.name for library in libraries] == [LEAN]:
        rebuild += " --version-compatible"
    raise EngineError(
        f"{record.component}: an engine of {record.provider} {record.provider_version} does not run here",
        received=", ".join(f"{library.name} {library.version}" for library in libraries),
        expected=" or ".join(f"{name} {record.provider_version}" for name in packages),
        remedy=f"install that, or build the engine again: {rebuild}",
    )


def check(records: Iterable[EngineRecord]) -> None:
    """Check that what is installed runs these engines; see ``library_for``."""
    for record in records:
        library_for(record)


def installed(provider: str) -> list[Library]:
    """The packages of a provider that are installed, the complete one first.

    Raises:
        EngineError: one is, but not all that it consists of.
    """
    found = []
    for name in PROVIDERS[provider].libraries:
        try:
            found.append(Library(importlib.import_module(name)))
        except (ImportError, OSError) as error:
            if not isinstance(error, ModuleNotFoundError) or error.name != name:
                raise EngineError(f"{name} is installed and cannot be imported", received=str(error)) from error
    return found
