"""``overhead``: what LatentRT itself costs: time outside the engines, memory that is allocated, waiting for the device.

Memory is traced (``tracemalloc``), which slows the call down, so times and memory come from calls of their own.
"""

from __future__ import annotations

import tracemalloc
from collections.abc import Callable, Iterator, Sequence
from dataclasses import replace
from typing import Any

from ...runtime import Output, load
from ..plan import Plan
from ..results import Overhead
from ..turns import Worker


def measure(plan: Plan, workers: Sequence[Worker]) -> Iterator[Overhead]:
    """Calls in this process, after one that is not counted here because it fills caches."""
    work = plan.workload
    pipe = load(plan.bundle.path, provider=plan.provider, threads=plan.threads, verify=False, embeddings_cache=0)
    with pipe:

        def call(step: Any = None) -> Output:
            return pipe(
                work.prompt,
                width=work.width,
                height=work.height,
                num_inference_steps=work.num_inference_steps,
                guidance_scale=work.guidance_scale,
                seed=work.seed,
                num_images_per_prompt=work.images,
                callback_on_step_end=step,
            )

        call()
        counts = pipe.engines.device.counts
        taken = _bytes_of_steps(call)
        for i in range(plan.runs):
            plan.progress(f"overhead: call {i + 1} of {plan.runs}")
            before = replace(counts)
            timings = call().timings
            yield Overhead(
                i,
                work.num_inference_steps,
                timings.total,
                timings.total - timings.engines,
                taken,
                counts.allocations - before.allocations,
                counts.synchronizations - before.synchronizations,
            )


def amount(plan: Plan) -> int:
    """How often ``measure`` reports progress."""
    return plan.runs


def _bytes_of_steps(call: Callable[[Any], Output]) -> int:
    """The most that any step but the first, which makes what the others reuse, takes on top of what it found."""
    found, taken = 0, []

    def step(pipe: object, index: int, timestep: float, state: object) -> None:
        nonlocal found
        now, peak = tracemalloc.get_traced_memory()
        taken.append(peak - found)
        found = now
        tracemalloc.reset_peak()

    tracemalloc.start()
    try:
        call(step)
    finally:
        tracemalloc.stop()
    return max(taken[1:], default=taken[0])
