"""``throughput``: pictures a second with 1, 2 and 4 callers, and latency when requests arrive at a fixed rate, whether
or not earlier ones are done. Sides take turns load by load.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence

from ...runtime.errors import RunError
from ..baselines import OURS, REFERENCE
from ..figures import requests_per_second
from ..plan import Plan
from ..results import Failure, LoadRun
from ..turns import Worker, alive, failure
from ..workload import Load

CONCURRENCIES = (1, 2, 4)

#: Fractions of what LatentRT and the reference reach with one caller, at which requests arrive.
UTILIZATION = 0.7

#: Requests that an open loop lasts for, at least: with fewer there is no queue to look at.
_LEAST = 10


def measure(plan: Plan, workers: Sequence[Worker]) -> Iterator[LoadRun | Failure]:
    """Closed loops, then open ones at two rates that are the same for all sides."""
    alone: dict[str, float] = {}
    for concurrency in CONCURRENCIES:
        for worker in alive(workers):
            record = _load(plan, worker, concurrency, None, plan.load_seconds)
            if concurrency == 1 and isinstance(record, LoadRun):
                alone[record.side] = requests_per_second(record)
            yield record
    for rate in rates([alone[name] for name in (OURS, REFERENCE) if name in alone]):
        for worker in alive(workers):
            yield _load(plan, worker, plan.threads, rate, max(plan.load_seconds, _LEAST / rate))


def rates(alone: Sequence[float]) -> list[float]:
    """Arrivals a second, in three digits, for these requests a second with one caller."""
    return sorted({float(f"{UTILIZATION * served:.3g}") for served in alone})


def amount(plan: Plan) -> int:
    """How often ``measure`` reports progress."""
    return len(plan.sides) * (len(CONCURRENCIES) + 2)


def _load(plan: Plan, worker: Worker, concurrency: int, rate: float | None, seconds: float) -> LoadRun | Failure:
    what = f"{concurrency} callers" if rate is None else f"{rate:g} requests a second"
    plan.progress(f"{worker.side.name}: {what} for {seconds:.0f} s")
    try:
        served = worker.load(Load(plan.workload, seconds, concurrency, rate))
    except RunError as error:
        return failure(worker, what, error)
    return LoadRun(worker.side.name, concurrency, rate, served.seconds, served.requests)
