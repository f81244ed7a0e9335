"""What a run measures: the bundle, the reference, the sides, the calls."""

from __future__ import annotations

import hashlib
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import msgspec

from ..runtime.bundles.bundle import Bundle
from ..runtime.providers import PROVIDERS
from .baselines import Device, Installed, Side, environment_file
from .workload import Start, Workload


@dataclass(frozen=True)
class Plan:
    """``workload`` is the call that the headline is about; ``variations`` differ from it in one thing each, and
    ``sizes`` are those that a service would switch between. Runs are per side and call; ``progress`` is told what is
    going on, once for every thing measured. ``provider`` is LatentRT's; ``reference_hash`` names the reference's
    weights in the cache of other programs' exports; ``judge`` is a folder with a ``retrieval.py`` that says what a
    picture shows."""

    bundle: Bundle
    provider: str
    reference: Path
    reference_hash: str
    sides: tuple[Installed, ...]
    workload: Workload
    variations: tuple[Workload, ...]
    sizes: tuple[tuple[int, int], ...]
    threads: int
    runs: int
    warm_up: int
    variation_runs: int
    cold_runs: int
    load_seconds: float
    prompts: tuple[str, ...]
    cache: Path
    progress: Callable[[str], None] = lambda text: None
    judge: Path | None = None

    @property
    def device(self) -> Device:
        """What all sides run on."""
        return device_of(self.provider)

    @property
    def precision(self) -> str:
        """What the reference computes in: fp32 on a processor, on a GPU the precision of the bundle's denoiser."""
        return "fp32" if self.device == "cpu" else self.bundle.manifest.components["denoiser"].precision

    def start_of(self, installed: Installed) -> Start:
        """What a side is started with."""
        side = installed.side
        ours = side.reads == "bundle"
        source = side.source or str(self.bundle.path if ours else self.reference)
        cache = self.cache / "exported" / f"{_exporter(side)}-{self.reference_hash[:12]}"
        given = {"provider": self.provider} if ours else {"device": self.device, "precision": self.precision}
        return Start(source, self.threads, self.workload, str(cache), given | dict(side.options))


def _exporter(side: Side) -> str:
    """What an export is made by: sides of one environment share it, and lose it when the environment changes."""
    if side.environment is None:
        return side.name
    return f"{side.environment}-{hashlib.sha256(environment_file(side.environment).read_bytes()).hexdigest()[:8]}"


def device_of(provider: str) -> Device:
    """What a provider's engines run on."""
    return "cuda" if PROVIDERS[provider].needs_gpu else "cpu"


def variations_of(
    work: Workload, sizes: tuple[tuple[int, int], ...], steps: tuple[int, ...], guidance: tuple[float, ...],
    images: tuple[int, ...],
) -> tuple[Workload, ...]:  # fmt: skip
    """Calls that differ from the first in one thing, each once."""
    replace = msgspec.structs.replace
    calls = [
        *(replace(work, width=width, height=height) for width, height in sizes),
        *(replace(work, num_inference_steps=count) for count in steps),
        *(replace(work, guidance_scale=scale) for scale in guidance),
        *(replace(work, images=count) for count in images),
    ]
    return tuple(call for i, call in enumerate(calls) if call != work and call not in calls[:i])
