"""``build``: the bundle from its checkpoint, by the command line: into an empty folder, again with nothing changed."""

from __future__ import annotations

import sys
import tempfile
import time
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Literal

import msgspec

from ...export.store import RECORD_NAME
from ...runtime.bundles.bundle import open_bundle
from ...runtime.bundles.manifest import Manifest
from ...runtime.errors import RunError
from ..host_memory import memory, memory_of_session
from ..plan import Plan
from ..processes import process_group
from ..results import Build
from ..turns import Worker
from .memory import bytes_of

_KINDS: tuple[Literal["cold", "warm"], ...] = ("cold", "warm")

#: Seconds between two questions for the memory of a build.
_PERIOD = 0.1


class _Component(msgspec.Struct):
    seconds: float
    stages: dict[str, float]
    peak_memory: int


class _Options(msgspec.Struct):
    """Of the options of a build, those that its manifest does not tell."""

    parts: dict[str, str] = {}
    prediction_type: str | None = None
    skip_layers: tuple[int, ...] | None = None


class _Record(msgspec.Struct):
    """What is asked of ``build.json``: the options, and of each component what its building took."""

    options: _Options = msgspec.field(default_factory=_Options)
    components: dict[str, _Component] = {}


def measure(plan: Plan, workers: Sequence[Worker]) -> Iterator[Build]:
    """Two builds of the whole bundle, for the provider, the sizes and the GPUs that it has engines for.

    Raises:
        RunError: a build failed, or its outcome is not like the bundle that is measured.
    """
    with tempfile.TemporaryDirectory() as folder:
        out = Path(folder) / plan.bundle.path.name
        command = _command(plan, out)
        for kind in _KINDS:
            plan.progress(f"build: {kind}")
            begun = time.perf_counter()
            peak = _watched(command)
            seconds = time.perf_counter() - begun
            _check_alike(plan.bundle.manifest, open_bundle(out, verify=False).manifest)
            built = _record(out).components
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


def _command(plan: Plan, out: Path) -> list[str]:
    """What builds a bundle like the plan's."""
    manifest = plan.bundle.manifest
    denoiser, engine = manifest.components["denoiser"], plan.bundle.engines(plan.provider)["denoiser"]
    rows = denoiser.profile["rows"]  # of the largest batch, and of the usual one, two for each picture
    given = _record(plan.bundle.path).options
    options = {
        "aspects": ",".join(f"{width}x{height}" for width, height in manifest.buckets),
        "batch": f"{rows.min}:{rows.opt // 2}:{rows.max // 2}",
        "precision": denoiser.precision,
        "provider": plan.provider,
        "profiles": "buckets" if len(engine.profiles) > 1 else "span",
        "target-sm": ",".join(target.removeprefix("sm") for target in engine.targets) or None,
        "prediction-type": given.prediction_type,
        "skip-layers": None if given.skip_layers is None else ",".join(map(str, given.skip_layers)) or "none",
        **{name.replace("_", "-"): path for name, path in given.parts.items()},
    }
    return [
        sys.executable, "-P", "-m", "latentrt.runtime.cli.main", "build-engines", str(plan.reference), "--out",
        str(out), "--json", *(["--version-compatible"] if engine.version_compatible else []),
        *(part for name, value in options.items() if value is not None for part in (f"--{name}", value)),
    ]  # fmt: skip


def _record(bundle: Path) -> _Record:
    """A bundle's ``build.json``; an empty one where a bundle came without it."""
    path = bundle / RECORD_NAME
    return msgspec.json.decode(path.read_bytes(), type=_Record) if path.exists() else _Record()


def _check_alike(measured: Manifest, built: Manifest) -> None:
    expected, received = (
        {name: (component.precision, component.profile) for name, component in manifest.components.items()}
        for manifest in (measured, built)
    )
    if expected != received:
        names = sorted(name for name in expected | received if expected.get(name) != received.get(name))
        raise RunError("build-engines made another bundle than the one that is measured", received=", ".join(names))


def _watched(command: list[str]) -> int:
    """Run a command; the most memory that it and what it has started had together, asked ten times a second. (What the
    system tells after the end would count what this process had when it started the other.)"""
    with tempfile.TemporaryFile("w+") as errors, process_group(command, stdout=errors, stderr=errors) as process:
        peak = 0
        while process.poll() is None:
            own = memory("VmHWM", Path(f"/proc/{process.pid}"))
            peak = max(peak, own, memory_of_session(process.pid))
            time.sleep(_PERIOD)
        errors.seek(0)
        if process.returncode != 0:
            raise RunError("build-engines failed", received=errors.read()[-2000:].strip())
        return peak
