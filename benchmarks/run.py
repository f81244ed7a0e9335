"""A whole run: sides started, suites measured one after another, whatever was measured kept when it is interrupted."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from contextlib import ExitStack
from dataclasses import dataclass

from ..runtime.errors import RunError
from .baselines import OURS, REFERENCE, Installed, Missing
from .plan import Plan
from .results import Absent, Loaded, Present, Record
from .suites import build, latency, limit, memory, overhead, quality, throughput
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
    "installation": Suite(memory.measure_installation, memory.amount_of_installation),
}

#: What is measured if nothing is asked for.
SHORT = ("memory", "latency", "overhead", "quality")


class Recorder:
    """Keeps records as they come, so that they are there whatever happens."""

    def __init__(self) -> None:
        self.records: list[Record] = []

    def extend(self, records: Iterator[Record], seen: Callable[[Record], None]) -> None:
        """Keep and show each record."""
        for record in records:
            self.records.append(record)
            seen(record)


def measure(
    plan: Plan,
    suites: Sequence[str],
    missing: Sequence[Missing],
    recorder: Recorder,
    seen: Callable[[Record], None] = lambda record: None,
) -> str | None:
    """Run the suites into ``recorder``; returns None, or what was going on when it was interrupted.

    Raises:
        RunError: LatentRT or the reference failed; a baseline that fails becomes absent instead.
    """
    now = "starting"
    try:
        recorder.extend((Absent(m.side.name, m.side.title, m.reason) for m in missing), seen)
        recorder.extend(limit.measure(plan), seen)
        with ExitStack() as stack:
            now = "loading"
            workers: list[Worker] = []
            for installed in plan.sides:
                recorder.extend(_load(plan, installed, workers, stack), seen)
            now = "warming up"
            recorder.extend(_warm_up(plan, workers), seen)
            for name in SUITES:
                if name in suites:
                    now = name
                    recorder.extend(SUITES[name].measure(plan, workers), seen)
    except (KeyboardInterrupt, SystemExit):  # Ctrl-C, or the command line's answer to a request to end
        return now
    return None


def amount(plan: Plan, suites: Sequence[str]) -> int:
    """How often ``measure`` reports progress, if no side fails."""
    before = limit.amount(plan) + len(plan.sides) * (2 + plan.warm_up)
    return before + sum(SUITES[name].amount(plan) for name in suites)


def _load(
    plan: Plan, installed: Installed, workers: list[Worker], stack: ExitStack
) -> Iterator[Present | Loaded | Absent]:
    side = installed.side
    plan.progress(f"{side.name}: loading")
    try:
        worker = stack.enter_context(Worker(installed, plan.start_of(installed)))
    except RunError as error:
        if side.name in (OURS, REFERENCE):
            raise
        yield Absent(side.name, side.title, str(error))
        return
    ready = worker.ready
    workers.append(worker)
    yield Present(side.name, side.title, ready.versions, ready.settings)
    yield Loaded(side.name, ready.seconds, ready.preparing_seconds, ready.resident_bytes)


def _warm_up(plan: Plan, workers: Sequence[Worker]) -> Iterator[latency.Record]:
    """Each side's first call, and some more: recorded, but not among the measured ones."""
    yield from latency.calls(plan, workers, plan.workload, "first", 1)
    yield from latency.calls(plan, workers, plan.workload, "warm-up", plan.warm_up, first_round=1)
