"""``latentrt bench``: a bundle beside other programs on the same checkpoint, and what changed between two results."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import Annotated

import msgspec
import typer
from typer.core import TyperGroup

from ..runtime.cli.values import size_from_text
from ..runtime.errors import RequestError
from .cli_gpu import gpu, synthetic


class _MeasureByDefault(TyperGroup):
    """``latentrt bench BUNDLE`` is ``latentrt bench run BUNDLE``."""

    def parse_args(self, ctx: object, args: list[str]) -> list[str]:
        """Put the command's name in front where it was left out."""
        if args and args[0] not in self.commands and args[0] not in ("--help", "-h"):
            args = ["run", *args]
        return super().parse_args(ctx, args)  # type: ignore[arg-type]


app = typer.Typer(add_completion=False, cls=_MeasureByDefault)


@app.command()
def run(
    bundle: Annotated[Path, typer.Argument(help="A bundle, made by latentrt build-engines.")],
    reference: Annotated[Path, typer.Option(help="The checkpoint it was built from, run by the other programs.")],
    out: Annotated[Path, typer.Option(help="Folder for results.json, report.md and report.html.")],
    suite: Annotated[list[str] | None, typer.Option(help="What to measure (may be repeated); all: everything.")] = None,
    side: Annotated[list[str] | None, typer.Option(help="Program to compare with (may be repeated), or all.")] = None,
    also: Annotated[list[str] | None, typer.Option(help="NAME=BUNDLE: another bundle as a side.")] = None,
    prompt: Annotated[list[str] | None, typer.Option(help="What is drawn; the first is timed.")] = None,
    size: Annotated[list[str] | None, typer.Option(help="WIDTHxHEIGHT; more than one: also these.")] = None,
    steps: Annotated[list[int] | None, typer.Option(help="Denoising steps. Default: 20.")] = None,
    guidance_scale: Annotated[list[float] | None, typer.Option(help="Guidance. Default: 5.")] = None,
    images: Annotated[list[int] | None, typer.Option(help="Pictures per call. Default: 1.")] = None,
    seed: Annotated[int, typer.Option(help="Seed on all sides.")] = 7,
    threads: Annotated[int | None, typer.Option(help="Threads of all sides. Default: all available.")] = None,
    runs: Annotated[int, typer.Option(help="Warm runs of each side.")] = 15,
    warm_up: Annotated[int, typer.Option(help="Calls between the first one and the measured ones.")] = 3,
    cold_runs: Annotated[int, typer.Option(help="Cold starts of each side.")] = 3,
    load_seconds: Annotated[float, typer.Option(help="Length of each load of the suite throughput.")] = 10.0,
    judge: Annotated[Path | None, typer.Option(help="Folder of a judge of pictures (retrieval.py); it is run.")] = None,
    cache: Annotated[Path | None, typer.Option(help="Folder of other programs' environments and exports.")] = None,
    provider: Annotated[
        str, typer.Option(help="LatentRT's. Default: all of the bundle's that run on one device.")
    ] = "auto",
    allow_different_weights: Annotated[
        bool, typer.Option("--allow-different-weights", help="Measure speed beside a reference of other weights.")
    ] = False,
) -> None:
    """Measure a bundle beside other programs: a report, then one line of JSON."""
    import diffusers  # noqa: F401  # the reference; a missing extra is told before anything is measured
    import matplotlib as mpl  # noqa: F401  # likewise: for the report
    from rich.console import Console

    from .prepare import PROMPTS, Wishes, prepare
    from .report_files import make_folder
    from .report_terminal import progress_bar
    from .run import SHORT
    from .run_to_files import run_to_files

    wishes = Wishes(
        suites=tuple(suite or SHORT),
        sides=tuple(side or ()),
        also=_bundles(also or []),
        prompts=tuple(prompt or PROMPTS),
        sizes=tuple(size_from_text(text) for text in size or ()),
        steps=tuple(steps or (20,)),
        guidance=tuple(guidance_scale or (5.0,)),
        images=tuple(images or (1,)),
        seed=seed,
        threads=threads,
        runs=runs,
        warm_up=warm_up,
        cold_runs=cold_runs,
        load_seconds=load_seconds,
        judge=judge,
        cache=cache,
        provider=provider,
        allow_different_weights=allow_different_weights,
    )
    console = Console(stderr=True)
    with progress_bar(console) as bar:
        task = bar.add_task("starting", total=None)
        prepared = prepare(
            bundle, reference, wishes, progress=lambda text: bar.update(task, description=text, advance=1)
        )
        make_folder(out)
        status = run_to_files(prepared, out, ["latentrt", "bench", *sys.argv[2:]], console, bar, task)
    if status:
        raise typer.Exit(status)


@app.command()
def report(
    results: Annotated[Path, typer.Argument(help="results.json, or its folder.")],
    out: Annotated[Path, typer.Option(help="Folder for report.md, report.html and the plots.")],
) -> None:
    """Write the report of results once more, as this version writes it."""
    from .report_files import make_folder, write_report
    from .report_terminal import show
    from .results import read_results

    read = read_results(results)
    make_folder(out)
    write_report(read, out)
    show(read)


@app.command()
def compare(
    before: Annotated[Path, typer.Argument(help="results.json, or its folder.")],
    after: Annotated[Path, typer.Argument(help="Another one.")],
    max_regression: Annotated[float, typer.Option(help="Exit 1 if a figure of LatentRT's is worse by more, in %.")] = 5,
) -> None:
    """Show what changed from one result to another, and whether it is more than chance.

    Worse is a median that is beyond both chance and the limit, and a peak of memory that is beyond the limit.
    """
    from .baselines import OURS
    from .changes import differences, table_of
    from .report_terminal import output, rich_table
    from .results import read_results

    if not 0 <= max_regression < float("inf"):
        raise RequestError("--max-regression", received=max_regression, expected="percent, at least 0")
    old, new = read_results(before), read_results(after)
    found, limit = differences(old, new), max_regression / 100
    console = output()
    console.print(rich_table(table_of(old, new, found, limit), console.width))
    worse = [entry for entry in found if entry.side == OURS and entry.regressed(limit)]
    line = {
        "worse": {entry.what: entry.change.ratio for entry in worse},
        "too_few_runs": [entry.what for entry in found if entry.side == OURS and entry.too_few_runs],
        "max_regression": limit,
    }
    print(msgspec.json.encode(line).decode())
    if worse:
        raise typer.Exit(1)


@app.command()
def setup(
    environment: Annotated[str, typer.Argument(help="optimum-onnx or openvino.")],
    cache: Annotated[Path | None, typer.Option(help="Folder of environments and exports.")] = None,
) -> None:
    """Install baselines that need other versions than ours into an environment of their own."""
    from rich.console import Console

    from .baselines import cache_folder, set_up

    with Console(stderr=True).status(f"installing {environment}"):
        python = set_up(environment, (cache or cache_folder()) / "environments")
    print(python)


app.command()(gpu)
app.command()(synthetic)


def _bundles(texts: list[str]) -> dict[str, Path]:
    bundles = {}
    for text in texts:
        name, equals, path = text.partition("=")
        if not (name and equals and path):
            raise RequestError("--also", received=text, expected="NAME=BUNDLE")
        bundles[name] = Path(path)
    return bundles
