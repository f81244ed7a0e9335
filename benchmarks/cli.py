"""``latentrt bench``: a bundle beside other programs on the same checkpoint, and what changed between two results."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import diffusers  # noqa: F401  # the reference; imported here so that a missing extra is told at once
import matplotlib as mpl  # noqa: F401  # likewise: after the measurement would be too late
import msgspec
import typer
from typer.core import TyperGroup

from ..runtime.cli_inspect import PIPED_WIDTH
from ..runtime.cli_values import size_from_text
from ..runtime.errors import OutputError, RequestError

if TYPE_CHECKING:
    from rich.progress import Progress

    from .results import Record, Results


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
    allow_different_weights: Annotated[bool, typer.Option("--allow-different-weights")] = False,
) -> None:
    """Measure a bundle beside other programs: a report, then one line of JSON."""
    from rich.console import Console

    from .prepare import PROMPTS, Wishes, prepare
    from .run import SHORT, Recorder, amount, measure

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
        allow_different_weights=allow_different_weights,
    )
    console = Console(stderr=True)
    recorder = Recorder()
    with _bar(console) as bar:
        task = bar.add_task("starting", total=None)
        prepared = prepare(
            bundle, reference, wishes, progress=lambda text: bar.update(task, description=text, advance=1)
        )
        _make_folder(out)
        bar.update(task, total=amount(prepared.plan, prepared.suites))
        partial = measure(
            prepared.plan,
            prepared.suites,
            prepared.missing,
            recorder,
            seen=lambda record: _tell(console.print, record),
        )
    results = prepared.results(["latentrt", "bench", *sys.argv[2:]], recorder.records, partial)
    _write(results, out)
    _show(results)
    print(_json_line(results, out), flush=True)
    if partial is not None:
        print(f"interrupted during {partial}: what was measured is in {out}", file=sys.stderr)
        raise typer.Exit(130)


@app.command()
def compare(
    before: Annotated[Path, typer.Argument(help="results.json, or its folder.")],
    after: Annotated[Path, typer.Argument(help="Another one.")],
    max_regression: Annotated[float, typer.Option(help="Exit 1 if a figure of LatentRT's is worse by more, in %.")] = 5,
) -> None:
    """Show what changed from one result to another, and whether it is more than chance."""
    from rich.console import Console

    from .baselines import OURS
    from .changes import differences, table_of
    from .report_terminal import rich_table
    from .results import read_results

    if not 0 <= max_regression < float("inf"):
        raise RequestError("--max-regression", received=max_regression, expected="percent, at least 0")
    old, new = read_results(before), read_results(after)
    found, limit = differences(old, new), max_regression / 100
    Console().print(rich_table(table_of(old, new, found, limit)))
    worse = [entry for entry in found if entry.side == OURS and entry.regressed(limit)]
    print(
        msgspec.json.encode(
            {"worse": {entry.what: entry.change.ratio for entry in worse}, "max_regression": limit}
        ).decode()
    )
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


def _bundles(texts: list[str]) -> dict[str, Path]:
    bundles = {}
    for text in texts:
        name, equals, path = text.partition("=")
        if not (name and equals and path):
            raise RequestError("--also", received=text, expected="NAME=BUNDLE")
        bundles[name] = Path(path)
    return bundles


def _bar(console: object) -> Progress:
    from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeElapsedColumn

    columns = (BarColumn(), MofNCompleteColumn(), TimeElapsedColumn(), TextColumn("{task.description}"))
    return Progress(*columns, console=console)  # type: ignore[arg-type]


def _tell(say: object, record: Record) -> None:
    """Bounds as soon as they are known, before what they bound is measured; and who is not there."""
    from .results import Absent, Bound, Peaks

    text = None
    if isinstance(record, Peaks):
        best, copy = record.matmul / 1e9, record.copy / 1e9
        text = f"this machine: {best:.0f} GFLOP/s ({record.matmul_by}), copying {copy:.1f} GB/s"
    elif isinstance(record, Bound):
        text = f"bound of {record.stage}: {record.seconds * 1e3:.1f} ms ({record.flops / 1e9:.1f} GFLOP)"
    elif isinstance(record, Absent):
        text = f"absent: {record.title}: {record.reason}"
    if text is not None:
        say(text, highlight=False, markup=False, soft_wrap=True)  # type: ignore[operator]


def _make_folder(out: Path) -> None:
    """Before the work, not after it."""
    try:
        out.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise OutputError(f"--out {out}", received=error.strerror, expected="a folder to write to") from None


def _write(results: Results, out: Path) -> None:
    from .plots import plots
    from .report_html import html
    from .report_markdown import markdown
    from .results import encode_results

    (out / "results.json").write_bytes(encode_results(results))
    drawn = plots(results)
    for plot in drawn:
        (out / f"{plot.name}.svg").write_text(plot.svg, encoding="utf-8")
    (out / "report.md").write_text(markdown(results, drawn), encoding="utf-8")
    (out / "report.html").write_text(html(results, drawn), encoding="utf-8")


def _show(results: Results) -> None:
    from rich.console import Console

    from .report_markdown import warnings
    from .report_terminal import rich_table
    from .tables import headline, limits, stage_table

    console = Console(width=None if sys.stdout.isatty() else PIPED_WIDTH)
    for table in (headline(results), stage_table(results), limits(results)):
        if table.rows:
            console.print(rich_table(table))
    for text in warnings(results):
        console.print(text, highlight=False, markup=False)


def _json_line(results: Results, out: Path) -> str:
    """The headline's figures; all samples are in the file that it names."""
    from .figures import cold, cold_ratio, sides, warm, warm_ratio

    figures = {
        side: {
            "warm": warm(results, side),
            "warm_ratio": warm_ratio(results, side),
            "cold": cold(results, side),
            "cold_ratio": cold_ratio(results, side),
        }
        for side in sides(results)
    }
    line = {
        "schema_version": results.schema_version,
        "results": str(out / "results.json"),
        "partial": results.partial,
        "sides": figures,
    }
    return msgspec.json.encode(line).decode()
