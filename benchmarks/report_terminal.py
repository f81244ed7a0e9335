"""A run on a terminal: its progress, what is known on the way, and the tables of its report."""

from __future__ import annotations

import sys

import rich.table
from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeElapsedColumn
from rich.text import Text

from ..runtime.cli.inspect import PIPED_WIDTH
from .report_markdown import warnings
from .results import Absent, Bound, Failure, Peaks, Record, Results
from .table import Table, rate
from .tables import failures, headline, recognition, serving, stage_table
from .tables_costs import builds, disk, limits

#: Characters of a unit and the space before it.
_UNIT = 3


def progress_bar(console: Console) -> Progress:
    """What is going on, and how much of the run is done."""
    columns = (BarColumn(), MofNCompleteColumn(), TimeElapsedColumn(), TextColumn("{task.description}"))
    return Progress(*columns, console=console)


def say(console: Console, record: Record) -> None:
    """Bounds as soon as they are known, before what they bound is measured; who is not there; what fails."""
    text = None
    if isinstance(record, Peaks):
        text = f"this machine: {rate(record.matmul)} ({record.matmul_by}), copying {record.copy / 1e9:.1f} GB/s"
    elif isinstance(record, Bound):
        text = f"bound of {record.stage}: {record.seconds * 1e3:.1f} ms ({record.flops / 1e9:.1f} GFLOP)"
    elif isinstance(record, Absent):
        text = f"absent: {record.title}: {record.reason}"
    elif isinstance(record, Failure):
        text = f"failed: {record.side} {record.what}: {record.reason}"
    if text is not None:
        console.print(text, highlight=False, markup=False, soft_wrap=True)


def output() -> Console:
    """Standard output: as wide as its terminal, or wide enough for most tables where it is none."""
    return Console(width=None if sys.stdout.isatty() else PIPED_WIDTH)


def show(results: Results) -> None:
    """What was measured, in short, and what to be careful about."""
    console = output()
    tables = [make(results) for make in (stage_table, limits, serving, recognition, builds, disk, failures)]
    for table in (headline(results), *tables):
        if table.rows:
            console.print(rich_table(table, console.width))
    for text in warnings(results):
        console.print(text, highlight=False, markup=False)


def rich_table(table: Table, width: int) -> rich.table.Table:
    """A table that rich prints within ``width`` columns: lines are broken between words, and within them only where
    they do not fit even without spaces beside them; nothing is cut."""
    count, padding = len(table.columns), 1
    widths = _widths(table, width - (1 + 2 * padding) * count - 1)
    if widths is None:
        padding = 0
        widths = _widths(table, width - count - 1)
    caption = Text(table.note) if table.note else None
    shown = rich.table.Table(title=table.heading, caption=caption, padding=(0, padding))
    for i, heading in enumerate(table.columns):
        shown.add_column(heading, width=widths[i] if widths else None, overflow="fold")
    for row in table.rows:
        shown.add_row(*(Text(cell) for cell in row))
    return shown


def _widths(table: Table, available: int) -> list[int] | None:
    """Characters of each column, or None where not even the longest words fit.

    What is left beyond those goes to the cells first, then to the headings: to columns that lack no more than a unit,
    then to the one that takes most lines.
    """
    columns = [(heading, *(row[i] for row in table.rows)) for i, heading in enumerate(table.columns)]
    widths = [max((len(word) for cell in cells for word in cell.split()), default=1) for cells in columns]
    spare = available - sum(widths)
    if spare < 0:
        return None
    for lines in ([cells[1:] for cells in columns], columns):
        wanted = [max(map(len, cells), default=0) for cells in lines]
        for i, chars in enumerate(wanted):
            if 0 < chars - widths[i] <= min(spare, _UNIT):
                spare -= chars - widths[i]
                widths[i] = chars
        for _ in range(spare):
            i = max(range(len(widths)), key=lambda i: wanted[i] / widths[i])
            if widths[i] < wanted[i]:
                widths[i] += 1
                spare -= 1
    return widths
