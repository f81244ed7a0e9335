"""``latentrt samplers``: which samplers and schedules there are, and what their sigmas look like."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Annotated

import typer

from ..errors import CheckpointError
from . import build_table, model_schedule_from_config
from .names import sampler_and_schedule
from .registry import BY_NAME, SAMPLERS
from .sampler import Sampler
from .schedule_names import SCHEDULES

app = typer.Typer(add_completion=False)

# What Stable Diffusion 1, 2 and XL are trained with.
STABLE_DIFFUSION = {
    "_class_name": "EulerDiscreteScheduler",
    "beta_start": 0.00085,
    "beta_end": 0.012,
    "beta_schedule": "scaled_linear",
}


@app.command()
def samplers(
    names: Annotated[list[str] | None, typer.Argument(help="Samplers; all of them when omitted.")] = None,
    schedule: Annotated[list[str] | None, typer.Option(help="A schedule to plot; may be repeated.")] = None,
    steps: Annotated[int, typer.Option(help="Inference steps of the plot.")] = 20,
    config: Annotated[Path | None, typer.Option(help="A scheduler_config.json to plot for.")] = None,
    plot: Annotated[Path | None, typer.Option(help="Draw sigmas over steps into this picture.")] = None,
    as_json: Annotated[bool, typer.Option("--json", help="Print JSON.")] = False,
) -> None:
    """List samplers and schedules with the names other programs have for them, or plot their sigmas."""
    chosen = [sampler_and_schedule(name)[0] for name in names or ()] or list(SAMPLERS)
    if plot is not None:
        draw(chosen if names else [BY_NAME["euler"]], schedule or [], steps, config, plot)
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
    from rich.table import Table

    console = Console()
    table = Table("sampler", "also known as", "order", "evaluations", "noise", "models", box=None)
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
    schedules = Table("schedule", "also known as", "sigmas", box=None)
    for schedule in SCHEDULES.values():
        schedules.add_row(schedule.name, ", ".join(schedule.aliases), schedule.about)
    console.print("\n", schedules, "\nWithout a schedule, a run has the spacing of its checkpoint.")


def draw(chosen: list[Sampler], schedules: list[str], steps: int, config: Path | None, path: Path) -> None:
    """Plots every chosen sampler with every schedule, the checkpoint's own where none is named."""
    from .plot import plot

    model = model_schedule_from_config(STABLE_DIFFUSION if config is None else read_config(config))
    names: list[str | None] = [*schedules] or [None]
    plot([build_table(sampler.name, name, steps, model) for sampler in chosen for name in names], path)
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
