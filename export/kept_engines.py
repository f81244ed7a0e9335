"""Engines that a bundle holds already and that a build is not about: they stay while they belong to its graphs."""

from __future__ import annotations

from collections.abc import Callable, Collection, Iterator, Mapping
from dataclasses import dataclass, replace

from ..runtime.bundles.manifest import Component, EngineRecord, FileRecord
from .events import DAMAGED, BuildEvent, Report
from .keys import changed_parts, graph_digest
from .profiles import Tuning
from .store import BundleWriter


@dataclass(frozen=True)
class EngineKeeper:
    """Decides about the previous bundle's engines that a build does not replace.

    One that was built from another graph, or for other sizes than its component has now, is left behind, and an event
    of the stage ``drop`` says so.
    """

    writer: BundleWriter
    tuning: Tuning
    report: Report

    def keep(
        self, component: str, record: Component, *, replaced: Callable[[EngineRecord], bool] | None = None
    ) -> tuple[EngineRecord, ...]:
        """Take over the engines of a component, but for those that are ``replaced``."""
        kept = self.tell(component, record, self.writer.files, replaced=replaced)
        for engine in kept:
            self.writer.take_over((engine.path, *engine.weights))
        return kept

    def tell(
        self,
        component: str,
        record: Component,
        files: Mapping[str, FileRecord],
        *,
        graph_reason: str = "",
        replaced: Callable[[EngineRecord], bool] | None = None,
    ) -> tuple[EngineRecord, ...]:
        """The engines that ``keep`` would take over; reports those that it would leave behind: for a graph among
        ``files``, or one that is yet to be built."""
        kept = []
        for engine, reason in self._judged(component, record, files, replaced):
            if graph_reason or reason:
                self.report(_dropped(engine, graph_reason or reason))
            else:
                kept.append(engine)
        return tuple(kept)

    def tell_components(self, names: Collection[str]) -> None:
        """Report the previous bundle's components that are not among the new one's ``names``, or that it is none."""
        if self.writer.unreadable:
            self.report(BuildEvent("", "drop", detail=f"{self.writer.unreadable}: nothing of it is taken over"))
        for name in () if self.writer.previous is None else self.writer.previous.manifest.components:
            if name not in names:
                self.report(BuildEvent(name, "drop", detail="dropped because nothing was given that has one"))

    def _judged(
        self,
        component: str,
        record: Component,
        files: Mapping[str, FileRecord],
        replaced: Callable[[EngineRecord], bool] | None,
    ) -> Iterator[tuple[EngineRecord, str]]:
        """The engines that are not replaced, and why each has to be left behind; empty if it has not."""
        previous = self.writer.previous
        for engine in () if previous is None else previous.manifest.engines:
            if previous is None or engine.component != component or (replaced is not None and replaced(engine)):
                continue
            if engine.key["onnx"] != graph_digest(record, files):
                changed = changed_parts(previous.manifest.components[component].key, record.key)
                yield engine, "; ".join(changed) or "its graph is another one"
            elif reason := self._other_sizes(engine, record):
                yield engine, reason
            else:
                yield engine, "" if self.writer.intact((engine.path, *engine.weights)) else DAMAGED

    def _other_sizes(self, engine: EngineRecord, record: Component) -> str:
        """Which sizes an engine was not built for, however it was tuned."""
        asked = self.tuning.profiles(record.profile)
        if engine.profiles in (replace(self.tuning, each=each).profiles(record.profile) for each in (False, True)):
            return ""
        return "; ".join(changed_parts(self.tuning.key(engine.profiles), self.tuning.key(asked)))


def _dropped(engine: EngineRecord, reason: str) -> BuildEvent:
    gpus = f" for {', '.join(engine.targets)}" if engine.targets else ""
    return BuildEvent(engine.component, "drop", detail=f"{engine.provider} engine{gpus} dropped because {reason}")
