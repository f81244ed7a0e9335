"""Engines for the ONNX graphs that a bundle holds already: where the GPU is, torch is not needed."""

from __future__ import annotations

import os
import time
from collections.abc import Sequence

import msgspec

from ..runtime import manifest as contract
from ..runtime.bundle import open_bundle
from ..runtime.errors import RequestError
from ..runtime.providers import Engine
from .build_engine import EngineBuilder
from .engine_from_onnx import Compiler
from .events import BuildEvent, Report
from .graph_gate import cannot_run, gate_against_graph
from .record import RECORD_NAME, BuildRecord
from .store import BundleWriter
from .weights import WeightStore


def bundle_from_bundle(
    source: str | os.PathLike[str],
    out: str | os.PathLike[str],
    compiler: Compiler,
    *,
    components: Sequence[str] = (),
    force: bool = False,
    report: Report = lambda event: None,
) -> contract.Manifest:
    """Build engines from the graphs of the bundle ``source`` into the bundle ``out``, which may be the same.

    Engines of other providers stay; so do those of this one for components that are not among ``components`` (none
    means all). Profiles and precision are those of the graphs.

    Raises:
        BundleError, OutputError, RequestError: input that cannot be used; nothing is left behind.
        ExportError, GateError, EngineError: an engine could not be built; nothing is left behind.
    """
    opened = open_bundle(source)
    manifest = opened.manifest
    for name in components:
        if name not in manifest.components:
            raise RequestError("--component", received=name, expected=", ".join(manifest.components))
    for record in manifest.components.values():
        compiler.check_precision(record.precision)
    build = BuildRecord({"provider": compiler.provider, "targets": compiler.targets}, report)
    with BundleWriter(out, lambda: report(BuildEvent("", "wait"))) as writer:
        writer.previous = writer.previous or opened
        writer.take_over(_files_without_engines(manifest), opened)
        builder = EngineBuilder(compiler, (), writer, WeightStore(writer), build.event)
        engines: list[contract.EngineRecord] = []
        for name, record in manifest.components.items():
            engines += builder.others(name, record)
            if name in (components or manifest.components):
                engines.append(_engine(builder, name, record, force, build.event))
            else:
                engines += builder.held(name, record)
        files = dict(sorted(writer.files.items()))
        made = msgspec.structs.replace(manifest, engines=tuple(engines), files=files)
        (writer.folder / RECORD_NAME).write_bytes(build.encode(manifest.tools))
        writer.commit(made)
    return made


def _engine(
    builder: EngineBuilder, name: str, record: contract.Component, force: bool, report: Report
) -> contract.EngineRecord:
    start = time.perf_counter()
    builder.weights.taken_over(record.onnx, name)

    def check(engine: Engine) -> tuple[contract.GateRecord, ...]:
        return gate_against_graph(name, record, builder.writer.folder, engine)

    built = builder.build(
        name, record, lambda: builder.weights.load(record.onnx), check, force=force, obstacle=cannot_run(record)
    )
    report(built.done(time.perf_counter() - start))
    return built.record


def _files_without_engines(manifest: contract.Manifest) -> list[str]:
    """Tokenizers, graphs, and the weights that graphs refer to."""
    graphs = {name for record in manifest.components.values() for name in (record.onnx, *record.weights)}
    engines = {name for engine in manifest.engines for name in (engine.path, *engine.weights)}
    return [name for name in manifest.files if name in graphs or name not in engines]
