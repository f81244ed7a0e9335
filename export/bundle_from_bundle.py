"""Engines for the ONNX graphs that a bundle holds already: where the GPU is, torch is not needed."""

from __future__ import annotations

import contextlib
import functools
import os
import time
from collections.abc import Iterator
from dataclasses import dataclass

from ..runtime.bundles.bundle import Bundle, open_bundle
from ..runtime.bundles.manifest import Component, EngineRecord, GateRecord, Manifest
from ..runtime.providers import Engine
from .build import check_resources, chosen, finish
from .build_engine import EngineBuilder, EngineOptions, compiler_for
from .engines.kernels_in_bundle import gpus_of, kernel_files, planned_kernels
from .events import REUSED, BuildEvent, Report
from .gate.gate_inputs import GateInputs
from .gate.graph_gate import cannot_run, gate_against_graph
from .graphs.weights import WeightStore
from .kept_engines import EngineKeeper
from .profiles import Tuning
from .record import BuildRecord
from .store import BundleWriter


@dataclass(frozen=True)
class EngineBuildOptions:
    """Which engines to build. ``components`` empty means those of all; ``force`` takes none of them over."""

    engine: EngineOptions
    components: tuple[str, ...] = ()
    force: bool = False


def bundle_from_bundle(
    source: str | os.PathLike[str],
    out: str | os.PathLike[str],
    options: EngineBuildOptions,
    report: Report = lambda event: None,
) -> Manifest:
    """Build engines from the graphs of the bundle ``source`` into the bundle ``out``, which may be the same.

    Engines of other providers stay; so do those of this one for components that are not among ``components``. Sizes
    and precision are those of the graphs.

    Raises:
        BundleError, OutputError, RequestError: input that cannot be used; nothing is left behind.
        ExportError, GateError, EngineError: an engine could not be built; nothing is left behind.
    """
    record = BuildRecord(options, report)
    with _building(source, out, options, record.event) as build:
        builder, manifest = build.builder, build.source.manifest
        builder.writer.take(_files_without_engines(manifest), build.source)
        inputs = GateInputs(manifest, builder.writer.folder, manifest.components)
        engines: list[EngineRecord] = []
        for name, component in manifest.components.items():
            wanted = name in build.changes
            if wanted:
                engines.append(_engine(builder, name, component, inputs, build.changes[name], record.event))
            engines += build.keeper.keep(name, component, replaced=builder.replaces if wanted else None)
        return finish(builder.writer, manifest, manifest.components, engines, record, force=options.force)


def planned_engines(
    source: str | os.PathLike[str],
    out: str | os.PathLike[str],
    options: EngineBuildOptions,
    report: Report = lambda event: None,
) -> dict[str, str]:
    """Why each engine and the kernels would be built, or that they would be reused; nothing is built or changed.

    Raises:
        BundleError, OutputError, RequestError: input that cannot be used.
    """
    with _building(source, out, options, report) as build:
        manifest, builder = build.source.manifest, build.builder
        kept: list[EngineRecord] = []
        for name, record in manifest.components.items():
            replaced = builder.replaces if name in build.changes else None
            kept += build.keeper.tell(name, record, manifest.files, replaced=replaced)
        gpus, tensors = [*gpus_of(kept), *builder.gpus], manifest.components.values()
        changes = {name: change or REUSED for name, change in build.changes.items()}
        return changes | planned_kernels(builder.writer, tensors, gpus, force=options.force)


@dataclass(frozen=True)
class _Build:
    """A build that can begin: the source's files are intact, the output is open, and there is room for the engines.

    ``changes`` says why the engine of each chosen component has to be built; empty for one that is taken over.
    """

    source: Bundle
    changes: dict[str, str]
    builder: EngineBuilder
    keeper: EngineKeeper


@contextlib.contextmanager
def _building(
    source: str | os.PathLike[str], out: str | os.PathLike[str], options: EngineBuildOptions, report: Report
) -> Iterator[_Build]:
    compiler = compiler_for(options.engine)
    with BundleWriter(out, lambda: report(BuildEvent("", "wait")), force=options.force) as writer:
        opened = open_bundle(source, verify=False)  # not before: it may be what another build was writing
        manifest = opened.manifest
        names = chosen(manifest.components, options.components)
        wanted = {name: record for name, record in manifest.components.items() if name in names}
        for record in manifest.components.values():
            compiler.check_precision(record.precision)
        tuning = Tuning(manifest.buckets, manifest.latent_space.scale, options.engine.profiles == "buckets")
        ranges = {axis: allowed for record in wanted.values() for axis, allowed in record.profile.items()}
        report(BuildEvent("", "profiles", detail=tuning.text(ranges)))
        report(BuildEvent("", "check"))
        if writer.previous is None:
            writer.previous = opened
        writer.verify(_files_without_engines(manifest), opened)
        builder = EngineBuilder(compiler, tuning, writer, WeightStore(writer), report)
        changes = {
            name: builder.changes(name, record, manifest.files, force=options.force) for name, record in wanted.items()
        }
        weights = {
            name: sum(manifest.files[file].size for file in record.weights)
            for name, record in wanted.items()
            if changes[name]
        }
        check_resources(writer, compiler, _copied(opened, writer), weights)
        keeper = EngineKeeper(writer, tuning, report)
        keeper.tell_components(manifest.components)
        yield _Build(opened, changes, builder, keeper)


def _copied(source: Bundle, writer: BundleWriter) -> dict[str, int]:
    """Bytes of the source's files that are copied, because they cannot be linked."""
    if source.path.stat().st_dev == writer.folder.stat().st_dev:
        return {}
    manifest = source.manifest
    return {"the graphs": sum(manifest.files[name].size for name in _files_without_engines(manifest))}


def _engine(
    builder: EngineBuilder,
    name: str,
    record: Component,
    inputs: GateInputs,
    reason: str,
    report: Report,
) -> EngineRecord:
    start = time.perf_counter()
    builder.weights.taken_over(record.onnx, name)

    def check(engine: Engine) -> tuple[GateRecord, ...]:
        make = functools.partial(inputs.of, name, record)
        return gate_against_graph(name, record, builder.writer.folder, engine, make)

    built = builder.build(
        name, record, lambda: builder.weights.load(record.onnx), check, reason, obstacle=cannot_run(record)
    )
    report(built.done(time.perf_counter() - start, reason or REUSED))
    return built.record


def _files_without_engines(manifest: Manifest) -> list[str]:
    """Tokenizers, graphs, and the weights that graphs refer to."""
    graphs = {name for record in manifest.components.values() for name in (record.onnx, *record.weights)}
    engines = {name for engine in manifest.engines for name in (engine.path, *engine.weights)}
    without = engines.union(kernel_files(manifest)) - graphs
    return [name for name in manifest.files if name not in without]
