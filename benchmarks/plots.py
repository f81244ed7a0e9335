"""The plots of a report as SVG text, in colours that are read on light and on dark paper."""

from __future__ import annotations

import io
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import matplotlib as mpl
import numpy as np
from matplotlib.figure import Figure

from .baselines import OURS
from .figures import STAGES, achieved, cases, cold, measured, peaks, sides, stages, title, warm
from .results import Bound, LoadRun, Results
from .statistics import Estimate
from .table import share_of_bound

#: Paul Tol's bright scheme, told apart also by colour-blind readers.
COLORS = ("#4477AA", "#EE6677", "#228833", "#CCBB44", "#66CCEE", "#AA3377", "#BBBBBB")

#: Text and axes: a grey of enough contrast (over 4.5 to 1) on white and on the dark page's background.
_INK = "#808080"

#: Fixed ids and no date: the same results give the same file. Text stays text, in the page's own font.
_STYLE = {
    "svg.hashsalt": "latentrt", "svg.fonttype": "none", "font.family": "sans-serif", "font.size": 9,
    "axes.spines.top": False, "axes.spines.right": False, "axes.edgecolor": _INK, "axes.labelcolor": _INK,
    "text.color": _INK, "xtick.color": _INK, "ytick.color": _INK, "legend.frameon": False,
}  # fmt: skip


@dataclass(frozen=True)
class Plot:
    """A plot: the name of its file, what it shows, and the SVG itself."""

    name: str
    caption: str
    svg: str


def plots(results: Results) -> list[Plot]:
    """Every plot that there is something to show in."""
    makers: list[tuple[str, Callable[[Results, Any], bool]]] = [
        ("Where the time of a call goes: medians. The PNG file is written after the call.", _stages),
        ("Every measured call, in the order it was made, and how often each time occurred.", _distribution),
        ("From the start of a process to a PNG on disk: medians.", _cold),
        ("Warm calls with other sizes, steps, guidance and numbers of pictures: medians, with 95 % intervals.", _cases),
        ("Latency from arrival to picture at fixed rates, at every percentile.", _open_loop),
        ("How near each stage is to what this machine can do.", _roofline),
    ]
    drawn = []
    for caption, draw in makers:
        with mpl.rc_context(_STYLE):
            figure = Figure(figsize=(7.2, 2.9), layout="constrained")
            if draw(results, figure):
                buffer = io.StringIO()
                figure.savefig(buffer, format="svg", transparent=True, metadata={"Date": None, "Creator": None})
                text = buffer.getvalue()
                drawn.append(Plot(draw.__name__.strip("_").replace("_", "-"), caption, text[text.index("<svg") :]))
    return drawn


def color_of(results: Results, side: str) -> str:
    """A side's colour, the same in every plot."""
    return COLORS[sides(results).index(side) % len(COLORS)]


def _stages(results: Results, figure: Any) -> bool:
    named = [side for side in sides(results) if stages(results, side)]
    if not named:
        return False
    axes = figure.subplots()
    told = {side: stages(results, side) for side in named}
    left, labels = np.zeros(len(named)), [title(results, side) for side in named]
    shown = [s for s in (*STAGES[:-1], "other", STAGES[-1]) if any(told[side].get(s, 0) >= 5e-4 for side in named)]
    for i, stage in enumerate(shown):
        widths = np.array([told[side].get(stage, 0.0) * 1e3 for side in named])
        axes.barh(labels, widths, left=left, label=stage, color=COLORS[i % len(COLORS)], height=0.6)
        left += widths
    axes.invert_yaxis()
    axes.set_xlabel("ms")
    axes.legend(ncols=len(shown), loc="lower left", bbox_to_anchor=(0, 1), fontsize=8)
    return True


def _distribution(results: Results, figure: Any) -> bool:
    named = [side for side in sides(results) if measured(results, side)]
    if not named:
        return False
    over_time, histogram = figure.subplots(1, 2, width_ratios=(3, 2), sharey=True)
    for side in named:
        runs = [run.seconds * 1e3 for run in measured(results, side)]
        color = color_of(results, side)
        over_time.plot(runs, ".-", ms=4, lw=0.6, color=color, label=title(results, side))
        histogram.hist(runs, bins=30, orientation="horizontal", color=color, alpha=0.7)
    over_time.set(xlabel="round", ylabel="ms", ylim=(0, None))
    over_time.xaxis.get_major_locator().set_params(integer=True)
    histogram.set_xlabel("calls")
    figure.legend(loc="outside upper left", ncols=4, fontsize=8)
    return True


