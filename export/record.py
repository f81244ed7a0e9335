"""``build.json``: what a build did, on what machine and with what, for a bug report.

It lies in the bundle but is not part of it: the manifest, whose hash names the bundle, says nothing of dates and times.
"""

from __future__ import annotations

import datetime
import os
import platform
import sys
import time
from dataclasses import dataclass, field
from importlib.metadata import PackageNotFoundError, version
from typing import Any

import msgspec

from ..runtime.bundles.manifest import EngineRecord, Manifest
from ..runtime.version import __version__
from .events import BuildEvent, Report
from .machine import gpus, processor_name
from .memory import available_memory, peak_memory, total_memory

#: What takes part in a build, by the names that pip knows. One that is not installed did not.
_PACKAGES = (
    "diffusers", "msgspec", "numpy", "onnx", "onnx-ir", "onnxruntime", "onnxruntime-gpu", "onnxscript", "polygraphy",
    "safetensors", "tensorrt", "tensorrt-rtx", "tokenizers", "torch", "transformers", "triton",
)  # fmt: skip


@dataclass
class ComponentRecord:
    """What happened to one component: why it was built or that it was reused, seconds in all and per stage, the peak
    of the memory and the distinct warnings of what built its engine, and what the previous bundle lost."""

    reason: str = ""
    seconds: float = 0.0
    stages: dict[str, float] = field(default_factory=dict)
    peak_memory: int = 0
    warnings: tuple[str, ...] = ()
    dropped: list[str] = field(default_factory=list)


class BuildRecord:
    """Collects a build's events on their way to ``report``."""

    def __init__(self, options: object, report: Report):
        self._options = options
        self._report = report
        self._begun = datetime.datetime.now(datetime.UTC)
        self._start = self._stage_start = time.perf_counter()
        self._stage: tuple[str, str] | None = None
        self._available_memory = available_memory()
        self._waited = 0.0
        self._components: dict[str, ComponentRecord] = {}

    def event(self, event: BuildEvent) -> None:
        """Take note of an event and pass it on."""
        self._take_time(event)
        if event.component:
            record = self._of(event.component)
            if event.stage == "done":
                record.reason, record.seconds = event.reason, event.seconds
                record.peak_memory, record.warnings = event.peak_memory, tuple(dict.fromkeys(event.warnings))
            elif event.stage == "drop":
                record.dropped.append(event.detail)
        self._report(event)

    def encode(self, manifest: Manifest) -> bytes:
        """The content of ``build.json``, so far; memory in bytes. The figures of the gate are the manifest's."""
        content: dict[str, Any] = {
            "begun": self._begun.isoformat(timespec="seconds"),
            "seconds": time.perf_counter() - self._start,
            "waited": self._waited,
            "command": sys.argv,
            "options": self._options,
            "machine": {
                "system": f"{platform.system()} {platform.release()} {platform.machine()}",
                "processor": processor_name(),
                "processors": len(os.sched_getaffinity(0)),
                "memory": total_memory(),
                "available_memory": self._available_memory,
                "gpus": gpus(),
            },
            "versions": {"latentrt": __version__, "python": platform.python_version(), **_versions()},
            "peak_memory": peak_memory(),
            "components": {
                name: {**msgspec.to_builtins(record), **_comparisons(name, manifest)}
                for name, record in self._components.items()
            },
        }
        return msgspec.json.format(msgspec.json.encode(content, enc_hook=str), indent=1) + b"\n"

    def _of(self, component: str) -> ComponentRecord:
        return self._components.setdefault(component, ComponentRecord())

    def _take_time(self, event: BuildEvent) -> None:
        """The time since the last event belongs to the stage that was entered with it."""
        if event.stage == "drop" or (event.component, event.stage) == self._stage:
            return
        now = time.perf_counter()
        if self._stage is not None:
            component, stage = self._stage
            if component:
                stages = self._of(component).stages
                stages[stage] = stages.get(stage, 0.0) + now - self._stage_start
            elif stage == "wait":
                self._waited += now - self._stage_start
        self._stage_start = now
        self._stage = None if event.stage == "done" else (event.component, event.stage)


def _versions() -> dict[str, str]:
    found = {}
    for name in _PACKAGES:
        try:
            found[name] = version(name)
        except PackageNotFoundError:
            continue
    return found


def _comparisons(component: str, manifest: Manifest) -> dict[str, object]:
    """What the gate found of a component's graph and of each of its engines."""
    record = manifest.components.get(component)
    if record is None:
        return {}
    engines = [_engine(engine) for engine in manifest.engines if engine.component == component]
    return {"graph": {"gate": record.gate, "not_run": record.not_run}, "engines": engines}


def _engine(engine: EngineRecord) -> dict[str, object]:
    return {
        "provider": engine.provider,
        "version": engine.provider_version,
        "targets": engine.targets,
        "gate": engine.gate,
        "not_run": engine.not_run,
    }
