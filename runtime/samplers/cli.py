"""``latentrt samplers``: which samplers and schedules there are, and what their sigmas look like."""

from __future__ import annotations

import contextlib
import json
import sys
from pathlib import Path
from typing import Annotated

import typer

from ..errors import CheckpointError, RequestError
from . import build_table, model_schedule_from_config
from .names import sampler_and_schedule
from .registry import SAMPLERS
from .sampler import Sampler
from .schedule_names import SCHEDULES

app = typer.Typer(add_completion=False)

#: Columns where standard output is not a terminal: every row is one line.
PIPED_WIDTH = 200

# What Stable Diffusion 1, 2 and XL are trained with.
STABLE_DIFFUSION = {
    "_class_name": "EulerDiscreteScheduler",
    "beta_start": 0.00085,
    "beta_end": 0.012,
    "beta_schedule": "scaled_linear",
}


@app.command()
def samplers(
    names: Annotated[
        list[str] | None, typer.Argument(help="Samplers. Default: all; for --plot, the checkpoint's own.")
    ] = None,
    schedule: Annotated[
        list[str] | None,
        typer.Option(help="A schedule to plot; may be repeated. Default: with NAMES their own, without any every one."),
    ] = None,
    steps: Annotated[int, typer.Option(help="Inference steps of the plot.")] = 20,
    config: Annotated[
        Path | None, typer.Option(help="A scheduler_config.json to plot for. Default: Stable Diffusion's.")
    ] = None,
    plot: Annotated[
        Path | None, typer.Option(help="Draw sigmas over steps into this picture; curves that coincide are one.")
    ] = None,
    as_json: Annotated[bool, typer.Option("--json", help="Print JSON.")] = False,
) -> None:
    """List samplers and schedules with the names other programs have for them, or plot their sigmas."""
    chosen = [sampler_and_schedule(name)[0] for name in names or ()] or list(SAMPLERS)
    if plot is not None:
        draw([sampler.name for sampler in chosen] if names else [], schedule or [], steps, config, plot)
        return
    if as_json:
        described = {"samplers": [describe(sampler) for sampler in chosen], "schedules": described_schedules()}
        typer.echo(json.dumps(described, indent=2))
        return
    print_table(chosen)


def describe(sampler: Sampler) -> dict[str, object]:
    """A sampler's properties, for JSON."""
    return {
        "name": sampler.name,
        "title": sampler.title,
        "aliases": list(sampler.aliases),
        "diffusers_class": sampler.diffusers_class if sampler.from_diffusers else None,
        "order": sampler.order,
        "evaluations_per_step": sampler.evaluations_per_step,
        "stochastic": sampler.stochastic,
        "brownian_noise": sampler.brownian,
        "models": list(sampler.kinds),
        "settings": list(sampler.settings_of(sampler.grid)),
    }


def described_schedules() -> list[dict[str, object]]:
    """The schedules, for JSON."""
    return [{"name": s.name, "aliases": list(s.aliases), "about": s.about} for s in SCHEDULES.values()]


def print_table(chosen: list[Sampler]) -> None:
    """Samplers and schedules as tables for people."""
    from rich.console import Console
    from rich.table import Column, Table

    console = Console(width=None if sys.stdout.isatty() else PIPED_WIDTH)
    folded = [Column(name, overflow="fold") for name in ("sampler", "also known as")]
    table = Table(*folded, "order", "evaluations", "noise", "models", box=None)
    for sampler in chosen:
        table.add_row(
            sampler.name,
            ", ".join(
                [sampler.title, *sampler.aliases, *([sampler.diffusers_class] if sampler.from_diffusers else [])]
            ),
            str(sampler.order),
            str(sampler.evaluations_per_step),
            "yes" if sampler.stochastic else "",
            ", ".join(sampler.kinds),
        )
    console.print(table)
    schedules = Table(*(Column(name, overflow="fold") for name in ("schedule", "also known as", "sigmas")), box=None)
    for schedule in SCHEDULES.values():
        schedules.add_row(schedule.name, ", ".join(schedule.aliases), schedule.about)
    console.print("\n", schedules, "\nWithout a schedule, a run has the spacing of its checkpoint.")


def draw(chosen: list[str], schedules: list[str], steps: int, config: Path | None, path: Path) -> None:
    """Plots every chosen sampler with every schedule, the checkpoint's own of either where none is named.

    Where neither is, its sampler with every schedule that it can have: samplers have few spacings of their own.
    """
    from .plot import plot

    model = model_schedule_from_config(STABLE_DIFFUSION if config is None else read_config(config))
    names: list[str | None] = [*schedules] or [None]
    tables = [build_table(sampler, name, steps, model) for sampler in chosen or [model.sampler] for name in names]
    if not chosen and not schedules:
        for schedule in SCHEDULES:
            with contextlib.suppress(RequestError):  # not one for this sampler or this model
                tables.append(build_table(model.sampler, schedule, steps, model))
    plot(tables, path)
    typer.echo(f"wrote {path}")


def read_config(path: Path) -> dict[str, object]:
    """The content of a ``scheduler_config.json``."""
    try:
        content = json.loads(path.read_text())
    except (OSError, ValueError) as error:
        raise CheckpointError("scheduler_config.json cannot be read", received=f"{path}: {error}") from None
    if not isinstance(content, dict):
        raise CheckpointError("scheduler_config.json is not an object", received=type(content).__name__)
    return content
