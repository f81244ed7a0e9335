"""Tables of a report: a GPU's time by kernel."""

from __future__ import annotations

from .figures import peaks, title
from .results import Results
from .results_kernels import Operated, StepKernels
from .table import Table

#: Kernels of each side that a report shows; the results have more.
_SHOWN = 12


def step_kernels(results: Results) -> Table:
    """One denoising step of every side, by its longest kernels."""
    rows = []
    for step in results.of(StepKernels):
        name = title(results, step.side)
        idle = max(0.0, step.seconds - step.busy_seconds)
        told = [(kernel.name, f"{kernel.calls:g}", kernel.seconds) for kernel in step.kernels[:_SHOWN]]
        for what, calls, seconds in (*told, ("between kernels", "", idle), ("all of it", "", step.seconds)):
            share = f"{seconds / step.seconds:.1%}" if step.seconds else ""
            rows.append((name, what, calls, f"{seconds * 1e6:.1f}", share))
            name = ""
    note = "By CUPTI, which slows launches down; of two calls, what the one with more steps has more of."
    return Table("One step by kernel", ("", "kernel", "calls", "us", "of the step"), tuple(rows), note)


def operations(results: Results) -> Table:
    """Single operations: what they move a second, and how much of what copying does that is."""
    best = peaks(results)
    rows = []
    for one in results.of(Operated):
        moved = one.bytes / one.seconds
        share = "" if best is None else f"{moved / best.copy:.0%}"
        rows.append((one.what, one.by, one.shape, f"{one.seconds * 1e6:.1f}", f"{moved / 1e9:.0f}", share))
    columns = ("operation", "by", "shape", "us", "GB/s", "of copying")
    note = (
        "Bytes are inputs and outputs, once. More than 100%: what it moves stays in the GPU's cache. Small ones take"
        " the time of a launch."
    )
    return Table("Single operations", columns, tuple(rows), note)
