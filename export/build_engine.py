"""The engine of one component: compiled from its portable graph and passed through the gate, or taken over."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field

import msgspec

from ..runtime.bundles import manifest as contract
from ..runtime.bundles.spec import Profile
from ..runtime.errors import RequestError
from ..runtime.providers import PROVIDERS, Engine
from .engines.engine_from_onnx import CompileJob, Compiler, Graph
from .engines.kernels_in_bundle import check_triton
from .engines.tensorrt.build import BuilderOptions
from .engines.tensorrt.library import import_library, is_tensorrt
from .events import DAMAGED, FORCED, NEW, REUSED, BuildEvent, Report
from .graphs.weights import WeightStore
from .keys import changed_parts, export_code, graph_digest
from .profiles import Tuning
from .store import BundleWriter

#: Passes an engine through the gate, or raises.
Gate = Callable[[Engine], tuple[contract.GateRecord, ...]]

#: Provider -> the precision it is used with unless another is asked for.
_PRECISIONS = {"onnxruntime-cpu": "fp32", "onnxruntime-cuda": "fp16", "tensorrt": "fp16", "tensorrt-rtx": "fp16"}


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
    if provider not in _PRECISIONS:
        raise RequestError("--provider", received=provider, expected=" or ".join(_PRECISIONS))
    return _PRECISIONS[provider]


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
    """An engine's record, why it was built, and what building it took (see ``CompiledEngine``)."""

    record: contract.EngineRecord
    reason: str
    peak_memory: int = 0
    warnings: tuple[str, ...] = ()

    def done(self, seconds: float, graph_reason: str = REUSED) -> BuildEvent:
        """The event of a component that is done; why its graph was built says more than why its engine was."""
        reason = self.reason if graph_reason == REUSED else graph_reason
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
        record: contract.Component,
        graph: Graph,
        gate: Gate,
        *,
        force: bool,
        obstacle: str = "",
    ) -> BuiltEngine:
        """A component's engine, and why it was built (or that it was reused).

        ``obstacle`` says why ``gate`` cannot be passed on this machine, if it cannot. An engine that is reused passes
        it where it could not before.
        """
        profiles = self.tuning.profiles(record.profile)
        key = self._key(record, profiles, self.writer.files)
        old = self._previous(component)

        def progress(detail: str, fraction: float) -> None:
            self.report(BuildEvent(component, "compile", detail=detail, fraction=fraction))

        job = CompileJob(component, record, profiles, graph, self.writer, self.weights, progress)
        reason = FORCED if force else NEW if old is None else "; ".join(changed_parts(old.key, key))
        if old is not None and not reason:
            if self.writer.take_over((old.path, *old.weights)):
                return BuiltEngine(old if old.gate else self._compared(old, job, gate, obstacle), REUSED)
            reason = DAMAGED
        self.report(BuildEvent(component, "compile"))
        compiled = self.compiler.compile(job)
        built = contract.EngineRecord(
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
        return BuiltEngine(self._compared(built, job, gate, obstacle), reason, compiled.peak_memory, compiled.warnings)

    def changes(self, component: str, record: contract.Component, files: Mapping[str, contract.FileRecord]) -> str:
        """Why the engine of a component, whose graph is among ``files``, has to be built; empty if it need not."""
        old = self._previous(component)
        if old is None:
            return NEW
        key = self._key(record, self.tuning.profiles(record.profile), files)
        reason = "; ".join(changed_parts(old.key, key))
        return reason or ("" if self.writer.intact((old.path, *old.weights)) else DAMAGED)

    @property
    def gpus(self) -> list[tuple[str, ...]]:
        """The GPUs that it compiles for, as ``gpus_of`` has them."""
        return [self.compiler.targets] if PROVIDERS[self.compiler.provider].needs_gpu else []

    def replaces(self, engine: contract.EngineRecord) -> bool:
        """Whether an engine of the previous bundle gives way to the one that is built for its component."""
        here = not self.compiler.only_here or engine.targets == self.compiler.targets
        return engine.provider == self.compiler.provider and here

    def _compared(
        self, record: contract.EngineRecord, job: CompileJob, gate: Gate, obstacle: str
    ) -> contract.EngineRecord:
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

    def _previous(self, component: str) -> contract.EngineRecord | None:
        engines = () if self.writer.previous is None else self.writer.previous.manifest.engines
        held = (engine for engine in engines if engine.component == component)
        return next((engine for engine in held if self.replaces(engine)), None)

    def _key(
        self, record: contract.Component, profiles: tuple[Profile, ...], files: Mapping[str, contract.FileRecord]
    ) -> dict[str, str]:
        return {
            "onnx": graph_digest(record, files),
            "provider": self.compiler.provider,
            "precision": record.precision,
            **self.compiler.key(),
            **self.tuning.key(profiles),
            "export code": export_code(),
        }
