"""The whole way from a checkpoint to a bundle, component by component, reusing what has not changed."""

from __future__ import annotations

import contextlib
import os
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path

from ..runtime.bundles.manifest import Component, EngineRecord, Manifest
from ..runtime.errors import RequestError
from .buckets import Bucket
from .build import check_resources, chosen, finish
from .build_component import Changes, ComponentBuilder
from .build_engine import EngineBuilder, EngineOptions, compiler_for, default_precision
from .build_graph import GraphBuilder
from .checkpoints.checkpoint import Checkpoint, read_checkpoint
from .checkpoints.text_encodings import text_encodings
from .engines.kernels_in_bundle import gpus_of, planned_kernels
from .events import NEW, REUSED, BuildEvent, Report
from .gate.gate_inputs import GateInputs
from .graphs.precision import PRECISIONS
from .graphs.weights import WeightStore
from .kept_engines import EngineKeeper
from .manifest_from_checkpoint import manifest_from_checkpoint
from .networks.components import SourceComponent, latent_stride, max_side, native_side, vae_scale
from .networks.components_from_checkpoint import components_from_checkpoint
from .profiles import Batch, Tuning, buckets_from_text, profiles
from .record import BuildRecord
from .store import BundleWriter


@dataclass(frozen=True)
class BuildOptions:
    """What to build.

    ``components`` empty means all of them. Those that are not named stay as they are in a bundle that is there, and
    must not have changed. ``force`` takes nothing over for those that are built. ``precision`` is by default what the
    provider is used with. ``parts`` and ``prediction_type`` are those of ``read_checkpoint``; a checkpoint that was
    read already has them. ``skip_layers`` are those that skip-layer guidance leaves out; by default what the
    checkpoint's family says, and none if empty.
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
    checkpoint: str | os.PathLike[str] | Checkpoint,
    out: str | os.PathLike[str],
    options: BuildOptions | None = None,
    report: Report = lambda event: None,
) -> Manifest:
    """Build a bundle at ``out`` and return its manifest. A ``Checkpoint`` is one that was read already.

    Raises:
        CheckpointError, OutputError, RequestError: input that cannot be used; nothing is left behind.
        ExportError, GateError, EngineError: a component could not be built; nothing is left behind.
    """
    options = options or BuildOptions()
    record = BuildRecord(options, report)
    with _building(checkpoint, out, options, record.event) as build:
        writer = build.builder.graphs.writer
        encodings = text_encodings(build.checkpoint, {component.name for component in build.components}, writer)
        draft = manifest_from_checkpoint(build.checkpoint, build.denoiser, build.buckets, encodings)
        records: dict[str, Component] = {}
        inputs = GateInputs(draft, writer.folder, records)
        engines: list[EngineRecord] = []
        for component in build.components:
            changes = build.changes[component.name]
            records[component.name], of_component = build.builder.build(component, inputs, changes)
            engines += of_component
        return finish(writer, draft, records, engines, record, force=options.force)


def planned_changes(
    checkpoint: str | os.PathLike[str] | Checkpoint,
    out: str | os.PathLike[str],
    options: BuildOptions | None = None,
    report: Report = lambda event: None,
) -> dict[str, str]:
    """Why each component and the kernels would be built, or that they would be reused; nothing is built or changed.

    Raises:
        CheckpointError, OutputError, RequestError: input that cannot be used.
    """
    options = options or BuildOptions()
    with _building(checkpoint, out, options, report) as build:
        kept: list[EngineRecord] = []
        for component in build.components:
            kept += build.builder.tell_dropped(component, build.changes[component.name])
        changes = {name: change.reason for name, change in build.changes.items()}
        engines, writer = build.builder.engines, build.builder.graphs.writer
        gpus = [*gpus_of(kept), *(engines.gpus if engines is not None else [])]
        return changes | planned_kernels(writer, build.components, gpus, force=options.force)


@dataclass(frozen=True)
class _Build:
    """A build that can begin: its input is checked, its output is open, and there is room for it.

    ``components`` are those that the bundle will hold, and ``changes`` says of each what has to be built. ``denoiser``
    is there for its contract, whether it is among them or not.
    """

    checkpoint: Checkpoint
    buckets: tuple[Bucket, ...]
    components: tuple[SourceComponent, ...]
    changes: dict[str, Changes]
    denoiser: SourceComponent
    builder: ComponentBuilder


@contextlib.contextmanager
def _building(
    checkpoint: str | os.PathLike[str] | Checkpoint,
    out: str | os.PathLike[str],
    options: BuildOptions,
    report: Report,
) -> Iterator[_Build]:
    precision = _precision(options)
    if options.onnx_only and options.engine != EngineOptions(options.engine.provider):
        given = "--target-sm, --profiles or a setting of TensorRT"
        raise RequestError("--onnx-only", received=f"with {given}", expected="none of these: no engines are built")
    read = (
        checkpoint
        if isinstance(checkpoint, Checkpoint)
        else read_checkpoint(checkpoint, options.parts, options.prediction_type)
    )
    compiler = None if options.onnx_only else compiler_for(options.engine)
    if compiler is not None:
        compiler.check_precision(precision)
    scale, side = vae_scale(read), native_side(read)
    buckets = buckets_from_text(options.aspects, read.family, side, latent_stride(read) * scale, max_side(read))
    available = components_from_checkpoint(read, precision, options.skip_layers)
    wanted = chosen([component.name for component in available], options.components)
    with BundleWriter(out, lambda: report(BuildEvent("", "wait")), force=options.force) as writer:
        ranges = profiles(buckets, options.batch, scale, side, read.family)
        tuning = Tuning(buckets, scale, options.engine.profiles == "buckets")
        report(BuildEvent("", "profiles", detail=tuning.text(ranges)))
        weights, keeper = WeightStore(writer), EngineKeeper(writer, tuning, report)
        builder = ComponentBuilder(
            GraphBuilder(read, ranges, writer, weights, report),
            None if compiler is None else EngineBuilder(compiler, tuning, writer, weights, report),
            keeper,
            report,
        )
        kept = _kept(writer, available, wanted)
        components = tuple(component for component in available if component.name in wanted | kept)
        changes = {
            component.name: builder.changes(component, force=options.force and component.name in wanted)
            for component in components
        }
        report(BuildEvent("", "check"))  # from here on of no component, until one is built
        keeper.tell_components(changes)
        _check_kept({name: changes[name] for name in kept})
        exported = [component for component in components if changes[component.name].graph]
        _check_weights(exported)
        compiled = {
            component.name: component.weight_bytes
            for component in components
            if changes[component.name].reason != REUSED
        }
        check_resources(writer, compiler, _graph_bytes(exported), compiled)
        yield _Build(
            checkpoint=read,
            buckets=buckets,
            components=components,
            changes=changes,
            denoiser=next(component for component in available if component.name == "denoiser"),
            builder=builder,
        )


def _precision(options: BuildOptions) -> str:
    """The precision that was asked for, or that the provider is used with."""
    usual = default_precision(options.engine.provider)
    precision = options.precision or usual
    if precision not in PRECISIONS:
        raise RequestError("--precision", received=precision, expected=" or ".join(PRECISIONS))
    return precision


def _kept(writer: BundleWriter, available: Sequence[SourceComponent], wanted: frozenset[str]) -> frozenset[str]:
    """The components of the bundle that stay as they are, because others were named.

    Raises:
        RequestError: one that the checkpoint does not have (any more), and that would be lost.
    """
    known = {component.name for component in available}
    held = frozenset(() if writer.previous is None else writer.previous.manifest.components)
    if wanted != known and (lost := sorted(held - known)):
        raise RequestError(
            f"--component: the bundle's {lost[0]} would be lost",
            received="a checkpoint without it",
            expected="the checkpoint and the parts (--tiny-vae, --text-encoder-3, ...) that the bundle was built from",
            remedy="give them, name no component to build all, or choose another --out",
        )
    return (held & known) - wanted


def _check_kept(changes: Mapping[str, Changes]) -> None:
    for name, change in changes.items():
        if change.reason != REUSED:
            raise RequestError(
                f"--component: the bundle's {name} would have to be rebuilt too",
                received="no engine of this provider yet" if change.reason == NEW else change.reason,
                expected="components that are not named to be unchanged",
                remedy=f"add --component {name}, name no component to build all, or choose another --out",
            )


def _check_weights(components: Iterable[SourceComponent]) -> None:
    for component in {component.folder: component for component in components}.values():  # the autoencoder's has two
        component.check_weights()


def _graph_bytes(components: Iterable[SourceComponent]) -> dict[str, int]:
    """Bytes of the files of new graphs: their weights; the autoencoder's halves share one folder of those."""
    of_folder: dict[str, SourceComponent] = {}
    for component in components:
        of_folder.setdefault(component.folder, component)
    return {component.name: component.weight_bytes for component in of_folder.values()}
