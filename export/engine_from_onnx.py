"""From a portable ONNX graph to an engine: what every provider's compiler offers."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Protocol

import onnx_ir as ir

from ..runtime.manifest import Component
from ..runtime.providers import Engine
from ..runtime.spec import Profile
from .store import BundleWriter
from .weights import WeightStore

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
    """Files of the bundle, and a way to run them: ``open``, or None where ``not_run`` says why it cannot run here.

    ``peak_memory`` (bytes) and ``warnings`` are those of the library that compiled, where it worked by itself.
    """

    path: str
    weights: tuple[str, ...]
    open: Callable[[], Engine] | None
    not_run: str = ""
    peak_memory: int = 0
    warnings: tuple[str, ...] = ()


class Compiler(Protocol):
    """How export builds for a provider, and for which GPUs (``targets``; none: it needs none)."""

    @property
    def provider(self) -> str:
        """Its name."""

    @property
    def targets(self) -> tuple[str, ...]:
        """Compute capabilities such as ``"sm89"``."""

    def check_precision(self, precision: str) -> None:
        """Raise RequestError for a precision that the provider does not compute in."""

    def key(self) -> dict[str, str]:
        """What its engines depend on beside graph, weights and profiles: versions, targets, settings, by name."""

    def compile(self, job: CompileJob) -> CompiledEngine:
        """Write an engine into the bundle under construction."""
