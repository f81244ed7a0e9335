"""One component of a bundle: exported, compiled and checked, or taken over from the previous bundle."""

from __future__ import annotations

import functools
import hashlib
import time
from collections.abc import Callable, Iterable
from dataclasses import dataclass, field
from importlib.metadata import version
from pathlib import Path

import msgspec
import onnx_ir as ir
from torch import nn

from ..runtime import manifest as contract
from ..runtime.spec import AxisRange, Profile
from .checkpoint import Checkpoint
from .components import Component, latent_stride
from .engine_from_onnx import Compiler
from .onnx_from_torch import OPSET, onnx_from_torch
from .profiles import profile_for
from .store import BundleWriter, changed_parts
from .verify import gate
from .weights import GRAPH_FOLDER, WeightStore, parameter_count

#: The libraries that decide what a graph looks like, by the names they are installed under.
TOOLS = ("diffusers", "onnx-ir", "onnxscript", "torch", "transformers")

REUSED = "reused"


@dataclass(frozen=True)
class BuildEvent:
    """Progress: a component enters a stage (``export``, ``compile``, ``gate``) or is done, with the seconds it took.

    ``reason`` says, for a component that is done, why it was built or that it was reused. The stage ``wait`` of no
    component says that another build of the same bundle has to end first.
    """

    component: str
    stage: str
    seconds: float = 0.0
    reason: str = ""


Report = Callable[[BuildEvent], None]


@dataclass
class ComponentBuilder:
    """Builds components into one bundle. ``compiler`` is None where only the portable graphs are wanted."""

    checkpoint: Checkpoint
    compiler: Compiler | None
    ranges: dict[str, AxisRange]
    writer: BundleWriter
    report: Report
    _weights: WeightStore = field(init=False)
    _digests: dict[str, str] = field(default_factory=dict)

    def __post_init__(self) -> None:
        self._weights = WeightStore(self.writer)

    def build(self, component: Component, *, force: bool) -> tuple[contract.Component, contract.EngineRecord | None]:
        """Export, compile and check one component, or take it over."""
        start = time.perf_counter()
        reference = _Reference(component)
        record, model, reason = self._graph(component, reference, force)
        engine = None
        if self.compiler is not None:
            engine, why = self._engine(component, record, model, reference, self.compiler, force)
            reason = why if reason == REUSED else reason
        self.report(BuildEvent(component.name, "done", time.perf_counter() - start, reason))
        return record, engine

    def changes(self, component: Component) -> str:
        """Why the previous bundle's graph and engine of a component cannot be taken over; empty if they can."""
        if self.writer.previous is None:
            return "new"
        manifest = self.writer.previous.manifest
        old = manifest.components.get(component.name)
        if old is None:
            return "new"
        parts = changed_parts(old.key, self._graph_key(component))
        if self.compiler is not None and not parts:
            engine = self.writer.previous.engines(self.compiler.provider).get(component.name)
            profile = profile_for(component.axes, self.ranges)
            key = _engine_key(component, profile, (old.onnx, *old.weights), manifest.files, self.compiler)
            parts = ["no engine"] if engine is None else changed_parts(engine.key, key)
        return "; ".join(parts)

    def _graph(self, component: Component, reference: _Reference, force: bool) -> tuple[contract.Component, Graph, str]:
        """The portable graph: from the previous bundle if its key is the same, else from torch."""
        key = self._graph_key(component)
        profile = profile_for(component.axes, self.ranges)
        old = self.writer.previous.manifest.components.get(component.name) if self.writer.previous else None
        reason = "forced" if force else "new" if old is None else "; ".join(changed_parts(old.key, key))
        if old is not None and not reason:
            if self.writer.take_over((old.onnx, *old.weights)):
                self._weights.taken_over(old.onnx, component.name)
                return msgspec.structs.replace(old, profile=profile), lambda: self._weights.load(old.onnx), REUSED
            reason = "its files were damaged"
        self.report(BuildEvent(component.name, "export"))
        model = onnx_from_torch(component, reference.take(), latent_stride(self.checkpoint))
        self._weights.externalize(model, component.name)
        path = f"{GRAPH_FOLDER}/{component.name}.onnx"
        self.writer.write(path, self._weights.graph_bytes(model, relative_to=GRAPH_FOLDER))
        record = contract.Component(
            component.inputs, component.outputs, profile, component.precision,
            parameter_count(model), OPSET, path, self._weights.files(model), key,
        )  # fmt: skip
        return record, lambda: model, reason

    def _engine(
        self,
        component: Component,
        record: contract.Component,
        graph: Graph,
        reference: _Reference,
        compiler: Compiler,
        force: bool,
    ) -> tuple[contract.EngineRecord, str]:
        """The engine: from the previous bundle if its key is the same, else compiled and passed through the gate."""
        key = _engine_key(component, record.profile, (record.onnx, *record.weights), self.writer.files, compiler)
        previous = self.writer.previous.engines(compiler.provider) if self.writer.previous else {}
        old = previous.get(component.name)
        reason = "forced" if force else "new" if old is None else "; ".join(changed_parts(old.key, key))
        if old is not None and not reason:
            if self.writer.take_over((old.path, *old.weights)):
                return old, REUSED
            reason = "its files were damaged"
        self.report(BuildEvent(component.name, "compile"))
        model = compiler.rewrite(graph())
        self._weights.externalize(model, component.name, f".{compiler.provider}")
        path = f"engines/{compiler.provider}/{component.name}.onnx"
        data, weights = self._weights.graph_bytes(model), self._weights.files(model)
        self.writer.write(path, data)
        self.report(BuildEvent(component.name, "gate"))
        engine = compiler.open(component.name, record, self.writer.folder, data, weights)
        try:
            figures = gate(component, reference.get(), engine, record.profile)
        finally:
            engine.close()
        built = contract.EngineRecord(
            component.name, compiler.provider, compiler.version(), path, weights, figures, key
        )  # fmt: skip
        return built, reason

    def _graph_key(self, component: Component) -> dict[str, str]:
        folder = component.folder
        if folder not in self._digests:
            self._digests[folder] = self.checkpoint.digest(folder)
        return {
            "weights": self._digests[folder],
            "precision": component.precision,
            "opset": str(OPSET),
            **{name: version(name) for name in TOOLS},
            "export code": _export_code(),
        }


