"""``kernels``: where a GPU's time goes: one step of every side by its kernels; LatentRT's own kernels and operations
that providers could be slow at, each alone.
"""

from __future__ import annotations

import subprocess
import sys
from collections.abc import Iterator, Sequence

import msgspec

from ...runtime.errors import RunError
from ...runtime.providers import PROVIDERS
from ..plan import Plan
from ..results import Failure
from ..results_kernels import Operated, StepKernels
from ..turns import Worker, alive, environment, failure
from ..workload import OperationsTask, Profile

Record = StepKernels | Operated | Failure

#: Kernels of a step that are named; the others are counted.
_NAMED = 40

#: Pictures at once with which LatentRT's kernels move more than any GPU's cache holds.
_MANY = 256


def measure(plan: Plan, workers: Sequence[Worker]) -> Iterator[Record]:
    """Every side's step, then the operations. On a processor there is nothing to see."""
    if plan.device == "cpu":
        return
    for worker in alive(workers):
        plan.progress(f"{worker.side.name}: one step by its kernels")
        try:
            found = worker.profile(Profile(plan.workload))
        except RunError as error:
            yield failure(worker, "one step by its kernels", error)
            continue
        busy = sum(kernel.seconds for kernel in found.kernels)
        named, others = found.kernels[:_NAMED], len(found.kernels[_NAMED:])
        yield StepKernels(worker.side.name, plan.workload.label, found.seconds, busy, named, others)
    plan.progress("single operations")
    yield from operations(task_of(plan), plan.threads)


def amount(plan: Plan) -> int:
    """How often ``measure`` reports progress."""
    return 0 if plan.device == "cpu" else len(plan.sides) + 1


def task_of(plan: Plan) -> OperationsTask:
    """Operations at the size of the plan's call, by every provider that takes part."""
    space, work = plan.bundle.manifest.latent_space, plan.workload
    ours = {
        side.options.get("provider", plan.provider)
        for side in (one.side for one in plan.sides)
        if side.reads == "bundle"
    }
    providers = tuple(name for name in PROVIDERS if name in ours)
    height, width = work.height // space.scale, work.width // space.scale
    family = plan.bundle.manifest.family
    return OperationsTask(plan.device, family, space.channels, height, width, _MANY, providers)


def operations(task: OperationsTask, threads: int) -> Iterator[Operated | Failure]:
    """Each of them, in a process of their own.

    Raises:
        RunError: it ended before its time; what it measured until then has been given.
    """
    command = [sys.executable, "-P", "-m", "latentrt.benchmarks.operations", msgspec.json.encode(task).decode()]
    done = subprocess.run(command, capture_output=True, text=True, env=environment(threads), check=False)
    for line in done.stdout.splitlines():
        yield msgspec.json.decode(line, type=Operated | Failure)
    if done.returncode != 0:
        raise RunError("single operations", received=done.stderr.strip()[-2000:])
