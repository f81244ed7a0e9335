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


def show(results: Results) -> None:
    """What was measured, in short, and what to be careful about."""
    console = Console(width=None if sys.stdout.isatty() else PIPED_WIDTH)
    tables = [make(results) for make in (stage_table, limits, serving, recognition, builds, disk, failures)]
    for table in (headline(results), *tables):
        if table.rows:
            console.print(rich_table(table))
    for text in warnings(results):
        console.print(text, highlight=False, markup=False)


def rich_table(table: Table) -> rich.table.Table:
    """A table that rich prints."""
    shown = rich.table.Table(*table.columns, title=table.heading, caption=Text(table.note) if table.note else None)
    for row in table.rows:
        shown.add_row(*(Text(cell) for cell in row))
    return shown
