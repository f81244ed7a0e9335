"""``build``: the bundle from its checkpoint, by the command line: into an empty folder, again with nothing changed."""

from __future__ import annotations

import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Literal

import msgspec

from ...runtime.errors import RunError
from ..plan import Plan
from ..results import Build
from ..turns import Worker
from .memory import bytes_of

_KINDS: tuple[Literal["cold", "warm"], ...] = ("cold", "warm")


class _Component(msgspec.Struct):
    seconds: float


class _Built(msgspec.Struct):
    seconds: float
    components: dict[str, _Component]


def measure(plan: Plan, workers: Sequence[Worker]) -> Iterator[Build]:
    """Two builds of the whole bundle with the sizes that it has."""
    manifest = plan.bundle.manifest
    aspects = ",".join(f"{width}x{height}" for width, height in manifest.buckets)
    precision = manifest.components["denoiser"].precision
    with tempfile.TemporaryDirectory() as folder:
        out = Path(folder) / plan.bundle.path.name
        command = [
            sys.executable, "-P", "-m", "latentrt.runtime.cli", "build-engines", str(plan.reference), "--out", str(out),
            "--aspects", aspects, "--precision", precision, "--json",
        ]  # fmt: skip
        for kind in _KINDS:
            plan.progress(f"build: {kind}")
            begun = time.perf_counter()
            text, peak = _watched(command)
            seconds = time.perf_counter() - begun
            built = msgspec.json.decode(text.splitlines()[-1], type=_Built)
            components = {name: component.seconds for name, component in built.components.items()}
            yield Build(kind, seconds, components, peak, bytes_of(out))


def amount(plan: Plan) -> int:
    """How often ``measure`` reports progress."""
    return len(_KINDS)


def _watched(command: list[str]) -> tuple[str, int]:
    """Run a command; what it prints, and the most memory that it had, asked ten times a second. (What the system tells
    after the end would count what this process had when it started the other.)"""
    with tempfile.TemporaryFile("w+") as out, tempfile.TemporaryFile("w+") as errors:
        process = subprocess.Popen(command, stdout=out, stderr=errors, text=True)
        peak = 0
        try:
            while process.poll() is None:
                peak = max(peak, _peak_bytes(process.pid))
                time.sleep(0.1)
        except BaseException:
            process.kill()
            process.wait()
            raise
        out.seek(0), errors.seek(0)
        if process.returncode != 0:
            raise RunError("build-engines failed", received=errors.read()[-2000:].strip())
        return out.read(), peak


def _peak_bytes(pid: int) -> int:
    try:
        status = Path(f"/proc/{pid}/status").read_text(encoding="ascii")
    except OSError:
        return 0
    return next((int(line.split()[1]) * 1024 for line in status.splitlines() if line.startswith("VmHWM:")), 0)
