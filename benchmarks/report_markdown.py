"""``report.md``, and the part of it that a README quotes."""

from __future__ import annotations

import shlex
from collections.abc import Sequence
from typing import TYPE_CHECKING

from .baselines import OURS, REFERENCE
from .figures import beaten, measured, reference_noise, title
from .results import Failure, Present, Results
from .table import Table
from .tables import all_tables, headline

if TYPE_CHECKING:
    from .plots import Plot


def markdown(results: Results, drawn: Sequence[Plot]) -> str:
    """The whole report; it shows its plots from files beside it."""
    parts = ["# Benchmark", summary(results)]
    parts += [f"![{plot.caption}]({plot.name}.svg)\n\n*{plot.caption}*" for plot in drawn]
    parts += [section(table) for table in all_tables(results)]
    parts.append(f"## Reproduce\n\n```sh\n{shlex.join(results.command)}\n```")
    return "\n\n".join(parts) + "\n"


def summary(results: Results) -> str:
    """The headline table, what it was measured with, and what to be careful about."""
    table = headline(results)
    parts = [f"{table.heading}, {results.subject.precision}:", table_text(table), caption(results)]
    return "\n\n".join([*parts, *warnings(results)])


def caption(results: Results) -> str:
    """Machine and versions in a sentence."""
    machine = results.machine
    versions: dict[str, str] = {}
    for present in results.of(Present):
        if present.side in (OURS, REFERENCE):
            versions |= present.versions
    told = ", ".join(f"{name} {version}" for name, version in versions.items() if name != "latentrt")
    return (
        f"{machine['cpu']}, {results.threads} threads, Python {machine['python']}, {told}. Medians; a ratio is how "
        "many times longer than LatentRT it took, by medians over rounds in which all took turns, with 95 % intervals "
        "where there are enough runs for one."
    )


def warnings(results: Results) -> list[str]:
    """What a reader must know before believing the figures."""
    told = []
    noise = reference_noise(results)
    if noise is not None:
        state = "noisy" if noise.noisy else "steady"
        told.append(
            f"The machine was {state}: half of the reference's own runs lie within {noise.spread:.1%} of its median, "
            f"which moved by {noise.drift:+.1%} from the first half of the measurement to the second."
        )
    elif reference := measured(results, REFERENCE):
        told.append(
            f"The reference's runs ({len(reference)}) are too few for intervals and to tell whether the machine was "
            "steady: both need 6."
        )
    if stages := beaten(results):
        told.append(
            f"**{' and '.join(stages)} took less than the bound: the peak that was measured is too low, because the "
            "machine was busy.** Shares of the bound say nothing; measure again when it is idle."
        )
    if results.partial is not None:
        told.append(f"**Partial**: the run stopped during {results.partial}.")
    failed = results.of(Failure)
    if failed:
        what = ", ".join(dict.fromkeys(f"{record.side} {record.what}".strip() for record in failed))
        told.append(f"**Partial**: not measured: {what}.")
    if not results.subject.same_weights:
        told.append(f"**{title(results, OURS)} and the reference have different weights.**")
    return told


def section(table: Table) -> str:
    """A table with its heading."""
    return f"## {table.heading}\n\n{table_text(table)}"


def table_text(table: Table) -> str:
    """A Markdown table and its note."""
    lines = [f"| {' | '.join(table.columns)} |", "|" + "---|" * len(table.columns)]
    lines += [f"| {' | '.join(cell.replace('|', '&#124;') for cell in row)} |" for row in table.rows]
    return "\n".join(lines) + (f"\n\n{table.note}" if table.note else "")
