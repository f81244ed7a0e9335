"""A comparison as a table for people: on a terminal, or in Markdown."""

from __future__ import annotations

from rich.table import Table

from .compare import Comparison, Side, Spread

_STAGES = ("tokenize", "text", "prepare", "denoise", "decode", "postprocess")


def rows(result: Comparison, build_seconds: float | None = None) -> list[tuple[str, str, str, str]]:
    """What a report shows: a name, LatentRT's figure, diffusers' figure, and the ratio of the two."""
    ours, theirs = result.latentrt, result.diffusers
    lines = [] if build_seconds is None else [("build, once", f"{build_seconds:.1f} s", "-", "")]
    lines += [
        ("cold start to PNG", *_seconds(ours.cold, theirs.cold), _ratio(result.cold_ratio)),
        ("first call", f"{ours.first_call * 1e3:.0f} ms", f"{theirs.first_call * 1e3:.0f} ms", ""),
        ("warm picture", *_milliseconds(ours.warm, theirs.warm), _ratio(result.warm_ratio)),
        *(
            (f"- {stage}", _stage(ours, stage), _stage(theirs, stage), _stage_ratio(ours, theirs, stage))
            for stage in _STAGES
        ),
        ("time outside the engines", f"{result.overhead:.1%}", "-", ""),
        ("peak memory", _megabytes(ours), _megabytes(theirs), f"{result.memory_ratio:.1f}x"),
        ("largest difference of a pixel", f"{result.picture_max_difference} of 255", "", ""),
    ]
    return lines


def title(result: Comparison) -> str:
    """What was drawn."""
    work = result.workload
    return (
        f"{work.width}x{work.height}, {work.num_inference_steps} steps, guidance {work.guidance_scale:g}, "
        f"{work.threads} threads, fp32"
    )


def caption(result: Comparison) -> str:
    """On what, with what and how often it was measured."""
    versions = {**result.latentrt.versions, **result.diffusers.versions}
    return (
        f"{result.machine['cpu']}, {result.machine['processors']} processors, Python {result.machine['python']}, "
        + ", ".join(f"{name} {version}" for name, version in versions.items() if name != "latentrt")
        + f"; medians of {result.warm_ratio.runs} warm and {result.cold_ratio.runs} cold runs"
    )


def table(result: Comparison, build_seconds: float | None = None) -> Table:
    """The report for a terminal."""
    shown = Table("", "LatentRT", "diffusers", "ratio", title=title(result), caption=caption(result))
    for line in rows(result, build_seconds):
        shown.add_row(*line, style="bold" if line[0] == "warm picture" else None)
    return shown


def markdown(result: Comparison) -> str:
    """The report for a README."""
    lines = [f"{title(result)}:", "", "| | LatentRT | diffusers | ratio |", "|---|---|---|---|"]
    lines += [f"| {' | '.join(line)} |" for line in rows(result)]
    return "\n".join([*lines, "", f"{caption(result)}."])


def _seconds(a: Spread, b: Spread) -> tuple[str, str]:
    return f"{a.median:.2f} s", f"{b.median:.2f} s"


def _milliseconds(a: Spread, b: Spread) -> tuple[str, str]:
    return f"{a.median * 1e3:.0f} ms", f"{b.median * 1e3:.0f} ms"


def _megabytes(side: Side) -> str:
    return f"{side.peak_bytes / 1e6:.0f} MB"


def _ratio(ratio: Spread) -> str:
    return f"{ratio.median:.1f}x ({ratio.min:.1f} to {ratio.max:.1f})"


def _stage(side: Side, stage: str) -> str:
    return f"{side.stages[stage] * 1e3:.1f} ms" if stage in side.stages else "-"


def _stage_ratio(ours: Side, theirs: Side, stage: str) -> str:
    if stage not in theirs.stages or not ours.stages.get(stage):
        return ""
    return f"{theirs.stages[stage] / ours.stages[stage]:.1f}x"
