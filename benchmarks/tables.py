"""The tables of a report, the same for a terminal, Markdown and HTML."""

from __future__ import annotations

from .baselines import OURS, REFERENCE
from .figures import (
    STAGES,
    cases,
    cold,
    cold_ratio,
    first_call,
    load_to_picture,
    measured,
    pictures_per_second,
    sides,
    stages,
    title,
    warm,
    warm_ratio,
)
from .results import (
    Absent,
    Difference,
    Failure,
    LoadRun,
    Memory,
    Present,
    Recognition,
    Results,
    Run,
)
from .statistics import Summary, summary
from .table import (
    Table,
    first_line,
    interval,
    megabytes,
    milliseconds,
    pairs,
    seconds_interval,
    times,
    worst,
)
from .tables_costs import builds, disk, efficiency, limits, memory, overhead
from .tables_kernels import operations, step_kernels

_PERCENTILES = ("p50 (95 % interval), ms", "p90", "p95", "p99", "longest")

_FEW_RUNS = (
    "A dash: too few runs; p90 needs 10, p95 20 and p99 100. Without an interval: too few for one; p50 needs 6, "
    "p90 29, p95 59 and p99 299."
)


def headline(results: Results) -> Table:
    """All sides in one table: what a reader wants to know first."""
    furthest: dict[str, int] = {}
    for record in results.of(Difference):
        furthest[record.side] = max(record.pixels_max, furthest.get(record.side, 0))
    peaks = {record.side: record.peak_bytes for record in results.of(Memory)}
    rows = []
    for side in sides(results):
        warmed, starting = warm(results, side), cold(results, side)
        rows.append(
            (
                title(results, side),
                milliseconds(warmed.p50.value) if warmed else "-",
                times(warm_ratio(results, side)) if side != OURS else "",
                f"{starting.value:.2f} s" if starting else "-",
                times(cold_ratio(results, side)) if side != OURS else "",
                megabytes(peaks[side]) if side in peaks else "-",
                f"{furthest[side]} of 255" if side in furthest else "reference" if side == REFERENCE else "-",
            )
        )
    columns = (
        "", "warm picture", "ratio", "cold start to PNG", "ratio", "peak memory",
        "largest pixel difference",
    )  # fmt: skip
    shown = [i for i in range(len(columns)) if i == 0 or any(row[i] not in ("", "-") for row in rows)]
    cells = tuple(tuple(row[i] for i in shown) for row in rows)
    absent = "; ".join(f"{record.title} is absent: {first_line(record.reason)}" for record in results.of(Absent))
    return Table(results.workload.label, tuple(columns[i] for i in shown), cells, absent)


def percentiles(results: Results) -> Table:
    """Warm calls of every case and side, with intervals."""
    rows = []
    for case in cases(results):
        for side in sides(results):
            figures = warm(results, side, case)
            if figures is None:
                continue
            ratio = times(warm_ratio(results, side, case)) if side != OURS else ""
            tail = "-" if figures.tail is None else f"{figures.tail:.2f}"
            rows.append((case, title(results, side), *_percentiles(figures), tail, str(figures.runs), ratio))
    columns = ("call", "", *_PERCENTILES, "p99 / p50", "runs", "ratio")
    note = "Intervals by bootstrap; ratios are medians over rounds."
    return Table("Warm calls", columns, tuple(rows), f"{note} {_FEW_RUNS}")


def stage_table(results: Results) -> Table:
    """Median milliseconds by stage."""
    named = sides(results)
    told = {side: stages(results, side) for side in named}
    rows = tuple(
        (stage, *(f"{told[side][stage] * 1e3:.1f}" if stage in told[side] else "-" for side in named))
        for stage in (*STAGES, "other")
        if any(stage in told[side] for side in named)
    )
    note = (
        "Milliseconds, medians. Writing the PNG (encode) comes on top of the call. What a side does not tell apart is "
        "in other: for diffusers' pipelines the scheduler and guidance, which LatentRT counts in denoise."
    )
    return Table("Stages", ("", *(title(results, side) for side in named)), rows, note)


def stage_percentiles(results: Results) -> Table:
    """Every stage of the headline's call, with intervals."""
    rows = []
    for side in sides(results):
        runs = measured(results, side)
        for stage in [name for name in STAGES if runs and name in runs[0].stages]:
            figures = summary([run.stages.get(stage, 0.0) for run in runs])
            rows.append((title(results, side), stage, *_percentiles(figures)))
    return Table("Stages, spread", ("", "stage", *_PERCENTILES), tuple(rows), _FEW_RUNS)


def starting(results: Results) -> Table:
    """Cold starts, loading, first calls, and what warming up took."""
    rows = []
    for side in sides(results):
        begun, loaded, first = cold(results, side), load_to_picture(results, side), first_call(results, side)
        warming = [run.seconds for run in results.of(Run) if run.side == side and run.phase == "warm-up"]
        rows.append(
            (
                title(results, side),
                seconds_interval(begun),
                times(cold_ratio(results, side)) if side != OURS else "",
                f"{loaded:.2f} s" if loaded else "-",
                milliseconds(first) if first else "-",
                ", ".join(milliseconds(value) for value in warming) or "-",
            )
        )
    columns = ("", "process start to PNG", "ratio", "load to picture", "first call", "warm-up calls")
    return Table("Starting", columns, tuple(rows), "Other programs' own export or download of weights is not counted.")


