"""A build on the terminal: what is being done, and what came of it."""

from __future__ import annotations

import sys
import time
from collections.abc import Mapping, Sequence
from pathlib import Path

from rich.console import Console
from rich.table import Table

from ..runtime.bundles.manifest import EngineRecord, Manifest
from .events import FORCED, NEW, REUSED, BuildEvent


class BuildProgress:
    """What is being done, as a spinner on a terminal and as lines elsewhere; ``done`` has what came to an end."""

    def __init__(self, quiet: bool):
        self._console = Console(stderr=True, quiet=quiet)
        self._status = self._console.status("starting")
        self._start = time.perf_counter()
        self._warned: set[str] = set()
        self._stage = ("", "")
        self.seconds = 0.0
        self.done: list[BuildEvent] = []
        self.dropped: list[str] = []

    def __enter__(self) -> BuildProgress:
        self._status.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._status.stop()
        self.seconds = time.perf_counter() - self._start

    def note(self, text: str) -> None:
        """Say what is going on now."""
        self._status.update(text)
        if not self._console.is_terminal:
            self._print(text)

    def event(self, event: BuildEvent) -> None:
        """Show a builder's event."""
        if event.stage == "wait":
            self.note("waiting for another build of this bundle to end")
        elif event.stage == "profiles":
            self._print(event.detail)
        elif event.stage == "done":
            self.done.append(event)
            memory = f", {event.peak_memory / 1e9:.1f} GB" if event.peak_memory else ""
            self._print(f"{event.component}: {outcome(event.reason)}, {event.seconds:.1f} s{memory}")
            for warning in event.warnings:
                if warning not in self._warned:  # each component repeats those of the parser
                    self._warned.add(warning)
                    self._print(f"  {warning}")
        elif event.stage == "drop":
            self.dropped.append(f"{event.component}: {event.detail}" if event.component else event.detail)
            self._print(self.dropped[-1])
        else:
            self._enter(event)

    def _enter(self, event: BuildEvent) -> None:
        """Show a stage; where that cannot move, its beginning."""
        subject = f"{event.component}: " if event.component else ""
        share = "" if event.fraction is None else f" {event.fraction:.0%}"
        self._status.update(f"{subject}{event.stage} {event.detail}{share}")
        if event.stage != "check" and (event.component, event.stage) != self._stage and not self._console.is_terminal:
            self._print(f"{subject}{event.stage}")
        self._stage = (event.component, event.stage)

    def report(self, out: Path, manifest: Manifest) -> dict[str, object]:
        """The same for machines."""
        done = {event.component: {"seconds": event.seconds, "why": event.reason} for event in self.done}
        return {
            "bundle": str(out), "seconds": self.seconds, "components": done, "dropped": self.dropped,
            "files": manifest.files,
        }  # fmt: skip

    def _print(self, text: str) -> None:
        self._console.print(text, highlight=False, markup=False, soft_wrap=True)


def outcome(reason: str) -> str:
    """The reason of an event as what comes of it."""
    if reason in (REUSED, NEW):
        return "built" if reason == NEW else reason
    return f"rebuilt because {'of --force' if reason == FORCED else reason}"


def planned(reason: str) -> str:
    """The same before anything is built."""
    return reason if reason == REUSED else f"would be {outcome(reason)}{': new' if reason == NEW else ''}"


def summary(out: Path, manifest: Manifest, provider: str | None, progress: BuildProgress) -> None:
    """A table of the components that were asked for, with the figures of the engine of that provider."""
    from ..runtime.cli.inspect import PIPED_WIDTH, gate_figures  # which reads pictures too: not for --help

    table = Table(
        "component", "parameters", "type", "MB", "compared", "cosine\ndistance", "max-abs", "largest", "seconds", ""
    )
    engines = {engine.component: engine for engine in manifest.engines[::-1] if engine.provider == provider}
    for event in (event for event in progress.done if event.component in manifest.components):
        component, engine = manifest.components[event.component], engines.get(event.component)
        files = (component.onnx, *component.weights) if engine is None else (engine.path, *engine.weights)
        size = sum(manifest.files[name].size for name in files) / 1e6
        table.add_row(
            event.component,
            f"{component.parameters / 1e6:.2f} M",
            component.precision,
            f"{size:.1f}",
            *gate_figures(component, engine),
            f"{event.seconds:.1f}",
            "reused" if event.reason == REUSED else "built",
        )
    console = Console(width=None if sys.stdout.isatty() else PIPED_WIDTH)
    console.print(table)
    for text in _not_compared(manifest, engines, [event.component for event in progress.done]):
        console.print(text, highlight=False, markup=False, soft_wrap=True)
    total = sum(record.size for record in manifest.files.values()) / 1e6
    text = f"{out}: {manifest.family}, {total:.1f} MB, built in {progress.seconds:.1f} s"
    console.print(text, highlight=False, markup=False, soft_wrap=True)


def _not_compared(manifest: Manifest, engines: Mapping[str, EngineRecord], names: Sequence[str]) -> list[str]:
    """A line for each reason why graphs or engines did not pass through the gate."""
    reasons: dict[tuple[str, str], list[str]] = {}
    for name in names:
        for kind, record in (("graph", manifest.components.get(name)), ("engine", engines.get(name))):
            if record is not None and record.not_run:
                reasons.setdefault((kind, record.not_run), []).append(name)
    return [f"{kind} not compared ({', '.join(listed)}): {reason}" for (kind, reason), listed in reasons.items()]
