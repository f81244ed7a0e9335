"""Tables of a report on a terminal."""

from __future__ import annotations

import rich.table
from rich.text import Text

from .table import Table


def rich_table(table: Table) -> rich.table.Table:
    """A table that rich prints."""
    shown = rich.table.Table(*table.columns, title=table.heading, caption=Text(table.note) if table.note else None)
    for row in table.rows:
        shown.add_row(*(Text(cell) for cell in row))
    return shown
