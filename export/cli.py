"""``latentrt build-engines``: a bundle from a checkpoint."""

from __future__ import annotations

import time
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import msgspec
import typer

if TYPE_CHECKING:
    from ..runtime.manifest import Manifest
    from .bundle_from_checkpoint import BuildEvent

app = typer.Typer(add_completion=False)


@app.command()
def build_engines(
    checkpoint: Annotated[Path, typer.Argument(help="A checkpoint in the diffusers folder layout.")],
    out: Annotated[Path, typer.Option(help="The bundle to write; one that exists is rebuilt where it changed.")],
    provider: Annotated[str, typer.Option(help="What the engines are for.")] = "onnxruntime-cpu",
    precision: Annotated[str, typer.Option(help="fp32, fp16 or bf16.")] = "fp32",
    aspects: Annotated[
        str | None, typer.Option(help="Sizes to accept: WxH,... or a family's name (its training buckets).")
    ] = None,
    batch: Annotated[str, typer.Option(help="Images per engine call: MIN:OPT:MAX.")] = "1:1:8",
    component: Annotated[
        list[str] | None,
        typer.Option(help="Build only this component (may be repeated); others stay as they are in the bundle."),
    ] = None,
    onnx_only: Annotated[bool, typer.Option("--onnx-only", help="Export the ONNX graphs, compile no engines.")] = False,
    force: Annotated[bool, typer.Option("--force", help="Build everything anew.")] = False,
    as_json: Annotated[bool, typer.Option("--json", help="Print one JSON object instead of tables.")] = False,
) -> None:
    """Export every component of CHECKPOINT, compile it, check it against PyTorch, and write a bundle.

    Whatever has not changed since the bundle was last built is taken over; the rest says what changed.
    """
    from ..runtime.errors import RequestError
    from .checkpoint import read_checkpoint
    from .profiles import batch_from_text

    if precision not in ("fp32", "fp16", "bf16"):
        raise RequestError("--precision", received=precision, expected="fp32, fp16 or bf16")
    images = batch_from_text(batch)
    read_checkpoint(checkpoint)  # a wrong path is told at once, not after torch has been imported

    with _Progress(quiet=as_json) as progress:
        progress.note("importing torch and diffusers")
        from .bundle_from_checkpoint import BuildOptions, bundle_from_checkpoint

        options = BuildOptions(provider, precision, aspects, images, tuple(component or ()), onnx_only, force)
        manifest = bundle_from_checkpoint(checkpoint, out, options, progress.event)
    if as_json:
        done = {event.component: {"seconds": event.seconds, "why": event.reason} for event in progress.done}
        print(
            msgspec.json.encode(
                {"bundle": str(out), "seconds": progress.seconds, "components": done, "files": manifest.files}
            ).decode()
        )
    else:
        _summary(out, manifest, progress)


class _Progress:
    """What is being done, as a spinner on a terminal and as lines elsewhere."""

    def __init__(self, quiet: bool):
        from rich.console import Console

        self._console = Console(stderr=True, quiet=quiet)
        self._status = self._console.status("starting")
        self._start = time.perf_counter()
        self.seconds = 0.0
        self.done: list[BuildEvent] = []

    def __enter__(self) -> _Progress:
        self._status.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._status.stop()
        self.seconds = time.perf_counter() - self._start

    def note(self, text: str) -> None:
        """Say what is going on now."""
        self._status.update(text)
        if not self._console.is_terminal:
            self._print(text)

    def event(self, event: BuildEvent) -> None:
        """Show a builder's event."""
        if event.stage == "wait":
            self.note("waiting for another build of this bundle to end")
        elif event.stage == "done":
            self.done.append(event)
            self._print(f"{event.component}: {event.reason}, {event.seconds:.1f} s")
        else:
            self._status.update(f"{event.component}: {event.stage}")

    def _print(self, text: str) -> None:
        self._console.print(text, highlight=False, markup=False, soft_wrap=True)


def _summary(out: Path, manifest: Manifest, progress: _Progress) -> None:
    from rich.console import Console
    from rich.table import Table

    from .build_component import REUSED
    from .verify import worst

    table = Table("component", "parameters", "MB", "cosine distance", "max-abs", "seconds", "")
    engines = {engine.component: engine for engine in manifest.engines}
    for event in progress.done:
        record = manifest.components[event.component]
        size = sum(manifest.files[name].size for name in (record.onnx, *record.weights)) / 1e6
        figures = worst(engines[event.component].gate) if event.component in engines else None
        table.add_row(
            event.component,
            f"{record.parameters / 1e6:.2f} M",
            f"{size:.1f}",
            f"{figures.cosine_distance:.1e}" if figures else "-",
            f"{figures.max_abs:.1e}" if figures else "-",
            f"{event.seconds:.1f}",
            "reused" if event.reason == REUSED else "built",
        )
    console = Console()
    console.print(table)
    total = sum(record.size for record in manifest.files.values()) / 1e6
    text = f"{out}: {manifest.family}, {total:.1f} MB, built in {progress.seconds:.1f} s"
    console.print(text, highlight=False, markup=False, soft_wrap=True)