#: Gives the portable graph; of a component that was taken over, it is only read when its engine must be built.
Graph = Callable[[], ir.Model]


class _Reference:
    """A component's fp32 reference, loaded when first needed: a rebuild that reuses everything loads no weights."""

    def __init__(self, component: Component):
        self._component = component
        self._module: nn.Module | None = None

    def get(self) -> nn.Module:
        """The module, kept for the next call."""
        if self._module is None:
            self._module = self._component.load()
        return self._module

    def take(self) -> nn.Module:
        """The module for an export, which casts it: kept only if that changes nothing."""
        return self.get() if self._component.precision == "fp32" else self._component.load()


def _engine_key(
    component: Component,
    profile: Profile,
    graph: Iterable[str],
    files: dict[str, contract.FileRecord],
    compiler: Compiler,
) -> dict[str, str]:
    """``graph`` names the portable graph and its weights among ``files``."""
    return {
        "onnx": hashlib.sha256("".join(files[name].sha256 for name in graph).encode()).hexdigest(),
        "provider": compiler.provider,
        "provider version": compiler.version(),
        "precision": component.precision,
        **{f"profile.{axis}": str(allowed) for axis, allowed in profile.items()},
        "export code": _export_code(),
    }


@functools.cache
def _export_code() -> str:
    """SHA-256 of this package's sources: what they produce may change with any of them."""
    total = hashlib.sha256()
    for path in sorted(Path(__file__).parent.glob("*.py")):
        total.update(path.read_bytes())
    return total.hexdigest()
