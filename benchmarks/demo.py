"""The demonstration behind ``make demo``: build the emoji bundle, draw some pictures, compare with diffusers.

``python -P -m latentrt.benchmarks.demo CHECKPOINT BUNDLE --out FOLDER``
"""

from __future__ import annotations

import sys
import time
from pathlib import Path
from typing import Annotated

import typer
from PIL import Image
from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeElapsedColumn

from ..export.bundle_from_checkpoint import bundle_from_checkpoint
from ..export.events import BuildEvent
from ..runtime import Pipeline, load
from ..runtime.errors import LatentRTError, RunError
from .baselines import REFERENCE
from .prepare import Wishes, prepare
from .recorder import Recorder
from .report_terminal import output, rich_table
from .run import measure
from .tables import headline, stage_table

STEPS = 20
GUIDANCE_SCALE = 5.0
SEED = 7

#: (prompt, width, height): the checkpoint's three aspect ratios, and a size between them.
PICTURES = (
    ("a rocket on a blue background", 128, 128),
    ("a fox on a green background", 128, 128),
    ("a birthday cake on a pink background", 128, 128),
    ("an octopus on a yellow background", 128, 128),
    ("a sailboat on a blue background", 160, 96),
    ("a steam train on an orange background", 160, 96),
    ("a pine tree on a white background", 96, 160),
    ("a light bulb on a purple background", 96, 160),
)

app = typer.Typer(add_completion=False)


@app.command()
def demo(checkpoint: Path, bundle: Path, out: Annotated[Path, typer.Option()]) -> None:
    """Build, draw, compare."""
    console = output()
    seconds = _build(console, checkpoint, bundle)
    paths = _draw(console, bundle, out)
    sheet = _contact_sheet(paths, out / "sheet.png")
    console.print(f"\n{len(paths)} pictures in {out}, all of them in {sheet}", highlight=False)
    console.print("how one was made: latentrt inspect " + str(paths[0]) + "\n", highlight=False)
    _compare(console, checkpoint, bundle)
    console.print(f"the bundle was built, once, in {seconds:.1f} s", highlight=False)


def _compare(console: Console, checkpoint: Path, bundle: Path) -> None:
    """Warm calls and cold starts beside diffusers."""
    prompt, width, height = PICTURES[0]
    wishes = Wishes(
        suites=("memory", "latency", "quality"),
        sides=(REFERENCE,),
        prompts=(prompt,),
        sizes=((width, height),),
        steps=(STEPS,),
        guidance=(GUIDANCE_SCALE,),
        seed=SEED,
        runs=7,
        cold_runs=3,
    )
    recorder = Recorder()
    with console.status("comparing with diffusers") as status:
        prepared = prepare(bundle, checkpoint, wishes, progress=lambda text: status.update(text))
        stopped = measure(prepared.plan, prepared.suites, (), recorder)
    for failure in recorder.failures:
        raise RunError(f"{failure.side} {failure.what} failed".strip(), received=failure.reason)
    if stopped is not None:
        raise KeyboardInterrupt
    results = prepared.results(sys.argv, recorder.records, None)
    console.print(*(rich_table(table, console.width) for table in (headline(results), stage_table(results))))


def _build(console: Console, checkpoint: Path, bundle: Path) -> float:
    """Build the bundle; returns the seconds it took."""
    start = time.perf_counter()
    columns = (TextColumn("building {task.description}"), BarColumn(), MofNCompleteColumn(), TimeElapsedColumn())
    with Progress(*columns, console=console) as stages:
        task = stages.add_task("engines", total=5)

        def report(event: BuildEvent) -> None:
            stages.update(task, description=f"{event.component}: {event.stage}", advance=float(event.stage == "done"))

        bundle_from_checkpoint(checkpoint, bundle, report=report)
    return time.perf_counter() - start


def _draw(console: Console, bundle: Path, out: Path) -> list[Path]:
    """Draw the pictures, each file named after its prompt."""
    out.mkdir(parents=True, exist_ok=True)
    columns = (TextColumn("drawing {task.description}"), BarColumn(), MofNCompleteColumn(), TimeElapsedColumn())
    paths = []
    with load(bundle) as pipe, Progress(*columns, console=console) as bar:
        task = bar.add_task("", total=len(PICTURES) * STEPS)

        def step(pipeline: Pipeline, index: int, timestep: float, state: object) -> None:
            bar.advance(task)

        for prompt, width, height in PICTURES:
            bar.update(task, description=prompt)
            path = out / (prompt.replace(" ", "-") + ".png")
            pipe(
                prompt,
                width=width,
                height=height,
                num_inference_steps=STEPS,
                guidance_scale=GUIDANCE_SCALE,
                seed=SEED,
                callback_on_step_end=step,
            ).save(path)
            paths.append(path)
    return paths


def _contact_sheet(paths: list[Path], target: Path) -> Path:
    """All pictures in one row per four, on white."""
    columns, cell = 4, 168
    sheet = Image.new("RGB", (columns * cell, -(-len(paths) // columns) * cell), "white")
    for i, path in enumerate(paths):
        with Image.open(path) as picture:
            left = i % columns * cell + (cell - picture.width) // 2
            top = i // columns * cell + (cell - picture.height) // 2
            sheet.paste(picture, (left, top))
    sheet.save(target)
    return target


if __name__ == "__main__":
    try:
        app()
    except LatentRTError as error:
        print(f"error: {error}", file=sys.stderr)
        sys.exit(error.exit_code)
