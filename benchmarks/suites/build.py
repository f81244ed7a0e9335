"""``build``: the bundle from its checkpoint, by the command line: into an empty folder, again with nothing changed."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Literal

import msgspec

from ...export.record import RECORD_NAME
from ...runtime.errors import RunError
from ..plan import Plan
from ..results import Build
from ..turns import Worker
from .memory import bytes_of

_KINDS: tuple[Literal["cold", "warm"], ...] = ("cold", "warm")


class _Component(msgspec.Struct):
    seconds: float
    stages: dict[str, float]
    peak_memory: int


class _Record(msgspec.Struct):
    """What is asked of ``build.json``: of each component, and of the process that compiles its engine."""

    components: dict[str, _Component]


def measure(plan: Plan, workers: Sequence[Worker]) -> Iterator[Build]:
    """Two builds of the whole bundle, for the provider, the sizes and the GPUs that it has engines for."""
    manifest = plan.bundle.manifest
    aspects = ",".join(f"{width}x{height}" for width, height in manifest.buckets)
    precision = manifest.components["denoiser"].precision
    targets = plan.bundle.engines(plan.provider)["denoiser"].targets
    for_targets = ("--target-sm", ",".join(target.removeprefix("sm") for target in targets)) if targets else ()
    with tempfile.TemporaryDirectory() as folder:
        out = Path(folder) / plan.bundle.path.name
        command = [
            sys.executable, "-P", "-m", "latentrt.runtime.cli.main", "build-engines", str(plan.reference),
            "--out", str(out), "--aspects", aspects, "--precision", precision, "--provider", plan.provider,
            *for_targets, "--json",
        ]  # fmt: skip
        for kind in _KINDS:
            plan.progress(f"build: {kind}")
            begun = time.perf_counter()
            peak = _watched(command)
            seconds = time.perf_counter() - begun
            built = msgspec.json.decode((out / RECORD_NAME).read_bytes(), type=_Record).components
            built.pop("", None)  # what belongs to no component
            components = {name: component.seconds for name, component in built.items()}
            stages: dict[str, float] = {}
            for component in built.values():
                peak = max(peak, component.peak_memory)
                for stage, taken in component.stages.items():
                    stages[stage] = stages.get(stage, 0.0) + taken
            yield Build(kind, seconds, components, peak, bytes_of(out), stages)


def amount(plan: Plan) -> int:
    """How often ``measure`` reports progress."""
    return len(_KINDS)


def _watched(command: list[str]) -> int:
    """Run a command; the most memory that it had, asked ten times a second. (What the system tells after the end would
    count what this process had when it started the other.)"""
    with tempfile.TemporaryFile("w+") as errors:
        process = subprocess.Popen(command, stdout=errors, stderr=errors, start_new_session=True)
        peak = 0
        try:
            while process.poll() is None:
                peak = max(peak, _peak_bytes(process.pid))
                time.sleep(0.1)
        except BaseException:
            os.killpg(process.pid, signal.SIGKILL)  # and what it has started
            process.wait()
            raise
        errors.seek(0)
        if process.returncode != 0:
            raise RunError("build-engines failed", received=errors.read()[-2000:].strip())
        return peak


def _peak_bytes(pid: int) -> int:
    try:
        status = Path(f"/proc/{pid}/status").read_text(encoding="ascii")
    except OSError:
        return 0
    return next((int(line.split()[1]) * 1024 for line in status.splitlines() if line.startswith("VmHWM:")), 0)
