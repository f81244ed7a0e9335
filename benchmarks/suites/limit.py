"""``limit``: the machine's peaks, and from them the bound of every stage; known before anything else is measured."""

from __future__ import annotations

from collections.abc import Iterator, Sequence

from ..peaks import highest, measure_peaks
from ..plan import Plan
from ..results import Bound, Peaks
from ..roofline import bounds


def measure(plan: Plan) -> Iterator[Peaks | Bound]:
    """Peaks, then the bounds of the headline's call."""
    plan.progress("the machine's peaks")
    peaks = measure_peaks(plan.threads, plan.device, plan.precision)
    yield peaks
    yield from bounds(plan.bundle, plan.workload, peaks)


def measure_again(plan: Plan, before: Sequence[Peaks]) -> Iterator[Peaks | Bound]:
    """Peaks once more, when all else is done, and the bounds if they were too low before: the machine was busy."""
    plan.progress("the machine's peaks, once more")
    peaks = measure_peaks(plan.threads, plan.device, plan.precision)
    yield peaks
    best = highest((*before, peaks))
    if best not in before:
        yield from bounds(plan.bundle, plan.workload, best)


def amount(plan: Plan) -> int:
    """How often both together report progress."""
    return 2
