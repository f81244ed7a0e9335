"""The engine of one component: compiled from its portable graph and passed through the gate, or taken over."""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Iterable
from dataclasses import dataclass, field

from ..runtime import manifest as contract
from ..runtime.errors import RequestError
from ..runtime.providers import Engine
from ..runtime.spec import AxisRange, Profile
from .engine_from_onnx import CompileJob, Compiler, Graph
from .events import REUSED, BuildEvent, Report
from .keys import changed_parts, export_code
from .profiles import profile_for
from .store import BundleWriter
from .tensorrt.build import BuilderOptions
from .tensorrt.library import import_library, is_tensorrt
from .weights import WeightStore

#: Passes an engine through the gate, or raises.
Gate = Callable[[Engine], tuple[contract.GateRecord, ...]]

#: Provider -> the precision it is used with unless another is asked for.
_PRECISIONS = {"onnxruntime-cpu": "fp32", "tensorrt": "fp16", "tensorrt-rtx": "fp16"}


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
    if options.profiles not in ("span", "buckets"):
        raise RequestError("--profiles", received=options.profiles, expected="span or buckets")
    if is_tensorrt(options.provider):
        from .tensorrt.compiler import TensorRTCompiler

        targets = import_library(options.provider).check_targets(options.targets)
        return TensorRTCompiler(options.provider, targets, options.builder)
    if options != EngineOptions(options.provider):
        expected = "a provider for GPUs with --target-sm, --profiles and TensorRT's settings"
        raise RequestError("--provider", received=options.provider, expected=expected)
    from .onnxruntime_compiler import OnnxRuntimeCompiler

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
    """Compiles components into one bundle. ``ranges`` has the axis ranges of each of the engines' profiles."""

    compiler: Compiler
    ranges: tuple[dict[str, AxisRange], ...]
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

        ``obstacle`` says why ``gate`` cannot be passed on this machine, if it cannot.
        """
        profiles = self._profiles(record)
        key = self._key(record, profiles, self.writer.files)
        old = self._previous(component)
        reason = "forced" if force else "new" if old is None else "; ".join(changed_parts(old.key, key))
        if old is not None and not reason:
            if self.writer.take_over((old.path, *old.weights)):
                return BuiltEngine(old, REUSED)
            reason = "its files were damaged"
        self.report(BuildEvent(component, "compile"))

        def progress(detail: str, fraction: float) -> None:
            self.report(BuildEvent(component, "compile", detail=detail, fraction=fraction))

        compiled = self.compiler.compile(
            CompileJob(component, record, profiles, graph, self.writer, self.weights, progress)
        )
        figures: tuple[contract.GateRecord, ...] = ()
        if compiled.open is not None and not obstacle:
            self.report(BuildEvent(component, "gate"))
            engine = compiled.open()
            try:
                figures = gate(engine)
            finally:
                engine.close()
        engine_record = contract.EngineRecord(
            component=component,
            provider=self.compiler.provider,
            provider_version=key["provider version"],
            path=compiled.path,
            weights=compiled.weights,
            gate=figures,
            key=key,
            targets=self.compiler.targets,
            profiles=profiles if len(profiles) > 1 else (),
            not_run=compiled.not_run or obstacle,
        )
        return BuiltEngine(engine_record, reason, compiled.peak_memory, compiled.warnings)

    def changes(self, component: str, record: contract.Component) -> list[str]:
        """Which parts of the key keep the previous bundle's engine from being taken over; empty if none does."""
        previous, old = self.writer.previous, self._previous(component)
        if previous is None or old is None:
            return ["no engine"]
        return changed_parts(old.key, self._key(record, self._profiles(record), previous.manifest.files))

    def others(self, component: str, record: contract.Component) -> list[contract.EngineRecord]:
        """The previous bundle's engines of other providers for the same graph, taken over."""
        return self._take_over(component, record, lambda provider: provider != self.compiler.provider)

    def held(self, component: str, record: contract.Component) -> list[contract.EngineRecord]:
        """The previous bundle's engine of this provider for the same graph, taken over; none or one."""
        return self._take_over(component, record, lambda provider: provider == self.compiler.provider)

    def _take_over(
        self, component: str, record: contract.Component, of: Callable[[str], bool]
    ) -> list[contract.EngineRecord]:
        graph = _digest((record.onnx, *record.weights), self.writer.files)
        return [
            engine
            for engine in (self.writer.previous.manifest.engines if self.writer.previous is not None else ())
            if engine.component == component
            and of(engine.provider)
            and engine.key["onnx"] == graph
            and self.writer.take_over((engine.path, *engine.weights))
        ]

    def _previous(self, component: str) -> contract.EngineRecord | None:
        previous = self.writer.previous
        return None if previous is None else previous.engines(self.compiler.provider).get(component)

    def _profiles(self, record: contract.Component) -> tuple[Profile, ...]:
        """The distinct axis ranges of this component (buckets often differ only in axes that it does not have), or the
        record's own where none are asked for.
        """
        if not self.ranges:
            return (record.profile,)
        distinct: list[Profile] = []
        for ranges in self.ranges:
            profile = profile_for(set(record.profile), ranges)
            if profile not in distinct:
                distinct.append(profile)
        return tuple(distinct)

    def _key(
        self, record: contract.Component, profiles: tuple[Profile, ...], files: dict[str, contract.FileRecord]
    ) -> dict[str, str]:
        return {
            "onnx": _digest((record.onnx, *record.weights), files),
            "provider": self.compiler.provider,
            "precision": record.precision,
            **self.compiler.key(),
            **{
                f"profile.{axis}": ", ".join(dict.fromkeys(str(profile[axis]) for profile in profiles))
                for axis in record.profile
            },
            "export code": export_code(),
        }


def _digest(names: Iterable[str], files: dict[str, contract.FileRecord]) -> str:
    """SHA-256 over that of a graph and its weights."""
    return hashlib.sha256("".join(files[name].sha256 for name in names).encode()).hexdigest()
