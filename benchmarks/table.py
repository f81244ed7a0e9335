"""A table of a report, and how its figures are spelled."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

from .statistics import Estimate


@dataclass(frozen=True)
class Table:
    """A heading, columns, rows, and a note below them. The first column names the row."""

    heading: str
    columns: tuple[str, ...]
    rows: tuple[tuple[str, ...], ...]
    note: str = ""


def milliseconds(seconds: float) -> str:
    """``"115 ms"``, and seconds where that is many."""
    return f"{seconds * 1e3:.0f} ms" if seconds < 10 else f"{seconds:.1f} s"


def rate(flops: float) -> str:
    """FLOP a second: ``"230 GFLOP/s"``, ``"283 TFLOP/s"``."""
    return f"{flops / 1e9:.0f} GFLOP/s" if flops < 1e13 else f"{flops / 1e12:.0f} TFLOP/s"


def share_of_bound(least: float, taken: float) -> str:
    """``"66%"``; of a bound that was beaten, and so is none, no figure."""
    return f"{least / taken:.0%}" if taken >= least else "over 100%"


def megabytes(count: int) -> str:
    """``"216 MB"``."""
    return f"{count / 1e6:.0f} MB"


def times(ratio: Estimate | None) -> str:
    """``"2.5x (2.4 to 2.6)"``."""
    return with_interval(ratio, "{:.2f}x", "{:.2f}")


def interval(figure: Estimate | None) -> str:
    """Milliseconds with their interval."""
    return with_interval(figure, "{:.1f}", "{:.1f}", scale=1e3)


def seconds_interval(figure: Estimate | None) -> str:
    """Seconds with their interval."""
    return with_interval(figure, "{:.2f} s", "{:.2f}")


def with_interval(figure: Estimate | None, spelled: str, bound: str, scale: float = 1.0) -> str:
    """A figure, and its interval if it has one; a dash for what is not there."""
    if figure is None:
        return "-"
    value = spelled.format(figure.value * scale)
    if figure.interval is None:
        return value
    return f"{value} ({' to '.join(bound.format(end * scale) for end in figure.interval)})"


def worst(values: list[float | None], choose: Callable[[list[float]], float]) -> str:
    """The worst of the values that there are."""
    known = [value for value in values if value is not None]
    return f"{choose(known):.4f}" if known else "-"


def pairs(named: dict[str, str]) -> str:
    """``"a: 1; b: 2"``."""
    return "; ".join(f"{name}: {value}" for name, value in named.items())


def first_line(text: str) -> str:
    """The first line of a message, at most 200 characters."""
    return text.partition("\n")[0][:200]
