"""Models in full size on a GPU: engines for every provider that can be built here, beside diffusers eager and compiled.

Nothing is downloaded. What is made on the way, checkpoints and bundles of many gigabytes, is kept in a folder of its
own and found there again.
"""

from __future__ import annotations

import subprocess
import sys
import tempfile
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

from ..export.bundle_from_checkpoint import BuildOptions, bundle_from_checkpoint
from ..export.events import BuildEvent
from ..export.profiles import Batch
from ..runtime.errors import EngineError
from ..runtime.providers import PROVIDERS
from .baselines import REFERENCE, Missing, provider_side
from .plan import device_of
from .prepare import PROMPTS, Prepared, Wishes, prepare
from .published import Published
from .synthetic import synthetic_checkpoint

#: The bundles' precision, and that of the eager reference.
PRECISION = "fp16"

#: What is measured; the compiled side's first call takes minutes, so it is not started more often than it must.
SUITES = ("memory", "latency", "overhead", "quality", "kernels")


@dataclass(frozen=True)
class GpuWishes:
    """How much is measured. Without ``providers``, every one that is for GPUs. ``sides`` are measured beside LatentRT
    and eager diffusers, which always are. An interval of p95 takes some sixty ``runs``, p95 itself twenty."""

    providers: tuple[str, ...] = ()
    sides: tuple[str, ...] = ("diffusers-compile",)
    runs: int = 20
    warm_up: int = 3
    cold_runs: int = 1


def prepare_model(model: Published, work: Path, wishes: GpuWishes, progress: Callable[[str], None]) -> Prepared:
    """Make the checkpoint and the bundle, unless they are there, and a plan of what is measured.

    Providers whose engines cannot be built or do not run here are among the plan's missing sides, with the reason.

    Raises:
        LatentRTError: the graphs cannot be exported, or no provider runs here.
    """
    checkpoint, bundle = work / f"{model.name}-checkpoint", work / model.name
    work.mkdir(parents=True, exist_ok=True)
    synthetic_checkpoint(model, checkpoint, progress)

    def report(event: BuildEvent) -> None:
        progress(f"{model.title}: {event.component} {event.stage}".rstrip())

    options = BuildOptions(
        precision=PRECISION, aspects=f"{model.side}x{model.side}", batch=Batch(1, 1, 1), onnx_only=True
    )
    bundle_from_checkpoint(checkpoint, bundle, options, report)
    missing = []
    running = []
    for name in wishes.providers or gpu_providers():
        progress(f"{model.title}: engines of {name}")
        reason = _cannot_build(bundle, name) or cannot_run(bundle, name, model)
        if reason:
            missing.append(Missing(provider_side(name), reason))
        else:
            running.append(name)
    if not running:
        told = "; ".join(f"{one.side.title}: {one.reason}" for one in missing)
        raise EngineError(f"{model.title}: no provider runs here", received=told)
    prepared = prepare(
        bundle,
        checkpoint,
        Wishes(
            suites=SUITES,
            sides=wishes.sides or (REFERENCE,),  # none named would be all
            prompts=PROMPTS[:1],
            sizes=((model.side, model.side),),
            steps=(model.steps,),
            guidance=(model.guidance_scale,),
            runs=wishes.runs,
            warm_up=wishes.warm_up,
            cold_runs=wishes.cold_runs,
            cache=work / "cache",
            provider=running[0],
            other_providers=tuple(running[1:]),
        ),
        progress,
    )
    return prepared.without(missing)


def gpu_providers() -> tuple[str, ...]:
    """The providers that run on GPUs."""
    return tuple(name for name in PROVIDERS if device_of(name) == "cuda")


def _cannot_build(bundle: Path, provider: str) -> str:
    """Build a provider's engines into the bundle; why that cannot be done, or nothing."""
    return _failure("engines cannot be built", "build-engines", str(bundle), "--provider", provider)


def cannot_run(bundle: Path, provider: str, model: Published) -> str:
    """Why a provider cannot draw with a bundle's engines, or nothing: found out by doing it."""
    with tempfile.TemporaryDirectory() as folder:
        size = f"{model.side}x{model.side}"
        return _failure(
            "does not run", "generate", str(bundle), PROMPTS[0], "-o", f"{folder}/picture.png",
            "--provider", provider, "--size", size, "--steps", "1",
        )  # fmt: skip


def _failure(what: str, *command: str) -> str:
    """Why a command of LatentRT's failed, or nothing: in a process of its own, so that a library that crashes ends only
    that.
    """
    done = subprocess.run(
        [sys.executable, "-P", "-m", "latentrt.runtime.cli.main", *command], capture_output=True, text=True, check=False
    )
    if done.returncode == 0:
        return ""
    return f"{what}: {done.stderr.strip()[-1000:] or f'ended with status {done.returncode}'}"
