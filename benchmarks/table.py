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


def megabytes(count: int) -> str:
    """``"216 MB"``."""
    return f"{count / 1e6:.0f} MB"


def times(ratio: Estimate | None) -> str:
    """``"2.5x (2.4 to 2.6)"``."""
    return f"{ratio.value:.2f}x ({ratio.low:.2f} to {ratio.high:.2f})" if ratio else "-"


def interval(figure: Estimate) -> str:
    """Milliseconds with their interval."""
    return f"{figure.value * 1e3:.1f} ({figure.low * 1e3:.1f} to {figure.high * 1e3:.1f})"


def seconds_interval(figure: Estimate) -> str:
    """Seconds with their interval."""
    return f"{figure.value:.2f} s ({figure.low:.2f} to {figure.high:.2f})"


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
