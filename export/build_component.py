"""One component of a bundle: its portable graph and its engine, each built or taken over from the previous bundle."""

from __future__ import annotations

import time
from dataclasses import dataclass

from ..runtime.bundles.manifest import Component, EngineRecord, GateRecord
from ..runtime.providers import Engine
from .build_engine import EngineBuilder
from .build_graph import GraphBuilder, Reference
from .events import DAMAGED, FORCED, NEW, REUSED, BuildEvent, Report
from .gate.gate_inputs import GateInputs
from .gate.verify import gate
from .kept_engines import EngineKeeper
from .networks.components import SourceComponent


@dataclass(frozen=True)
class Changes:
    """Why a component's graph and engine have to be built; empty for what the previous bundle has."""

    graph: str
    engine: str

    @property
    def reason(self) -> str:
        """The one that says more: a new graph needs a new engine."""
        return self.graph or self.engine or REUSED


@dataclass(frozen=True)
class ComponentBuilder:
    """Builds components into one bundle. ``engines`` is None where only the portable graphs are wanted."""

    graphs: GraphBuilder
    engines: EngineBuilder | None
    keeper: EngineKeeper
    report: Report

    def build(
        self, component: SourceComponent, inputs: GateInputs, changes: Changes
    ) -> tuple[Component, tuple[EngineRecord, ...]]:
        """A component's record, and its engines: the one asked for, and others that the bundle still has."""
        start = time.perf_counter()
        reference = Reference(component)
        record, graph = self.graphs.build(component, reference, inputs, changes.graph)
        if self.engines is None:
            kept = self.keeper.keep(component.name, record)
            self.report(BuildEvent(component.name, "done", time.perf_counter() - start, changes.reason))
            return record, kept
        reason = changes.engine
        if changes.graph not in ("", FORCED):  # a graph that was built anew may be the one that was there
            reason = self.engines.changes(component.name, record, self.graphs.writer.files, force=False)

        def check(engine: Engine) -> tuple[GateRecord, ...]:
            return gate(component.name, record, reference.samples(record, inputs), engine.run)

        obstacle = reference.cannot_run(record)
        built = self.engines.build(component.name, record, graph, check, reason, obstacle=obstacle)
        kept = self.keeper.keep(component.name, record, replaced=self.engines.replaces)
        self.report(built.done(time.perf_counter() - start, Changes(changes.graph, reason).reason))
        return record, (built.record, *kept)

    def changes(self, component: SourceComponent, *, force: bool = False) -> Changes:
        """What has to be built of a component; its files in the previous bundle are read."""
        self.report(BuildEvent(component.name, "check"))
        graph = self.graphs.changes(component, force=force)
        previous = self.graphs.writer.previous
        if self.engines is None:
            return Changes(graph, "")
        if graph or previous is None:
            return Changes(graph, graph)
        held = self.graphs.with_profile(component, previous.manifest.components[component.name])
        return Changes("", self.engines.changes(component.name, held, previous.manifest.files, force=False))

    def tell_dropped(self, component: SourceComponent, changes: Changes) -> tuple[EngineRecord, ...]:
        """Report which engines of other providers would go, as far as that can be told before anything is built, and
        return those that would stay."""
        previous = self.graphs.writer.previous
        if previous is None or changes.graph in (NEW, FORCED, DAMAGED):  # what is built anew may well be the same
            return ()
        record = self.graphs.with_profile(component, previous.manifest.components[component.name])
        return self.keeper.tell(
            component.name, record, previous.manifest.files, graph_reason=changes.graph,
            replaced=None if self.engines is None else self.engines.replaces,
        )  # fmt: skip
