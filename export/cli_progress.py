"""A build on the terminal: what is being done, and what came of it."""

from __future__ import annotations

import sys
import time
from pathlib import Path

from rich.console import Console
from rich.table import Table

from ..runtime.cli_inspect import PIPED_WIDTH, gate_figures
from ..runtime.manifest import Manifest
from .events import REUSED, BuildEvent


class BuildProgress:
    """What is being done, as a spinner on a terminal and as lines elsewhere; ``done`` has what came to an end."""

    def __init__(self, quiet: bool):
        self._console = Console(stderr=True, quiet=quiet)
        self._status = self._console.status("starting")
        self._start = time.perf_counter()
        self._warned: set[str] = set()
        self.seconds = 0.0
        self.done: list[BuildEvent] = []

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
            self._print(f"{event.component}: {event.reason}, {event.seconds:.1f} s{memory}")
            for warning in event.warnings:
                if warning not in self._warned:  # each component repeats those of the parser
                    self._warned.add(warning)
                    self._print(f"  {warning}")
        else:
            share = "" if event.fraction is None else f" {event.fraction:.0%}"
            self._status.update(f"{event.component}: {event.stage} {event.detail}{share}")

    def report(self, out: Path, manifest: Manifest) -> dict[str, object]:
        """The same for machines."""
        done = {event.component: {"seconds": event.seconds, "why": event.reason} for event in self.done}
        return {"bundle": str(out), "seconds": self.seconds, "components": done, "files": manifest.files}

    def _print(self, text: str) -> None:
        self._console.print(text, highlight=False, markup=False, soft_wrap=True)


def summary(out: Path, manifest: Manifest, progress: BuildProgress) -> None:
    """A table of the bundle's components."""
    table = Table(
        "component", "parameters", "type", "MB", "compared", "cosine\ndistance", "max-abs", "largest", "seconds", ""
    )
    engines = {engine.component: engine for engine in manifest.engines}
    for event in progress.done:
        component, engine = manifest.components[event.component], engines.get(event.component)
        size = sum(manifest.files[name].size for name in (component.onnx, *component.weights)) / 1e6
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
    total = sum(record.size for record in manifest.files.values()) / 1e6
    text = f"{out}: {manifest.family}, {total:.1f} MB, built in {progress.seconds:.1f} s"
    console.print(text, highlight=False, markup=False, soft_wrap=True)
