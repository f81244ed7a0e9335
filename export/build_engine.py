"""The engine of one component: compiled from its portable graph and passed through the gate, or taken over."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field

import msgspec

from ..runtime.bundles.manifest import Component, EngineRecord, FileRecord, GateRecord
from ..runtime.bundles.spec import Profile
from ..runtime.errors import RequestError
from ..runtime.providers import PROVIDERS, Engine
from .engines.engine_from_onnx import CompileJob, Compiler, Graph
from .engines.kernels_in_bundle import check_triton
from .engines.tensorrt.build import BuilderOptions
from .engines.tensorrt.library import import_library, is_tensorrt
from .events import BuildEvent, Report
from .graphs.weights import WeightStore
from .keys import engine_code, graph_digest, reason_to_build
from .profiles import Tuning
from .store import BundleWriter

#: Passes an engine through the gate, or raises.
Gate = Callable[[Engine], tuple[GateRecord, ...]]


@dataclass(frozen=True)
class EngineOptions:
    """What engines to build. ``targets`` are compute capabilities (``"sm89"``), by default that of this machine's GPU.

    ``profiles`` tells what an engine is tuned for: the default size (``span``), or each size asked for (``buckets``).
    ``targets``, ``profiles`` and ``builder`` are for TensorRT's providers.
    """

    provider: str = "onnxruntime-cpu"
    targets: tuple[str, ...] = ()
    profiles: str = "span"
    builder: BuilderOptions = field(default_factory=BuilderOptions)


def default_precision(provider: str) -> str:
    """The precision that a provider is used with unless another is asked for.

    Raises:
        RequestError: an unknown provider.
    """
    if provider not in PROVIDERS:
        raise RequestError("--provider", received=provider, expected=" or ".join(sorted(PROVIDERS)))
    return PROVIDERS[provider].precision


def compiler_for(options: EngineOptions) -> Compiler:
    """The compiler of a provider.

    Raises:
        RequestError: an unknown provider, a target that it does not build for, or an option that it does not have.
        MissingDependencyError: the provider's library is not installed.
    """
    default_precision(options.provider)
    if PROVIDERS[options.provider].needs_gpu:
        check_triton()
    if options.profiles not in ("span", "buckets"):
        raise RequestError("--profiles", received=options.profiles, expected="span or buckets")
    if is_tensorrt(options.provider):
        from .engines.tensorrt.compiler import TensorRTCompiler

        library, builder = import_library(options.provider), options.builder
        library.check_options(
            version_compatible=builder.version_compatible, timing_cache=builder.timing_cache is not None
        )
        return TensorRTCompiler(options.provider, library.check_targets(options.targets), builder)
    if options != EngineOptions(options.provider):
        expected = "a provider for GPUs with --target-sm, --profiles and TensorRT's settings"
        raise RequestError("--provider", received=options.provider, expected=expected)
    from .engines.onnxruntime_compiler import OnnxRuntimeCompiler

    return OnnxRuntimeCompiler(options.provider)


@dataclass(frozen=True)
class BuiltEngine:
    """An engine's record, and what building it took (see ``CompiledEngine``)."""

    record: EngineRecord
    peak_memory: int = 0
    warnings: tuple[str, ...] = ()

    def done(self, seconds: float, reason: str) -> BuildEvent:
        """The event of a component that is done."""
        return BuildEvent(
            self.record.component, "done", seconds, reason, peak_memory=self.peak_memory, warnings=self.warnings
        )


@dataclass
class EngineBuilder:
    """Compiles components into one bundle."""

    compiler: Compiler
    tuning: Tuning
    writer: BundleWriter
    weights: WeightStore
    report: Report

    def build(
        self,
        component: str,
        record: Component,
        graph: Graph,
        gate: Gate,
        reason: str,
        *,
        obstacle: str = "",
    ) -> BuiltEngine:
        """A component's engine: taken over unless there is a ``reason`` to build it.

        ``obstacle`` says why ``gate`` cannot be passed on this machine, if it cannot. An engine that is reused passes
        it where it could not before.
        """
        profiles = self.tuning.profiles(record.profile)
        old = self._previous(component)

        def progress(detail: str, fraction: float) -> None:
            self.report(BuildEvent(component, "compile", detail=detail, fraction=fraction))

        job = CompileJob(component, record, profiles, graph, self.writer, self.weights, progress)
        if old is not None and not reason:
            self.writer.take_over((old.path, *old.weights))
            return BuiltEngine(old if old.gate else self._compared(old, job, gate, obstacle))
        self.report(BuildEvent(component, "compile"))
        key = self._key(record, profiles, self.writer.files)
        compiled = self.compiler.compile(job)
        built = EngineRecord(
            component=component,
            provider=self.compiler.provider,
            provider_version=key["provider version"],
            path=compiled.path,
            weights=compiled.weights,
            gate=(),
            key=key,
            targets=self.compiler.targets,
            profiles=profiles,
            version_compatible=compiled.version_compatible,
        )
        return BuiltEngine(self._compared(built, job, gate, obstacle), compiled.peak_memory, compiled.warnings)

    def changes(self, component: str, record: Component, files: Mapping[str, FileRecord], *, force: bool) -> str:
        """Why the engine of a component, whose graph is among ``files``, has to be built; empty if it need not."""
        old = self._previous(component)
        held = () if old is None else (old.path, *old.weights)
        return reason_to_build(
            None if old is None else old.key, lambda: self._key(record, self.tuning.profiles(record.profile), files),
            force=force, intact=lambda: self.writer.intact(held),
        )  # fmt: skip

    @property
    def gpus(self) -> list[tuple[str, ...]]:
        """The GPUs that it compiles for, as ``gpus_of`` has them."""
        return [self.compiler.targets] if PROVIDERS[self.compiler.provider].needs_gpu else []

    def replaces(self, engine: EngineRecord) -> bool:
        """Whether an engine of the previous bundle gives way to the one that is built for its component."""
        here = not self.compiler.only_here or engine.targets == self.compiler.targets
        return engine.provider == self.compiler.provider and here

    def _compared(self, record: EngineRecord, job: CompileJob, gate: Gate, obstacle: str) -> EngineRecord:
        """The record with the figures of the gate, or with the reason why the engine cannot pass through it here."""
        opened = obstacle or self.compiler.opener(job, record.path, record.weights)
        if isinstance(opened, str):
            return msgspec.structs.replace(record, not_run=opened)
        self.report(BuildEvent(record.component, "gate"))
        engine = opened()
        try:
            return msgspec.structs.replace(record, gate=gate(engine), not_run="")
        finally:
            engine.close()

    def _previous(self, component: str) -> EngineRecord | None:
        engines = () if self.writer.previous is None else self.writer.previous.manifest.engines
        held = (engine for engine in engines if engine.component == component)
        return next((engine for engine in held if self.replaces(engine)), None)

    def _key(self, record: Component, profiles: tuple[Profile, ...], files: Mapping[str, FileRecord]) -> dict[str, str]:
        return {
            "onnx": graph_digest(record, files),
            "provider": self.compiler.provider,
            "precision": record.precision,
            **self.compiler.key(),
            **self.tuning.key(profiles),
            "export code": engine_code(),
        }
