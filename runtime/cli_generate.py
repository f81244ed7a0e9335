"""``latentrt generate``: pictures from the command line."""

from __future__ import annotations

import sys
import time
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import msgspec
import typer

from .errors import RequestError

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray
    from rich.progress import Progress, TaskID

    from .pipeline import Pipeline

app = typer.Typer(add_completion=False)

#: A run shorter than this shows no progress bar, and does not pay for importing one.
_PATIENCE_SECONDS = 1.0


@app.command()
def generate(
    bundle: Annotated[Path, typer.Argument(help="A bundle, made by latentrt build-engines.")],
    prompt: Annotated[list[str], typer.Argument(help="One or more prompts; quote each.")],
    output: Annotated[Path, typer.Option("-o", "--output", help="PNG to write; several get -0, -1, ... before .png.")],
    negative_prompt: Annotated[str | None, typer.Option(help="What to keep out of the picture.")] = None,
    size: Annotated[str | None, typer.Option(help="WIDTHxHEIGHT in pixels, e.g. 1152x896.")] = None,
    steps: Annotated[int | None, typer.Option(help="Denoising steps.")] = None,
    guidance_scale: Annotated[
        float | None, typer.Option(help="How strictly to follow the prompt; 1 turns it off.")
    ] = None,
    seed: Annotated[int | None, typer.Option(help="Seed of the first picture; each next has one more.")] = None,
    num_images: Annotated[int, typer.Option("-n", "--num-images", help="Pictures per prompt.")] = 1,
    sampler: Annotated[str | None, typer.Option(help="See latentrt samplers. Default: the checkpoint's.")] = None,
    schedule: Annotated[str | None, typer.Option(help="See latentrt samplers. Default: the checkpoint's.")] = None,
    provider: Annotated[str, typer.Option(help="What runs the engines.")] = "auto",
    threads: Annotated[int | None, typer.Option(help="Processor threads. Default: all available.")] = None,
    verify: Annotated[bool, typer.Option(help="Check the bundle's files against their hashes first.")] = True,
    as_json: Annotated[bool, typer.Option("--json", help="Print one JSON object instead of text.")] = False,
) -> None:
    """Make pictures from PROMPT and write them as PNG files that record how they were made."""
    start = time.perf_counter()
    width, height = size_from_text(size) if size is not None else (None, None)
    if not output.parent.is_dir():  # before the work, not after it
        raise RequestError(
            "--output", received=str(output), expected=f"a file in a folder that exists: {output.parent}"
        )

    from .pipeline import load

    with load(bundle, provider=provider, threads=threads, verify=verify) as pipe, _Progress() as progress:
        loaded = time.perf_counter()
        result = pipe(
            prompt,
            negative_prompt=negative_prompt,
            width=width,
            height=height,
            num_inference_steps=steps,
            guidance_scale=guidance_scale,
            seed=seed,
            num_images_per_prompt=num_images,
            sampler=sampler,
            schedule=schedule,
            callback_on_step_end=progress.step,
        )
    paths = [str(path) for path in result.save(output)]
    made = result.provenance[0]
    if as_json:
        seconds = {"load": loaded - start, **result.timings.as_dict()}
        print(msgspec.json.encode({"images": paths, "seeds": result.seeds, "seconds": seconds}).decode())
        return
    for path, seed_used in zip(paths, result.seeds, strict=True):
        print(f"{path}  seed {seed_used}")
    print(
        f"{made.width}x{made.height}, {made.num_inference_steps} steps of {made.sampler} ({made.schedule}): "
        f"{result.timings.total:.3f} s, loading {loaded - start:.3f} s"
    )


def size_from_text(text: str) -> tuple[int, int]:
    """``"1152x896"`` -> (1152, 896), (width, height).

    Raises:
        RequestError: anything else.
    """
    width, x, height = text.lower().partition("x")
    if not (x and width.isdecimal() and height.isdecimal()):
        raise RequestError("--size", received=text, expected="WIDTHxHEIGHT, for example 1152x896")
    return int(width), int(height)


class _Progress:
    """A bar on the terminal for runs that take longer than a second."""

    def __init__(self) -> None:
        self._start = time.perf_counter()
        self._bar: Progress | None = None
        self._task: TaskID | None = None

    def __enter__(self) -> _Progress:
        return self

    def __exit__(self, *_: object) -> None:
        if self._bar is not None:
            self._bar.stop()

    def step(self, pipe: Pipeline, index: int, timestep: float, state: dict[str, NDArray[np.float32]]) -> None:
        """The pipeline's callback."""
        if self._bar is None:
            if time.perf_counter() - self._start < _PATIENCE_SECONDS or not sys.stderr.isatty():
                return
            from rich.console import Console
            from rich.progress import Progress

            self._bar = Progress(console=Console(stderr=True), transient=True)
            self._bar.start()
            self._task = self._bar.add_task("denoising", total=None)
        if self._task is not None:
            self._bar.update(self._task, completed=index + 1)
