"""``latentrt inspect``: what a bundle holds, or how a picture was made."""

from __future__ import annotations

import importlib
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Annotated, Any

import msgspec
import typer
from rich.console import Console
from rich.markup import escape
from rich.table import Table

from ..bundles.bundle import Bundle, open_bundle
from ..bundles.kernels import kernels_of
from ..bundles.manifest import MANIFEST_NAME, Component, EngineRecord, Manifest
from ..bundles.spec import Profile
from ..errors import MissingDependencyError, RequestError
from ..images.provenance import details_text, read_provenance

app = typer.Typer(add_completion=False)

#: Columns where standard output is not a terminal; 80 would cut names short.
PIPED_WIDTH = 120

READABLE = "a bundle's folder, or a PNG written by LatentRT or by an A1111-compatible tool"


@app.command()
def inspect(
    path: Annotated[Path, typer.Argument(help="A bundle folder, or a PNG made by LatentRT.")],
    as_json: Annotated[bool, typer.Option("--json", help="Print one JSON object instead of tables.")] = False,
    verify: Annotated[bool, typer.Option(help="Check a bundle's files against their hashes.")] = True,
    component: Annotated[
        str | None, typer.Option(help="The component that --layers is about. Default: denoiser.")
    ] = None,
    layers: Annotated[bool, typer.Option("--layers", help="Show every layer: operator, dtypes and shapes.")] = False,
) -> None:
    """Show a bundle's components, shapes, precision, sizes, hashes and gate figures; or a picture's provenance."""
    if component is not None and not layers:
        raise RequestError("--component", received=component, expected="--layers with it")
    if layers and as_json:
        raise RequestError("--layers and --json exclude each other", expected="one of them")
    if path.name == MANIFEST_NAME and path.is_file():
        raise RequestError(str(path), expected="the bundle's folder", remedy=f"latentrt inspect {path.parent}")
    if path.is_file():
        for option, given in (("--layers", layers), ("--no-verify", not verify)):
            if given:
                raise RequestError(option, received=f"{path}, a file", expected="a bundle's folder")
        _show_picture(path, as_json)
    elif layers:
        _show_layers(open_bundle(path, verify=verify), component or "denoiser")
    else:
        _show_bundle(open_bundle(path, verify=verify), as_json, verify)


def _show_picture(path: Path, as_json: bool) -> None:
    try:
        made, parameters = read_provenance(path)
    except RequestError as error:
        raise RequestError(error.subject, received=error.received, expected=READABLE) from None
    if made is None and parameters is None:
        raise RequestError(f"{path}: no provenance", expected=READABLE)
    if as_json:
        record = None if made is None else msgspec.to_builtins(made)
        print(msgspec.json.encode({"provenance": record, "parameters": parameters}).decode())
        return
    if parameters is not None:
        print(parameters)
    if made is not None:
        print("\n" + details_text(made))


def _show_layers(bundle: Bundle, component: str) -> None:
    """Graphs are read by what export needs, and so by code of that package: it is not imported for anything else."""
    if component not in bundle.manifest.components:
        raise RequestError("--component", received=component, expected=", ".join(bundle.manifest.components))
    try:
        export = importlib.import_module("latentrt.export.graphs.layers")
    except ModuleNotFoundError as error:
        remedy = "install it: pip install 'latentrt[export]'"
        subject = "`latentrt inspect --layers` needs the export extra"
        raise MissingDependencyError(subject, received=f"no module {error.name}", remedy=remedy) from None
    print(export.layers_text(bundle, component))


