"""``build.json``: what a build did, on what machine and with what, for a bug report.

It lies in the bundle but is not part of it: the manifest, whose hash names the bundle, says nothing of dates and times.
"""

from __future__ import annotations

import datetime
import platform
import sys
import time
from dataclasses import dataclass, field
from typing import Any

import msgspec

from .events import BuildEvent, Report
from .tensorrt.resources import peak_memory

RECORD_NAME = "build.json"


@dataclass
class ComponentRecord:
    """What happened to one component: seconds per stage, why, and what the builder of its engine said."""

    reason: str = ""
    seconds: float = 0.0
    stages: dict[str, float] = field(default_factory=dict)
    peak_memory: int = 0
    warnings: tuple[str, ...] = ()


class BuildRecord:
    """Collects a build's events on their way to ``report``."""

    def __init__(self, options: object, report: Report):
        self._options = options
        self._report = report
        self._begun = datetime.datetime.now(datetime.UTC)
        self._start = self._stage_start = time.perf_counter()
        self._stage: tuple[str, str] | None = None
        self.components: dict[str, ComponentRecord] = {}

    def event(self, event: BuildEvent) -> None:
        """Take note of an event and pass it on."""
        now = time.perf_counter()
        if (event.component, event.stage) != self._stage:
            if self._stage is not None:
                component, stage = self._stage
                stages = self.components.setdefault(component, ComponentRecord()).stages
                stages[stage] = stages.get(stage, 0.0) + now - self._stage_start
            self._stage_start = now
            self._stage = None if event.stage == "done" else (event.component, event.stage)
        if event.stage == "done":
            record = self.components.setdefault(event.component, ComponentRecord())
            record.reason, record.seconds = event.reason, event.seconds
            record.peak_memory, record.warnings = event.peak_memory, event.warnings
        self._report(event)

    def encode(self, versions: dict[str, str]) -> bytes:
        """The content of ``build.json``, so far; memory in bytes."""
        content: dict[str, Any] = {
            "begun": self._begun.isoformat(timespec="seconds"),
            "seconds": time.perf_counter() - self._start,
            "command": sys.argv,
            "options": self._options,
            "system": f"{platform.system()} {platform.release()} {platform.machine()}",
            "python": platform.python_version(),
            "versions": versions,
            "peak_memory": peak_memory(),
            "components": self.components,
        }
        return msgspec.json.format(msgspec.json.encode(content, enc_hook=str), indent=1) + b"\n"