def switching(results: Results) -> Table:
    """Calls of another size than the one before: the first time a size comes, and later."""
    rows = []
    for side in sides(results):
        runs = [run for run in results.of(Run) if run.side == side and run.phase == "switch"]
        for case in dict.fromkeys(run.case for run in runs):
            of_case = [run.seconds for run in runs if run.case == case]
            rows.append((title(results, side), case, milliseconds(of_case[0]), milliseconds(of_case[-1])))
    columns = ("", "call", "first time", "again, after other sizes")
    return Table("Changing the size from call to call", columns, tuple(rows))


def serving(results: Results) -> Table:
    """Requests under load."""
    rows = []
    for record in results.of(LoadRun):
        if not record.requests:
            continue
        waited = summary([end - arrival for arrival, _, end in record.requests])
        load = f"{record.concurrency} callers" if record.rate is None else f"{record.rate:g} requests a second"
        done = pictures_per_second(record, results.workload)
        rows.append(
            (
                load, title(results, record.side), f"{done:.2f}", interval(waited.p50), interval(waited.p99),
                f"{waited.max * 1e3:.1f}", str(len(record.requests)),
            )
        )  # fmt: skip
    columns = ("load", "", "pictures a second", "latency p50, ms", "p99", "longest", "requests")
    note = (
        "Callers wait for their picture before they ask again. At a rate, requests arrive at random (Poisson), whether "
        "or not earlier ones are done, and latency counts from the arrival: a side that cannot keep up falls behind. A "
        "dash: p99 needs 100 requests."
    )
    return Table("Under load", columns, tuple(rows), note)


def quality(results: Results) -> Table:
    """The worst of all pictures, by side and call."""
    rows = []
    records = results.of(Difference)
    for side, case in dict.fromkeys((record.side, record.case) for record in records):
        of_case = [record for record in records if (record.side, record.case) == (side, case)]
        ratios = [record.psnr for record in of_case if record.psnr is not None]
        rows.append(
            (
                title(results, side), case, str(len(of_case)),
                f"{max(record.latents_max_abs for record in of_case):.1e}",
                f"{max(record.latents_cosine_distance for record in of_case):.1e}",
                str(max(record.pixels_max for record in of_case)),
                f"{min(ratios):.1f}" if ratios else "equal",
                worst([record.ssim for record in of_case], min),
                worst([record.lpips for record in of_case], max),
            )
        )  # fmt: skip
    columns = (
        "", "call", "pictures", "latents, max-abs", "cosine distance", "pixels, max of 255", "PSNR, dB", "SSIM",
        "LPIPS",
    )  # fmt: skip
    note = "Beside the reference, from identical initial latents; the worst picture of each. A dash: not installed."
    return Table("Quality", columns, tuple(rows), note)


def recognition(results: Results) -> Table:
    """What pictures show."""
    rows = tuple(
        (title(results, r.side), str(r.prompts), f"{r.top1:.1%}", f"{r.top5:.1%}", f"{r.background:.1%}")
        for r in results.of(Recognition)
    )
    columns = ("", "prompts", "shows what was asked for", "among the five nearest", "background colour")
    return Table("Recognition", columns, rows)


def failures(results: Results) -> Table:
    """What could not be measured."""
    rows = tuple(
        (title(results, record.side) if record.side else "-", record.what, first_line(record.reason))
        for record in results.of(Failure)
    )
    return Table("Not measured", ("", "what", "reason"), rows)


def settings(results: Results) -> Table:
    """How each side was set up, and those that were not there."""
    rows = [(record.title, pairs(record.settings), pairs(record.versions)) for record in results.of(Present)] + [
        (record.title, f"absent: {first_line(record.reason)}", "") for record in results.of(Absent)
    ]
    return Table("Settings", ("", "settings", "versions"), tuple(rows))


def environment(results: Results) -> Table:
    """What it was measured on."""
    subject = results.subject
    rows = (
        *results.machine.items(),
        ("threads", str(results.threads)),
        ("started", results.started),
        ("bundle", f"{subject.bundle}, {subject.family}, {subject.precision}, {subject.bundle_hash[:12]}"),
        (
            "reference",
            "the weights the bundle was built from" if subject.same_weights else "other weights than the bundle's",
        ),
        ("prompt", results.workload.prompt),
    )
    return Table("Environment", ("", ""), rows)


def all_tables(results: Results) -> list[Table]:
    """Every table that has something to show, in reading order, after the headline."""
    makers = (
        failures, percentiles, stage_table, stage_percentiles, starting, switching, limits, efficiency, overhead,
        serving, memory, disk, quality, recognition, builds, step_kernels, operations,
        settings, environment,
    )  # fmt: skip
    return [table for table in (make(results) for make in makers) if table.rows]


def _percentiles(figures: Summary) -> tuple[str, ...]:
    """The cells below ``_PERCENTILES``."""
    percents = (figures.p50, figures.p90, figures.p95, figures.p99)
    return (*map(interval, percents), f"{figures.max * 1e3:.1f}")