def _show_bundle(bundle: Bundle, as_json: bool, verified: bool) -> None:
    manifest = bundle.manifest
    if as_json:
        content: dict[str, Any] = msgspec.to_builtins(manifest)
        print(msgspec.json.encode({"hash": bundle.hash, "manifest": content}).decode())
        return

    console = Console(width=None if sys.stdout.isatty() else PIPED_WIDTH)
    space, defaults = manifest.latent_space, manifest.defaults
    size = sum(record.size for record in manifest.files.values())
    console.print(f"[bold]{manifest.name}[/bold]: {manifest.family}, built by LatentRT {manifest.latentrt}")
    state = "every file verified" if verified else "not verified"
    console.print(f"sha256 {bundle.hash}, {len(manifest.files)} files, {size / 1e6:.1f} MB, {state}", soft_wrap=True)
    console.print(
        f"default {defaults.width}x{defaults.height}, {defaults.num_inference_steps} steps, "
        f"guidance {defaults.guidance_scale:g}, {manifest.scheduler.get('_class_name')}; "
        f"sides are multiples of {space.stride}"
    )
    console.print("buckets " + ", ".join(f"{width}x{height}" for width, height in manifest.buckets))

    console.print(_components(manifest))
    for note in _notes(manifest):
        console.print(note, highlight=False, markup=False)
    if (kernels := kernels_of(bundle)) is not None:
        key = kernels.index.key
        text = f"kernels for {key['targets']}, of {key['dtypes']}, by Triton {key['triton']}"
        console.print(text, highlight=False, markup=False)
    for name, component in manifest.components.items():
        console.print(f"\n[bold]{name}[/bold]", highlight=False)
        for label, tensors in (("in", component.inputs), ("out", component.outputs)):
            for tensor in tensors:
                console.print(f"  {label:4}{escape(str(tensor))}", highlight=False)
        console.print(f"  min..opt..max  {_sizes(component.profile)}", highlight=False)
        for line in _tunings(manifest, name):
            console.print(line, highlight=False)
    files = Table("file", "bytes", "sha256", title="\nFiles", title_justify="left")
    for name, record in manifest.files.items():
        files.add_row(name, f"{record.size:,}", record.sha256[:16])
    console.print(files)
    console.print("built with " + ", ".join(f"{name} {version}" for name, version in manifest.tools.items()))


def _components(manifest: Manifest) -> Table:
    """A row per component and provider, with the worst figures of the gate: the engine's, or else the graph's."""
    table = Table(
        "component", "type", "weights", "provider", "MB", "compared", "cosine\ndistance", "max-abs", "largest"
    )
    for name, component in manifest.components.items():
        engines = [engine for engine in manifest.engines if engine.component == name]
        row = (name, component.precision, f"{component.parameters / 1e6:.2f} M")
        for engine in engines:
            provider = "\n".join([engine.provider, engine.provider_version, *engine.targets])
            table.add_row(
                *row, provider, f"{_engine_bytes(manifest, engine) / 1e6:.1f}", *gate_figures(component, engine)
            )
        if not engines:
            table.add_row(*row, "none", "-", *gate_figures(component, None))
    return table


def _notes(manifest: Manifest) -> Iterator[str]:
    """What the table of components leaves open: why something was not compared, and why engines are so large."""
    reasons: dict[str, dict[str, None]] = {}
    for name, component in manifest.components.items():
        if component.not_run:
            reasons.setdefault(component.not_run, {})[f"the graph of {name}"] = None
    for engine in manifest.engines:
        if engine.not_run:
            reasons.setdefault(engine.not_run, {})[f"engines of {engine.provider}"] = None
    for reason, subjects in reasons.items():
        yield f"not compared: {', '.join(subjects)}: {reason}"
    for provider in dict.fromkeys(engine.provider for engine in manifest.engines if not engine.weights):
        yield (
            f"engines of {provider} hold a copy of their weights, one for all of their targets: to leave it out, and "
            "fill in the bundle's own, takes a GPU where they are built"
        )


def _tunings(manifest: Manifest, name: str) -> dict[str, None]:
    """What engines of a component are tuned for, where they have several profiles; other targets have the same."""
    several = [engine for engine in manifest.engines if engine.component == name and len(engine.profiles) > 1]
    return {f"  {engine.provider} for  {_sizes(profile)}": None for engine in several for profile in engine.profiles}


def _sizes(profile: Profile) -> str:
    return ", ".join(f"{axis} {allowed}" for axis, allowed in profile.items())


def gate_figures(component: Component, engine: EngineRecord | None) -> tuple[str, str, str, str]:
    """What was compared with PyTorch, and how far it was at most."""
    compared, gate = ("engine", engine.gate) if engine is not None and engine.gate else ("graph", component.gate)
    if not gate:
        return "nothing", "-", "-", "-"
    worst = max(gate, key=lambda figures: figures.cosine_distance)
    largest = max(figures.max_abs for figures in gate)
    return compared, f"{worst.cosine_distance:.0e}", f"{largest:.0e}", f"{worst.reference_max_abs:.3g}"


def _engine_bytes(manifest: Manifest, engine: EngineRecord) -> int:
    """Bytes an engine reads: its graph and the weight files it refers to, which other graphs may share."""
    return sum(manifest.files[name].size for name in (engine.path, *engine.weights))
