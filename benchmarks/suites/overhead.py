"""``overhead``: what LatentRT itself costs: time outside the engines, memory that is allocated, waiting for the device.

Tracing memory slows the call down, so times and memory come from calls of their own.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence

from ...runtime.errors import RunError
from ..baselines import OURS
from ..plan import Plan
from ..results import Failure, Overhead
from ..turns import Worker, alive, failure
from ..workload import Account, Ask


def measure(plan: Plan, workers: Sequence[Worker]) -> Iterator[Overhead | Failure]:
    """Calls of LatentRT's process, after one that is not counted here because other calls came before it."""
    for worker in alive(workers):
        if worker.side.name == OURS:
            try:
                yield from _calls(plan, worker)
            except RunError as error:
                yield failure(worker, "overhead", error)


def amount(plan: Plan) -> int:
    """How often ``measure`` reports progress."""
    return plan.runs


def _calls(plan: Plan, worker: Worker) -> Iterator[Overhead]:
    work = plan.workload
    worker.draw(Ask(work))
    step_bytes = worker.account(Account(work, traced=True)).step_bytes
    for i in range(plan.runs):
        plan.progress(f"overhead: call {i + 1} of {plan.runs}")
        taken = worker.account(Account(work))
        yield Overhead(
            i,
            work.num_inference_steps,
            taken.seconds,
            taken.outside_engines_seconds,
            step_bytes,
            taken.allocations,
            taken.synchronizations,
        )
