"""The whole way from a checkpoint to a bundle, component by component, reusing what has not changed."""

from __future__ import annotations

import contextlib
import os
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path

from ..runtime import manifest as contract
from ..runtime.errors import RequestError
from .buckets import Bucket
from .build_component import ComponentBuilder
from .build_engine import EngineBuilder, EngineOptions, compiler_for, default_precision
from .build_graph import GraphBuilder
from .checkpoint import Checkpoint, read_checkpoint
from .components import Component, latent_stride, max_side, native_side, vae_scale
from .components_from_checkpoint import components_from_checkpoint
from .events import REUSED, BuildEvent, Report
from .manifest_from_checkpoint import manifest_from_checkpoint
from .precision import PRECISIONS
from .profiles import Batch, buckets_from_text, profile_text, profiles
from .record import RECORD_NAME, BuildRecord
from .store import BundleWriter
from .tensorrt.library import is_tensorrt
from .tensorrt.resources import check_disk
from .text_encodings import text_encodings
from .weights import WeightStore


@dataclass(frozen=True)
class BuildOptions:
    """What to build.

    ``components`` empty means all of them. Those that are not named stay as they are in a bundle that is there, and
    must not have changed. ``force`` takes nothing over for those that are built. ``precision`` is by default what the
    provider is used with. ``parts`` and ``prediction_type`` are those of ``read_checkpoint``. ``skip_layers`` are
    those that skip-layer guidance leaves out; by default what the checkpoint's family says, and none if empty.
    """

    engine: EngineOptions = field(default_factory=EngineOptions)
    precision: str | None = None
    aspects: str | None = None
    batch: Batch = field(default_factory=lambda: Batch(1, 1, 8))
    components: tuple[str, ...] = ()
    onnx_only: bool = False
    force: bool = False
    parts: Mapping[str, Path] = field(default_factory=dict)
    prediction_type: str | None = None
    skip_layers: tuple[int, ...] | None = None


def bundle_from_checkpoint(
    checkpoint: str | os.PathLike[str],
    out: str | os.PathLike[str],
    options: BuildOptions | None = None,
    report: Report = lambda event: None,
) -> contract.Manifest:
    """Build a bundle at ``out`` and return its manifest.

    Raises:
        CheckpointError, OutputError, RequestError: input that cannot be used; nothing is left behind.
        ExportError, GateError, EngineError: a component could not be built; nothing is left behind.
    """
    options = options or BuildOptions()
    record = BuildRecord(options, report)
    with _building(checkpoint, out, options, record.event) as build:
        writer, options = build.builder.graphs.writer, build.options
        if not options.onnx_only and is_tensorrt(options.engine.provider):
            sizes = {
                component.name: component.weight_bytes
                for component in build.components
                if component.name in build.chosen
            }
            check_disk(writer.folder, sizes)
        encodings = text_encodings(build.checkpoint, {component.name for component in build.components}, writer)
        records: dict[str, contract.Component] = {}
        engines: list[contract.EngineRecord] = []
        for component in build.components:
            force = options.force and component.name in build.chosen
            records[component.name], of_component = build.builder.build(component, force=force)
            engines += of_component
        manifest = manifest_from_checkpoint(
            build.checkpoint, build.denoiser, build.buckets, encodings, records, engines, writer.files
        )
        (writer.folder / RECORD_NAME).write_bytes(record.encode(manifest.tools))
        writer.commit(manifest)
    return manifest


def planned_changes(
    checkpoint: str | os.PathLike[str],
    out: str | os.PathLike[str],
    options: BuildOptions | None = None,
    report: Report = lambda event: None,
) -> dict[str, str]:
    """Why each component would be built, or that it would be reused; nothing is built or changed.

    Raises:
        CheckpointError, OutputError, RequestError: input that cannot be used.
    """
    with _building(checkpoint, out, options or BuildOptions(), report) as build:
        forced = build.chosen if build.options.force else frozenset()
        return {
            component.name: "forced" if component.name in forced else build.builder.changes(component) or REUSED
            for component in build.components
        }


@dataclass(frozen=True)
class _Build:
    """A build that can begin: its input is checked, its output is open. ``options`` have no precision left open.

    ``components`` are those that the bundle will hold, ``chosen`` those among them that were asked for; the others are
    taken over. ``denoiser`` is there for its contract, whether it is among them or not.
    """

    checkpoint: Checkpoint
    options: BuildOptions
    buckets: tuple[Bucket, ...]
    components: tuple[Component, ...]
    chosen: frozenset[str]
    denoiser: Component
    builder: ComponentBuilder


@contextlib.contextmanager
def _building(
    checkpoint: str | os.PathLike[str], out: str | os.PathLike[str], options: BuildOptions, report: Report
) -> Iterator[_Build]:
    options = _with_precision(options)
    read = read_checkpoint(checkpoint, options.parts, options.prediction_type)
    compiler = None if options.onnx_only else compiler_for(options.engine)
    precision = str(options.precision)
    if compiler is not None:
        compiler.check_precision(precision)
    scale, side = vae_scale(read), native_side(read)
    buckets = buckets_from_text(options.aspects, read.family, side, latent_stride(read) * scale, max_side(read))
    available = components_from_checkpoint(read, precision, options.skip_layers)
    chosen = _chosen(available, options.components)
    with BundleWriter(out, lambda: report(BuildEvent("", "wait"))) as writer:
        ranges = profiles(buckets, options.batch, scale, side, read.family)
        tuned = [ranges]
        if options.engine.profiles == "buckets":
            tuned = [profiles((bucket,), options.batch, scale, side, read.family) for bucket in buckets]
        report(BuildEvent("", "profiles", detail=profile_text(tuned)))
        weights = WeightStore(writer)
        builder = ComponentBuilder(
            GraphBuilder(read, ranges, writer, weights, report),
            None if compiler is None else EngineBuilder(compiler, tuple(tuned), writer, weights, report),
            report,
        )
        kept = _kept(builder, [component for component in available if component.name not in chosen])
        yield _Build(
            checkpoint=read,
            options=options,
            buckets=buckets,
            components=tuple(component for component in available if component.name in chosen | kept),
            chosen=chosen,
            denoiser=next(component for component in available if component.name == "denoiser"),
            builder=builder,
        )


def _with_precision(options: BuildOptions) -> BuildOptions:
    """The same options with the precision that their provider is used with, if they name none."""
    usual = default_precision(options.engine.provider)
    precision = options.precision or usual
    if precision not in PRECISIONS:
        raise RequestError("--precision", received=precision, expected=" or ".join(PRECISIONS))
    return replace(options, precision=precision)


def _chosen(available: Sequence[Component], names: Sequence[str]) -> frozenset[str]:
    known = [component.name for component in available]
    for name in names:
        if name not in known:
            raise RequestError("--component", received=name, expected=", ".join(known))
    return frozenset(names or known)


def _kept(builder: ComponentBuilder, others: Sequence[Component]) -> frozenset[str]:
    """Those of the components which are not to be built that the bundle holds, unchanged."""
    previous = builder.graphs.writer.previous
    held = [component for component in others if previous and component.name in previous.manifest.components]
    for component in held:
        changes = builder.changes(component)
        if changes:
            raise RequestError(
                f"--component: the bundle's {component.name} does not belong to what is built",
                received=changes,
                expected="components that are not named to be unchanged",
                remedy=f"name {component.name} too, name none to build all, or choose another --out",
            )
    return frozenset(component.name for component in held)
