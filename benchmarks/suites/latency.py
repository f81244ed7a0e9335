"""``latency``: warm calls of all sides in turn, variations of the call, changes of size, cold starts."""

from __future__ import annotations

import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator, Sequence
from pathlib import Path

import msgspec

from ...runtime.errors import RunError
from ..baselines import Installed
from ..plan import Plan
from ..processes import process_group
from ..results import ColdStart, Failure, Phase, Run
from ..turns import PATIENCE_SECONDS, Worker, alive, environment, failure, in_turn, worker_command
from ..workload import Ask, Workload

Record = Run | ColdStart | Failure


def measure(plan: Plan, workers: Sequence[Worker]) -> Iterator[Record]:
    """Everything, the headline's call first."""
    yield from calls(plan, workers, plan.workload, "measured", plan.runs)
    for work in plan.variations:
        yield from calls(plan, workers, work, "first", 1)
        yield from calls(plan, workers, work, "measured", plan.variation_runs, first_round=1)
    if len(plan.sizes) > 1:
        yield from switches(plan, workers)
    yield from cold_starts(plan, workers)


def amount(plan: Plan) -> int:
    """How often ``measure`` reports progress."""
    sides = len(plan.sides)
    calls_of_sides = (
        plan.runs
        + len(plan.variations) * (1 + plan.variation_runs)
        + (2 * len(plan.sizes) if len(plan.sizes) > 1 else 0)
    )
    return sides * (calls_of_sides + plan.cold_runs)


def calls(
    plan: Plan, workers: Sequence[Worker], work: Workload, phase: Phase, rounds: int, *, first_round: int = 0
) -> Iterator[Run | Failure]:
    """The same call of every side, in turn; a side that fails is not asked again."""
    able = list(workers)
    for i, order, worker in in_turn(workers, rounds):
        plan.progress(f"{worker.side.name}: {work.label}, {phase} {i + 1} of {rounds}")
        if worker in able:
            record = run(worker, work, phase, first_round + i, order)
            if isinstance(record, Failure):
                able.remove(worker)
            yield record


def switches(plan: Plan, workers: Sequence[Worker]) -> Iterator[Run | Failure]:
    """Each call of another size than the one before, twice around."""
    for i in range(2):
        for width, height in plan.sizes:
            work = msgspec.structs.replace(plan.workload, width=width, height=height)
            for order, worker in enumerate(alive(workers)):
                plan.progress(f"{worker.side.name}: changing to {width}x{height}")
                yield run(worker, work, "switch", i, order)


def run(worker: Worker, work: Workload, phase: Phase, round_: int, order: int) -> Run | Failure:
    """One call as a record, or that it failed."""
    try:
        done = worker.draw(Ask(work))
    except RunError as error:
        return failure(worker, f"{work.label}, {phase}", error)
    return Run(worker.side.name, work.label, phase, round_, order, done.seconds, done.stages, done.peak_bytes)


def cold_starts(plan: Plan, workers: Sequence[Worker]) -> Iterator[ColdStart | Failure]:
    """A process of every side in turn, from its start to the first picture as a PNG on disk."""
    running = {worker.side.name for worker in alive(workers)}
    sides = [installed for installed in plan.sides if installed.side.name in running]
    with tempfile.TemporaryDirectory() as folder:
        for i in range(plan.cold_runs):
            for order, installed in enumerate(sides[::-1] if i % 2 else sides):
                plan.progress(f"{installed.side.name}: cold start {i + 1} of {plan.cold_runs}")
                out = Path(folder) / f"{installed.side.name}-{i}.png"
                try:
                    yield ColdStart(installed.side.name, i, order, _cold_start(plan, installed, out))
                except RunError as error:
                    yield Failure(installed.side.name, "cold start", str(error))


def _cold_start(plan: Plan, installed: Installed, out: Path) -> float:
    work = msgspec.structs.replace(plan.workload, images=1)
    start = msgspec.structs.replace(plan.start_of(installed), workload=work)
    command = worker_command(installed, start, str(out))
    if installed.side.reads == "bundle":  # LatentRT as its users start it
        command = [
            sys.executable, "-P", "-m", "latentrt.runtime.cli.main", "generate", start.source, work.prompt,
            "-o", str(out), "--size", f"{work.width}x{work.height}", "--steps", str(work.num_inference_steps),
            "--guidance-scale", str(work.guidance_scale), "--seed", str(work.seed), "--threads", str(plan.threads),
            *(part for name, value in start.options.items() for part in (f"--{name.replace('_', '-')}", value)),
        ]  # fmt: skip
    pipes, variables = subprocess.PIPE, environment(plan.threads, installed)
    begun = time.perf_counter()
    with process_group(command, stdout=pipes, stderr=pipes, env=variables) as process:
        try:
            _, errors = process.communicate(timeout=PATIENCE_SECONDS)
        except subprocess.TimeoutExpired:
            raise RunError(f"{installed.side.name}: its cold start does not end") from None
    seconds = time.perf_counter() - begun
    if process.returncode != 0 or not out.exists():
        raise RunError(f"{installed.side.name}: its cold start failed", received=errors[-2000:].strip())
    return seconds
