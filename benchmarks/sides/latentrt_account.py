"""What a call of LatentRT's takes outside of its engines: time, memory, waiting for the device."""

from __future__ import annotations

import tracemalloc
from collections.abc import Callable
from dataclasses import replace

from ...runtime import Output, Pipeline
from ...runtime.timing import Timings
from ..workload import Account, Accounted


def account(pipe: Pipeline, call: Callable[..., Output], ask: Account) -> Accounted:
    """One call, which takes the pipeline's ``callback_on_step_end`` where memory is traced."""
    counts = pipe.engines.device.counts
    before = replace(counts)
    step_bytes = 0
    if ask.traced:
        timings, step_bytes = _traced(call, ask)
    else:
        timings = call(ask.workload).timings
    return Accounted(
        timings.total,
        timings.total - timings.engines,
        counts.allocations - before.allocations,
        counts.synchronizations - before.synchronizations,
        step_bytes,
    )


def _traced(call: Callable[..., Output], ask: Account) -> tuple[Timings, int]:
    """Timings, and the most that any step but the first, which makes what the others reuse, takes on top of what it
    found."""
    found, taken = 0, []

    def step(pipe: object, index: int, timestep: float, state: object) -> None:
        nonlocal found
        now, peak = tracemalloc.get_traced_memory()
        taken.append(peak - found)
        found = now
        tracemalloc.reset_peak()

    tracemalloc.start()
    try:
        output = call(ask.workload, callback_on_step_end=step)
    finally:
        tracemalloc.stop()
    return output.timings, max(taken[1:], default=taken[0])
