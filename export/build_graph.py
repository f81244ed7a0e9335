"""The portable ONNX graph of one component: exported from torch, or taken over from the previous bundle."""

from __future__ import annotations

import functools
from collections.abc import Mapping
from dataclasses import dataclass, field
from importlib.metadata import version

import msgspec
import torch

from ..runtime.bundles.manifest import Component
from ..runtime.bundles.spec import AxisRange
from .checkpoints.checkpoint import Checkpoint
from .engines.engine_from_onnx import Graph
from .events import BuildEvent, Report
from .gate.examples import Array
from .gate.gate_inputs import GateInputs
from .gate.graph_gate import cannot_run, graph_sizes, open_graph
from .gate.overflow import first_overflow
from .gate.verify import Run, Sample, gate, samples
from .graphs.onnx_from_torch import OPSET, onnx_from_component
from .graphs.weights import GRAPH_FOLDER, WeightStore, parameter_count
from .keys import graph_code, reason_to_build
from .memory import available_memory, release_memory
from .networks.components import SourceComponent, latent_stride
from .profiles import profile_for
from .store import BundleWriter

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
        self, component: SourceComponent, reference: Reference, inputs: GateInputs, reason: str
    ) -> tuple[Component, Graph]:
        """The record of a component's graph, and the graph: taken over unless there is a ``reason`` to build it."""
        old = self._previous(component)
        if old is not None and not reason:
            self.writer.take_over((old.onnx, *old.weights))
            self.weights.taken_over(old.onnx, component.name)
            record = self.with_profile(component, old)
            if old.profile != record.profile or not old.gate:  # what kept it from being compared may be gone
                record = self._gated(component.name, record, reference, inputs)
            return record, lambda: self.weights.load(old.onnx)
        self.report(BuildEvent(component.name, "export"))
        model = onnx_from_component(component, latent_stride(self.checkpoint))
        self.weights.externalize(model, component.name)
        path = f"{GRAPH_FOLDER}/{component.name}.onnx"
        self.writer.write(path, self.weights.graph_bytes(model, relative_to=GRAPH_FOLDER))
        record = Component(
            component.inputs, component.outputs, profile_for(component.axes, self.ranges), component.precision,
            parameter_count(model), OPSET, path, self.weights.files(model), self._key(component),
        )  # fmt: skip
        return self._gated(component.name, record, reference, inputs), lambda: model

    def _gated(self, component: str, record: Component, reference: Reference, inputs: GateInputs) -> Component:
        """The record with the figures of its graph, or with the reason why the graph cannot run here."""
        obstacle = cannot_run(record) or reference.cannot_run(record)
        if obstacle:
            return msgspec.structs.replace(record, gate=(), not_run=obstacle)
        self.report(BuildEvent(component, "gate", detail="of the graph"))
        expected = reference.samples(record, inputs)
        folder = self.writer.folder

        def overflow(sample: Sample) -> str:
            return first_overflow(record, folder, sample.sizes, sample.inputs)

        with open_graph(component, record, folder) as graph:
            figures = gate(component, record, expected, graph.run, overflow)
        release_memory()
        return msgspec.structs.replace(record, gate=figures, not_run="")

    def changes(self, component: SourceComponent, *, force: bool) -> str:
        """Why the graph has to be built; empty if the previous bundle's can be taken over."""
        old = self._previous(component)
        files = () if old is None else (old.onnx, *old.weights)
        return reason_to_build(
            None if old is None else old.key, lambda: self._key(component),
            force=force, intact=lambda: self.writer.intact(files),
        )  # fmt: skip

    def with_profile(self, component: SourceComponent, record: Component) -> Component:
        """A previous record of a component with the axis ranges of this build."""
        return msgspec.structs.replace(record, profile=profile_for(component.axes, self.ranges))

    def _previous(self, component: SourceComponent) -> Component | None:
        return self.writer.previous.manifest.components.get(component.name) if self.writer.previous else None

    def _key(self, component: SourceComponent) -> dict[str, str]:
        folder = component.folder
        if folder not in self._digests:
            self._digests[folder] = self.checkpoint.digest(folder)
        return {
            "weights": self._digests[folder],
            "precision": component.precision,
            **component.settings,
            "opset": str(OPSET),
            **{name: version(name) for name in TOOLS},
            "export code": graph_code(),
        }


class Reference:
    """What a component's fp32 module computes. It is loaded when that is first asked for, and not kept: a rebuild that
    reuses everything loads no weights, and a graph runs in the memory that its reference took."""

    def __init__(self, component: SourceComponent):
        self._component = component
        self._samples: tuple[Sample, ...] | None = None

    def cannot_run(self, record: Component) -> str:
        """Why the module cannot run on this machine; empty if it can."""
        needed = record.parameters * _REFERENCE_BYTES
        if self._samples is not None or needed <= available_memory():
            return ""
        return f"its reference takes about {needed / 1e9:.1f} GB of memory, more than was available"

    def samples(self, record: Component, inputs: GateInputs) -> tuple[Sample, ...]:
        """What the module makes of realistic inputs, kept for the next call."""
        if self._samples is None:
            make = functools.partial(inputs.of, self._component.name, record)
            sizes = graph_sizes(record, inputs.folder)
            self._samples = samples(_run_torch(self._component), make, sizes)
            release_memory()  # ten gigabytes of SDXL's denoiser
        return self._samples


def _run_torch(component: SourceComponent) -> Run:
    module = component.load()

    def run(inputs: Mapping[str, Array]) -> dict[str, Array]:
        tensors = (torch.from_numpy(inputs[spec.name]) for spec in component.inputs)
        with torch.inference_mode():
            outputs = module(*(tensor.float() if tensor.is_floating_point() else tensor for tensor in tensors))
        outputs = outputs if isinstance(outputs, tuple) else (outputs,)
        return {spec.name: output.numpy() for spec, output in zip(component.outputs, outputs, strict=True)}

    return run
