"""A whole run: sides started, suites measured one after another."""

from __future__ import annotations

import signal
from collections.abc import Callable, Iterator, Sequence
from contextlib import ExitStack
from dataclasses import dataclass

from ..runtime.errors import RunError
from .baselines import OURS, REFERENCE, Missing
from .plan import Plan
from .recorder import Recorder
from .results import Absent, Failure, Loaded, Peaks, Present, Record
from .suites import build, installation, kernels, latency, limit, memory, overhead, quality, throughput
from .turns import Worker


@dataclass(frozen=True)
class Suite:
    """What it measures, given the loaded sides, and how often it will report progress."""

    measure: Callable[[Plan, Sequence[Worker]], Iterator[Record]]
    amount: Callable[[Plan], int]


#: In the order they run: memory first, before larger requests have left their mark.
SUITES: dict[str, Suite] = {
    "memory": Suite(memory.measure, memory.amount),
    "latency": Suite(latency.measure, latency.amount),
    "overhead": Suite(overhead.measure, overhead.amount),
    "quality": Suite(quality.measure, quality.amount),
    "recognition": Suite(quality.recognition, quality.amount_of_recognition),
    "throughput": Suite(throughput.measure, throughput.amount),
    "build": Suite(build.measure, build.amount),
    "installation": Suite(installation.measure, installation.amount),
    "kernels": Suite(kernels.measure, kernels.amount),
}

#: What is measured if nothing is asked for.
SHORT = ("memory", "latency", "overhead", "quality")


@dataclass(frozen=True)
class Stopped:
    """A run that did not come to its end: what was going on, and the exit status that tells why."""

    during: str
    status: int


def measure(plan: Plan, suites: Sequence[str], missing: Sequence[Missing], recorder: Recorder) -> Stopped | None:
    """Run the suites into ``recorder``, whatever fails on the way; returns None if all of them have had their turn.

    Without LatentRT or the reference there is nothing to compare: if one of them cannot be loaded, the run stops.
    """
    try:
        recorder.extend("starting", [Absent(m.side.name, m.side.title, m.reason) for m in missing])
        recorder.extend("limit", limit.measure(plan))
        with ExitStack() as stack:
            workers: list[Worker] = []
            recorder.extend("loading", _load(plan, workers, stack))
            if {OURS, REFERENCE} - {worker.side.name for worker in workers}:
                return Stopped("loading", 1)
            recorder.extend("warming up", _warm_up(plan, workers))
            for name in SUITES:
                if name in suites:
                    recorder.extend(name, SUITES[name].measure(plan, workers))
        before = [record for record in recorder.records if isinstance(record, Peaks)]
        recorder.extend("limit, once more", limit.measure_again(plan, before))
    except KeyboardInterrupt:
        return Stopped(recorder.during, 128 + signal.SIGINT)
    except SystemExit as status:  # the command line's answer to a request to end
        return Stopped(recorder.during, int(status.code or 1))
    return None


def amount(plan: Plan, suites: Sequence[str]) -> int:
    """How often ``measure`` reports progress, if no side fails."""
    before = limit.amount(plan) + len(plan.sides) * (2 + plan.warm_up)
    return before + sum(SUITES[name].amount(plan) for name in suites)


def _load(plan: Plan, workers: list[Worker], stack: ExitStack) -> Iterator[Record]:
    """Every side's process, into ``workers``."""
    for installed in plan.sides:
        side = installed.side
        plan.progress(f"{side.name}: loading")
        try:
            worker = stack.enter_context(Worker(installed, plan.start_of(installed)))
        except RunError as error:
            yield Absent(side.name, side.title, "could not be loaded")
            yield Failure(side.name, "loading", str(error))
            continue
        ready = worker.ready
        workers.append(worker)
        yield Present(side.name, side.title, ready.versions, ready.settings)
        yield Loaded(side.name, ready.seconds, ready.preparing_seconds, ready.resident_bytes)


def _warm_up(plan: Plan, workers: Sequence[Worker]) -> Iterator[latency.Record]:
    """Each side's first call, and some more: recorded, but not among the measured ones."""
    yield from latency.calls(plan, workers, plan.workload, "first", 1)
    yield from latency.calls(plan, workers, plan.workload, "warm-up", plan.warm_up, first_round=1)
