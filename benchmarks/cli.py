"""``latentrt bench``: a bundle beside diffusers on the checkpoint it was built from."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import diffusers  # noqa: F401  # the reference; imported here so that a missing extra is told at once
import msgspec
import typer

from ..runtime.bundle import open_bundle
from ..runtime.cli_generate import size_from_text
from ..runtime.providers import available_threads
from .compare import compare
from .report import table
from .workload import Workload

app = typer.Typer(add_completion=False)


@app.command()
def bench(
    bundle: Annotated[Path, typer.Argument(help="A bundle, made by latentrt build-engines.")],
    reference: Annotated[Path, typer.Option(help="The checkpoint it was built from, run by diffusers.")],
    prompt: Annotated[str, typer.Option(help="What both sides draw.")] = "a rocket on a blue background",
    size: Annotated[str | None, typer.Option(help="WIDTHxHEIGHT. Default: the bundle's.")] = None,
    steps: Annotated[int, typer.Option(help="Denoising steps.")] = 20,
    guidance_scale: Annotated[float, typer.Option(help="Guidance on both sides.")] = 5.0,
    seed: Annotated[int, typer.Option(help="Seed on both sides.")] = 7,
    threads: Annotated[int | None, typer.Option(help="Threads of both sides. Default: all available.")] = None,
    runs: Annotated[int, typer.Option(help="Warm runs of each side.")] = 15,
    cold_runs: Annotated[int, typer.Option(help="Cold starts of each side.")] = 5,
    out: Annotated[Path | None, typer.Option(help="Also write the JSON to this file.")] = None,
) -> None:
    """Measure warm latency, cold start, stages and memory beside diffusers eager; a table, then one line of JSON."""
    from rich.console import Console

    defaults = open_bundle(bundle, verify=False).manifest.defaults
    width, height = size_from_text(size) if size is not None else (defaults.width, defaults.height)
    work = Workload(prompt, width, height, steps, guidance_scale, seed, threads or available_threads())
    console = Console(stderr=True)
    with console.status("starting") as status:
        result = compare(str(bundle), str(reference), work, runs=runs, cold_runs=cold_runs, progress=status.update)
    Console().print(table(result))
    line = msgspec.json.encode(result)
    if out is not None:
        out.parent.mkdir(parents=True, exist_ok=True)
        out.write_bytes(msgspec.json.format(line, indent=1) + b"\n")
    print(line.decode(), flush=True)