def _cold(results: Results, figure: Any) -> bool:
    starts = {side: start for side in sides(results) if (start := cold(results, side))}
    axes = figure.subplots()
    for side, start in starts.items():
        errors = np.array([_reach(start)]).T
        axes.barh(
            title(results, side), start.value, xerr=errors, color=color_of(results, side), height=0.6, ecolor=_INK
        )
        axes.annotate(
            f" {start.value:.2f} s", (start.value + errors[1, 0], title(results, side)), va="center", fontsize=8
        )
    axes.invert_yaxis()
    axes.set_xlabel("s")
    return bool(starts)


def _cases(results: Results, figure: Any) -> bool:
    labels = cases(results)
    if len(labels) < 2:
        return False
    axes = figure.subplots()
    named = sides(results)
    for i, side in enumerate(named):
        points = [(j, figures.p50) for j, case in enumerate(labels) if (figures := warm(results, side, case))]
        at = [j + (i - (len(named) - 1) / 2) * 0.8 / len(named) for j, _ in points]
        heights = [p50.value * 1e3 for _, p50 in points]
        errors = np.array([_reach(p50) for _, p50 in points]).T * 1e3
        axes.bar(
            at, heights, yerr=errors if points else None, width=0.7 / len(named), ecolor=_INK,
            color=color_of(results, side), label=title(results, side),
        )  # fmt: skip
    axes.set_xticks(range(len(labels)), [label.replace(", ", "\n") for label in labels], fontsize=7)
    axes.set_ylabel("ms")
    figure.legend(loc="outside upper left", ncols=4, fontsize=8)
    return True


def _open_loop(results: Results, figure: Any) -> bool:
    rates = sorted({record.rate for record in results.of(LoadRun) if record.rate is not None})
    for axes, rate in zip(np.atleast_1d(figure.subplots(1, max(1, len(rates)))), rates, strict=False):
        for record in results.of(LoadRun):
            if record.rate == rate and record.requests:
                waited = np.sort([(end - arrival) * 1e3 for arrival, _, end in record.requests])
                share = np.arange(1, len(waited) + 1) / len(waited)
                axes.step(
                    waited, share, where="post", color=color_of(results, record.side), label=title(results, record.side)
                )
        axes.set(xscale="log", xlabel="ms", title=f"{rate:g} requests a second", ylim=(0, 1))
    if rates:
        figure.axes[0].set_ylabel("share of requests")
        figure.legend(*figure.axes[0].get_legend_handles_labels(), loc="outside upper left", ncols=4, fontsize=8)
    return bool(rates)


def _roofline(results: Results, figure: Any) -> bool:
    """Attainable FLOP/s over FLOP per byte, and where LatentRT's stages are."""
    points: list[tuple[Bound, float]] = achieved(results)
    best = peaks(results)
    if not points or best is None:
        return False
    axes = figure.subplots()
    intensities = [bound.flops / bound.bytes for bound, _ in points]
    x = np.geomspace(min(*intensities, best.matmul / best.copy) / 4, max(intensities) * 4, 200)
    axes.loglog(x, np.minimum(best.matmul, x * best.copy) / 1e9, color=_INK)
    for i, ((bound, taken), at) in enumerate(zip(points, intensities, strict=True)):
        reached = bound.flops / taken / 1e9
        axes.loglog([at], [reached], "o", color=COLORS[i])
        told = f" {bound.stage}: {share_of_bound(bound.seconds, taken)} of its bound"
        axes.annotate(told, (at, reached), va="top", fontsize=8)
    axes.set(xlabel="FLOP per byte of weights, inputs and outputs", ylabel="GFLOP/s", title=title(results, OURS))
    return True


def _reach(figure: Estimate) -> tuple[float, float]:
    """How far its interval goes below and above a figure; nowhere if it has none."""
    low, high = figure.interval or (figure.value, figure.value)
    return figure.value - low, high - figure.value
