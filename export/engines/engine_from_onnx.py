"""From a portable ONNX graph to an engine: what every provider's compiler offers."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Protocol

import onnx_ir as ir

from ...runtime.bundles.manifest import Component
from ...runtime.bundles.spec import Profile
from ...runtime.providers import Engine
from ..graphs.weights import WeightStore
from ..store import BundleWriter

#: Gives the portable graph; of a component that was taken over, it is only read when its engine must be built.
Graph = Callable[[], ir.Model]


@dataclass(frozen=True)
class CompileJob:
    """One component to compile: its record, whose graph and weights the bundle under construction holds already.

    ``profiles`` are the axis ranges to tune the engine for, one after the other; together they span the record's.
    ``progress(detail, fraction)`` may be called while the work goes on.
    """

    component: str
    record: Component
    profiles: tuple[Profile, ...]
    graph: Graph
    writer: BundleWriter
    weights: WeightStore
    progress: Callable[[str, float], None]


@dataclass(frozen=True)
class CompiledEngine:
    """Files of the bundle: the engine, and the weights that it refers to.

    A ``version_compatible`` engine also runs with the smaller library of its version that only runs engines.
    ``peak_memory`` (bytes) and ``warnings`` are those of the library that compiled, where it worked by itself.
    """

    path: str
    weights: tuple[str, ...]
    peak_memory: int = 0
    warnings: tuple[str, ...] = ()
    version_compatible: bool = False


class Compiler(Protocol):
    """How export builds for a provider, and for which GPUs (``targets``; none: it needs none)."""

    @property
    def provider(self) -> str:
        """Its name."""

    @property
    def targets(self) -> tuple[str, ...]:
        """Compute capabilities such as ``"sm89"``."""

    @property
    def only_here(self) -> bool:
        """Whether it builds for the GPU of this machine alone: engines for other GPUs then stay in a bundle."""

    def check_precision(self, precision: str) -> None:
        """Raise RequestError for a precision that the provider does not compute in."""

    def check_memory(self, component: str, weights: int) -> None:
        """Raise RunError if compiling a component with so many bytes of weights takes more memory than there is."""

    def engine_size(self, weights: int) -> int:
        """Bytes of disk that the engine of a component with so many bytes of weights is estimated to take."""

    def key(self) -> dict[str, str]:
        """What its engines depend on beside graph, weights and profiles: versions, targets, settings, by name."""

    def compile(self, job: CompileJob) -> CompiledEngine:
        """Write an engine into the bundle under construction."""

    def opener(self, job: CompileJob, path: str, weights: tuple[str, ...]) -> Callable[[], Engine] | str:
        """A way to run an engine of the bundle under construction, or why it cannot run on this machine.

        The reason becomes part of the manifest: it says nothing of the moment.
        """
