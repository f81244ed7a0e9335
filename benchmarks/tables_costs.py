"""Tables of a report: what runs cost, and how near they come to what the machine can do."""

from __future__ import annotations

from .figures import achieved, beaten, bounds, peaks, sides, title, warm
from .results import Build, Memory, Overhead, Peaks, Results, Size
from .statistics import median
from .table import Table, megabytes, rate, share_of_bound, with_interval


def limits(results: Results) -> Table:
    """Bounds, what was achieved, and how much of the bound that is."""
    rows = [
        (
            bound.stage, str(bound.calls), f"{bound.flops / 1e9:.2f}", f"{bound.bytes / 1e6:.1f}",
            f"{bound.seconds * 1e3:.1f}", f"{taken * 1e3:.1f}", rate(bound.flops / taken),
            share_of_bound(bound.seconds, taken),
        )
        for bound, taken in achieved(results)
    ]  # fmt: skip
    measured = results.of(Peaks)
    told = [
        f"{rate(one.matmul)} in {one.precision} ({one.matmul_by}), copying {one.copy / 1e9:.1f} GB/s"
        for one in measured
    ]
    note = ""
    if measured:
        on = f"{measured[0].threads} threads" if measured[0].device == "cpu" else measured[0].device
        note = f"Measured in this run, {on}: {'; when all was done, '.join(told)}."
    if len(measured) > 1:
        note += " The higher peaks make the bound."
    if beaten(results):
        note += " More than 100%: the measured peak was too low, the machine was busy."
    columns = ("stage", "engine calls", "GFLOP", "MB", "bound, ms", "taken, ms", "achieved", "of the bound")
    return Table("The limit", columns, tuple(rows), note)


def efficiency(results: Results) -> Table:
    """Whole calls of every side: the model's arithmetic over the time that they took."""
    found, best = bounds(results), peaks(results)
    if not found or best is None:
        return Table("Whole calls beside the limit", (), ())
    flops, least = sum(bound.flops for bound in found), sum(bound.seconds for bound in found)
    rows = []
    for side in sides(results):
        figures = warm(results, side)
        if figures is not None:
            taken = figures.p50.value
            share = flops / taken / best.matmul
            rows.append((title(results, side), rate(flops / taken), f"{share:.0%}", f"{least / taken:.0%}"))
    columns = ("", "achieved", "of the matmul peak", "of the bound")
    note = "By the arithmetic of the exact call, for approximations and other precisions too; medians."
    return Table("Whole calls beside the limit", columns, tuple(rows), note)


def overhead(results: Results) -> Table:
    """Time outside the engines."""
    records = results.of(Overhead)
    if not records:
        return Table("Outside the engines", (), ())
    share = median([record.outside_engines_seconds / record.seconds for record in records])
    step = median([record.outside_engines_seconds / record.steps for record in records])
    rows = [
        ("share of the call", with_interval(share, "{:.1%}", "{:.1%}")),
        ("per step", f"{step.value * 1e6:.0f} us"),
        ("host memory that a step takes and gives back", f"{records[0].step_bytes / 1e3:.1f} kB"),
    ]
    last = records[-1]
    if last.allocations is not None and last.synchronizations is not None:
        rows.append(("buffers that a warm call takes from the device", str(last.allocations)))
        rows.append(("waits for the device, per step", f"{last.synchronizations / last.steps:.2f}"))
    note = "Everything but the engines' calls, of the whole call: tokenizing, the sampler's updates, the picture."
    return Table("Outside the engines", ("", "LatentRT"), tuple(rows), note)


def memory(results: Results) -> Table:
    """Memory by side: the host's, and a GPU's where one is used."""
    records = results.of(Memory)
    columns = ["", "after loading", "peak, from its start"]
    on_gpu = any(record.device_peak_bytes for record in records)
    if on_gpu:
        columns += ["GPU, after loading", "GPU, peak of one call"]
    rows = []
    for record in records:
        told = [record.loaded_bytes, record.peak_bytes]
        told += [record.device_loaded_bytes, record.device_peak_bytes] if on_gpu else []
        rows.append((title(results, record.side), *map(megabytes, told)))
    note = "Of the GPU by what the driver says is in use: the CUDA context and what allocators keep are counted."
    return Table("Memory", tuple(columns), tuple(rows), note if on_gpu else "")


def disk(results: Results) -> Table:
    """Sizes on disk."""
    return Table("On disk", ("", ""), tuple((record.what, megabytes(record.bytes)) for record in results.of(Size)))


def builds(results: Results) -> Table:
    """Building the bundle."""
    rows = tuple(
        (
            record.kind, f"{record.seconds:.1f} s",
            ", ".join(f"{name} {seconds:.1f} s" for name, seconds in record.components.items()),
            ", ".join(f"{name} {seconds:.1f} s" for name, seconds in record.stages.items()) or "-",
            megabytes(record.peak_bytes), megabytes(record.bundle_bytes),
        )
        for record in results.of(Build)
    )  # fmt: skip
    return Table("Building the bundle", ("store", "command", "components", "stages", "peak memory", "bundle"), rows)
