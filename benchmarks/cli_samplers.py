"""``latentrt bench-samplers``: what a choice of sampler costs on this machine."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import Annotated

import diffusers  # noqa: F401  # the reference; imported here so that a missing extra is told at once
import msgspec
import typer
from rich.table import Table

from ..runtime.cli.inspect import PIPED_WIDTH
from .samplers import SamplerCosts, measure_samplers

app = typer.Typer(add_completion=False)


@app.command()
def bench_samplers(
    runs: Annotated[int, typer.Option(help="Runs of each measurement.", min=1)] = 15,
    out: Annotated[Path | None, typer.Option(help="Also write the JSON to this file.")] = None,
) -> None:
    """Measure building tables, and the host update beside a copy and diffusers; two tables, then one line of JSON."""
    from rich.console import Console

    with Console(stderr=True).status("starting") as status:
        costs = measure_samplers(runs, progress=status.update)
    console = Console(width=None if sys.stdout.isatty() else PIPED_WIDTH)
    console.print(tables_of(costs), updates_of(costs))
    line = msgspec.json.encode(costs)
    if out is not None:
        out.parent.mkdir(parents=True, exist_ok=True)
        out.write_bytes(msgspec.json.format(line, indent=1) + b"\n")
    print(line.decode(), flush=True)


def tables_of(costs: SamplerCosts) -> Table:
    """The time to build every sampler's table."""
    shown = Table("sampler", "built", "slowest", "cached", title=f"tables of {costs.built_steps} steps")
    for name, cost in costs.tables.items():
        shown.add_row(
            name,
            f"{cost.built.value * 1e3:.2f} ms",
            f"{cost.slowest * 1e3:.2f} ms",
            f"{cost.cached.value * 1e6:.1f} us",
        )
    return shown


def updates_of(costs: SamplerCosts) -> Table:
    """The update beside a copy of the bytes it must touch, and beside diffusers."""
    shown = Table(
        *("sampler", "bytes", "", "update", "copy", "diffusers", "update / copy", "diffusers / update"),
        title=f"one guided update of {list(costs.state)}, one thread",
        caption=f"{costs.machine['cpu']}, numpy {costs.versions['numpy']}, torch {costs.versions['torch']}; medians of "
        f"{costs.runs} runs",
    )
    for name, cost in costs.updates.items():
        for state, times in (("warm", cost.warm), ("cold", cost.cold)):
            shown.add_row(
                *((name, f"{cost.bytes_touched / 1e6:.1f} MB") if state == "warm" else ("", "")),
                state,
                *(f"{taken.value * 1e3:.2f} ms" for taken in (times.update, times.copy, times.diffusers)),
                f"{times.update_to_copy.value:.2f}",
                f"{times.diffusers_to_update.value:.1f}",
            )
    return shown
