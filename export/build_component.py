"""One component of a bundle: its portable graph and its engine, each built or taken over from the previous bundle."""

from __future__ import annotations

import time
from dataclasses import dataclass

from ..runtime import manifest as contract
from ..runtime.providers import Engine
from .build_engine import EngineBuilder
from .build_graph import GraphBuilder, Reference
from .components import Component
from .events import BuildEvent, Report
from .graph_gate import is_large
from .verify import gate


@dataclass(frozen=True)
class ComponentBuilder:
    """Builds components into one bundle. ``engines`` is None where only the portable graphs are wanted."""

    graphs: GraphBuilder
    engines: EngineBuilder | None
    report: Report

    def build(
        self, component: Component, *, force: bool
    ) -> tuple[contract.Component, tuple[contract.EngineRecord, ...]]:
        """A component's record, and its engines: the one asked for, and those that other providers still have."""
        start = time.perf_counter()
        reference = Reference(component)
        record, graph, reason = self.graphs.build(component, reference, force=force)
        if self.engines is None:
            self.report(BuildEvent(component.name, "done", time.perf_counter() - start, reason))
            return record, ()

        def check(engine: Engine) -> tuple[contract.GateRecord, ...]:
            expected = reference.samples(record, large=is_large(record, self.graphs.writer.folder))
            return gate(component.name, record, expected, engine.run)

        obstacle = reference.cannot_run(record)
        built = self.engines.build(component.name, record, graph, check, force=force, obstacle=obstacle)
        others = self.engines.others(component.name, record)
        self.report(built.done(time.perf_counter() - start, graph_reason=reason))
        return record, (built.record, *others)

    def changes(self, component: Component) -> str:
        """Why the previous bundle's graph and engine of a component cannot be taken over; empty if they can."""
        previous = self.graphs.writer.previous
        parts = self.graphs.changes(component)
        if previous is not None and self.engines is not None and not parts:
            parts = self.engines.changes(component.name, previous.manifest.components[component.name])
        return "; ".join(parts)
