"""``latentrt bench gpu`` and ``latentrt bench synthetic``: models in full size, with random weights."""

from __future__ import annotations

import sys
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from ..runtime.device.driver import gpu_target
from ..runtime.errors import LatentRTError, OutputError, RequestError

if TYPE_CHECKING:
    from rich.progress import Progress, TaskID


def gpu(
    out: Annotated[Path, typer.Option(help="Folder for a report of each model.")],
    model: Annotated[
        list[str] | None,
        typer.Option(help="sd1, sdxl, sd3 or sd3-t5 (may be repeated). Default: all but the last, which takes 60 GB."),
    ] = None,
    provider: Annotated[list[str] | None, typer.Option(help="May be repeated. Default: all that are for GPUs.")] = None,
    side: Annotated[
        list[str] | None, typer.Option(help="Program to compare with (may be repeated). Default: diffusers-compile.")
    ] = None,
    compiled: Annotated[
        bool, typer.Option(help="Beside torch.compile, if no --side is named; its first call takes minutes.")
    ] = True,
    runs: Annotated[int, typer.Option(help="Warm runs of each side: 20 for a p95, 60 for its interval.")] = 20,
    warm_up: Annotated[int, typer.Option(help="Calls between the first one and the measured ones.")] = 3,
    cold_runs: Annotated[int, typer.Option(help="Cold starts of each side.")] = 1,
    work: Annotated[Path | None, typer.Option(help="Folder that keeps checkpoints and bundles: 30 GB.")] = None,
) -> None:
    """Measure models in full size on this machine's GPU, each provider beside diffusers; nothing is downloaded."""
    from rich.console import Console

    from .baselines import cache_folder
    from .gpu import GpuWishes, prepare_model
    from .published import MODELS
    from .report_files import make_folder
    from .report_terminal import progress_bar
    from .run_to_files import run_to_files

    models = [MODELS[name] for name in _known(model or [one.name for one in MODELS.values() if not one.variant])]
    if gpu_target() is None:
        raise RequestError("bench gpu", received="no NVIDIA GPU, or no driver", expected="a machine with one")
    sides = tuple(side or (GpuWishes.sides if compiled else ()))
    wishes = GpuWishes(tuple(provider or ()), sides, runs, warm_up, cold_runs)
    console, kept = Console(stderr=True), work or cache_folder() / "gpu"
    worst = 0
    for one in models:
        with progress_bar(console) as bar:
            task = bar.add_task(one.title, total=None)
            folder = out / one.name
            make_folder(folder)
            try:
                prepared = prepare_model(one, kept, wishes, partial(_show, bar, task))
                status = run_to_files(prepared, folder, ["latentrt", "bench", *sys.argv[2:]], console, bar, task)
            except Exception as error:  # whatever it is, the next model may do better
                reason = error if isinstance(error, LatentRTError) else f"{type(error).__name__}: {error}"
                console.print(f"failed: {one.title}: {reason}", highlight=False, markup=False, soft_wrap=True)
                status = 1
        if status > 1:
            raise typer.Exit(status)
        worst = max(worst, status)
    if worst:
        raise typer.Exit(worst)


def synthetic(
    model: Annotated[str, typer.Argument(help="sd1, sdxl, sd3 or sd3-t5.")],
    out: Annotated[Path, typer.Option(help="The folder of the checkpoint to write.")],
) -> None:
    """Write a checkpoint of a published model's size, with random weights in fp16."""
    from rich.console import Console

    from .published import MODELS
    from .synthetic import synthetic_checkpoint

    (name,) = _known([model])
    if out.exists():
        raise OutputError(f"--out {out}", received="something that is there", expected="a folder to make")
    with Console(stderr=True).status(MODELS[name].title) as status:
        synthetic_checkpoint(MODELS[name], out, status.update)
    print(out)


def _show(bar: Progress, task: TaskID, text: str) -> None:
    bar.update(task, description=text, advance=1)


def _known(names: list[str]) -> list[str]:
    from .published import MODELS

    for name in names:
        if name not in MODELS:
            raise RequestError("model", received=name, expected=", ".join(MODELS))
    return names
