"""``limit``: the machine's peaks, and from them the bound of every stage; known before anything else is measured."""

from __future__ import annotations

from collections.abc import Iterator

from ..peaks import measure_peaks
from ..plan import Plan
from ..results import Bound, Peaks
from ..roofline import bounds


def measure(plan: Plan) -> Iterator[Peaks | Bound]:
    """Peaks, then the bounds of the headline's call."""
    plan.progress("the machine's peaks")
    peaks = measure_peaks(plan.threads, plan.device, plan.precision)
    yield peaks
    yield from bounds(plan.bundle, plan.workload, peaks)


def amount(plan: Plan) -> int:
    """How often ``measure`` reports progress."""
    return 1
