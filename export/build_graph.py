"""The portable ONNX graph of one component: exported from torch, or taken over from the previous bundle."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from importlib.metadata import version

import msgspec
import torch

from ..runtime import manifest as contract
from ..runtime.spec import AxisRange
from .checkpoint import Checkpoint
from .components import Component, latent_stride
from .engine_from_onnx import Graph
from .events import REUSED, BuildEvent, Report
from .examples import Array
from .graph_gate import cannot_run, is_large, open_graph
from .keys import changed_parts, export_code
from .onnx_from_torch import OPSET, onnx_from_component
from .profiles import profile_for
from .store import BundleWriter
from .tensorrt.resources import available_memory
from .verify import Run, Sample, gate, samples
from .weights import GRAPH_FOLDER, WeightStore, parameter_count

#: The libraries that decide what a graph looks like, by the names they are installed under.
TOOLS = ("diffusers", "onnx-ir", "onnxscript", "torch", "transformers")

#: Bytes of memory for each weight of a reference: fp32, and some for what it computes.
_REFERENCE_BYTES = 5


@dataclass
class GraphBuilder:
    """Writes the portable graphs of a checkpoint's components into one bundle."""

    checkpoint: Checkpoint
    ranges: dict[str, AxisRange]
    writer: BundleWriter
    weights: WeightStore
    report: Report
    _digests: dict[str, str] = field(default_factory=dict)

    def build(
        self, component: Component, reference: Reference, *, force: bool
    ) -> tuple[contract.Component, Graph, str]:
        """The record of a component's graph, the graph, and why it was built (or that it was reused)."""
        key = self._key(component)
        profile = profile_for(component.axes, self.ranges)
        old = self.writer.previous.manifest.components.get(component.name) if self.writer.previous else None
        reason = "forced" if force else "new" if old is None else "; ".join(changed_parts(old.key, key))
        if old is not None and not reason:
            if self.writer.take_over((old.onnx, *old.weights)):
                self.weights.taken_over(old.onnx, component.name)
                record = msgspec.structs.replace(old, profile=profile)
                if old.profile != profile:
                    record = self._gated(component.name, record, reference)
                return record, lambda: self.weights.load(old.onnx), REUSED
            reason = "its files were damaged"
        self.report(BuildEvent(component.name, "export"))
        model = onnx_from_component(component, latent_stride(self.checkpoint))
        self.weights.externalize(model, component.name)
        path = f"{GRAPH_FOLDER}/{component.name}.onnx"
        self.writer.write(path, self.weights.graph_bytes(model, relative_to=GRAPH_FOLDER))
        record = contract.Component(
            component.inputs, component.outputs, profile, component.precision,
            parameter_count(model), OPSET, path, self.weights.files(model), key,
        )  # fmt: skip
        return self._gated(component.name, record, reference), lambda: model, reason

    def _gated(self, component: str, record: contract.Component, reference: Reference) -> contract.Component:
        """The record with the figures of its graph, or with the reason why the graph cannot run here."""
        obstacle = cannot_run(record) or reference.cannot_run(record)
        if obstacle:
            return msgspec.structs.replace(record, gate=(), not_run=obstacle)
        expected = reference.samples(record, large=is_large(record, self.writer.folder))
        with open_graph(component, record, self.writer.folder) as graph:
            return msgspec.structs.replace(record, gate=gate(component, record, expected, graph.run), not_run="")

    def changes(self, component: Component) -> list[str]:
        """Which parts of the key keep the previous bundle's graph from being taken over; empty if none does."""
        old = self.writer.previous.manifest.components.get(component.name) if self.writer.previous else None
        return ["new"] if old is None else changed_parts(old.key, self._key(component))

    def _key(self, component: Component) -> dict[str, str]:
        folder = component.folder
        if folder not in self._digests:
            self._digests[folder] = self.checkpoint.digest(folder)
        return {
            "weights": self._digests[folder],
            "precision": component.precision,
            **component.settings,
            "opset": str(OPSET),
            **{name: version(name) for name in TOOLS},
            "export code": export_code(),
        }


class Reference:
    """What a component's fp32 module computes. It is loaded when that is first asked for, and not kept: a rebuild that
    reuses everything loads no weights, and a graph runs in the memory that its reference took."""

    def __init__(self, component: Component):
        self._component = component
        self._samples: tuple[Sample, ...] | None = None

    def cannot_run(self, record: contract.Component) -> str:
        """Why the module cannot run on this machine; empty if it can."""
        needed, available = record.parameters * _REFERENCE_BYTES, available_memory()
        if self._samples is not None or needed <= available:
            return ""
        return f"its reference takes about {needed / 1e9:.1f} GB of memory, and {available / 1e9:.1f} GB are available"

    def samples(self, record: contract.Component, *, large: bool) -> tuple[Sample, ...]:
        """What the module makes of seeded inputs, kept for the next call."""
        if self._samples is None:
            run = _run_torch(self._component)
            self._samples = samples(record, run, vocabulary=self._component.vocabulary, large=large)
        return self._samples


def _run_torch(component: Component) -> Run:
    module = component.load()

    def run(inputs: Mapping[str, Array]) -> dict[str, Array]:
        tensors = (torch.from_numpy(inputs[spec.name]) for spec in component.inputs)
        with torch.inference_mode():
            outputs = module(*(tensor.float() if tensor.is_floating_point() else tensor for tensor in tensors))
        outputs = outputs if isinstance(outputs, tuple) else (outputs,)
        return {spec.name: output.numpy() for spec, output in zip(component.outputs, outputs, strict=True)}

    return run
