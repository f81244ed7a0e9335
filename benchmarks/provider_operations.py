"""One operation of a network as a provider runs it: built, gated and loaded like any component of a bundle."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from numpy.typing import NDArray
from onnx import ModelProto, NodeProto, TensorProto, ValueInfoProto, helper, numpy_helper

from ..export.build_engine import EngineOptions
from ..export.bundle_from_bundle import EngineBuildOptions, bundle_from_bundle
from ..export.graphs.weights import GRAPH_FOLDER
from ..export.store import BundleWriter
from ..runtime.bundles.bundle import open_bundle
from ..runtime.bundles.manifest import SCHEMA_VERSION, Component, Defaults, LatentSpace, Manifest
from ..runtime.bundles.spec import AxisRange, TensorSpec
from ..runtime.providers.choice import provider_here
from .fused_kernels import EPSILON, GROUPS

_OPSET, _IR = 23, 10  # as the portable graphs of bundles
_COMPONENT = "operation"


@dataclass(frozen=True)
class Operation:
    """What is measured, at one shape. ``shape`` is that of the input, in four axes; the output's last one is
    ``width``. ``nodes`` compute ``y`` of ``latents`` and ``weights``; whatever is in between has the output's shape."""

    what: str
    shape: tuple[int, int, int, int]
    width: int
    nodes: tuple[NodeProto, ...]
    weights: dict[str, NDArray[np.float16]]

    @property
    def output_shape(self) -> tuple[int, ...]:
        """That of the input but for the last axis."""
        return (*self.shape[:3], self.width)

    @property
    def bytes(self) -> int:
        """Input and output once, in fp16."""
        return 2 * (int(np.prod(self.shape)) + int(np.prod(self.output_shape)))


def group_norm_silu(images: int, channels: int, height: int, width: int) -> Operation:
    """SiLU of a group normalisation over ``[images, channels, height, width]``."""
    random = np.random.default_rng(channels)
    weights = {name: random.normal(1, 0.1, channels).astype(np.float16) for name in ("weight", "bias")}
    nodes = (
        helper.make_node(
            "GroupNormalization", ["latents", "weight", "bias"], ["normal"], num_groups=GROUPS, epsilon=EPSILON,
            stash_type=TensorProto.FLOAT,
        ),
        helper.make_node("Sigmoid", ["normal"], ["gate"]),
        helper.make_node("Mul", ["normal", "gate"], ["y"]),
    )  # fmt: skip
    return Operation("group norm and SiLU", (images, channels, height, width), width, nodes, weights)


def geglu(rows: int, tokens: int, width: int) -> Operation:
    """a * gelu(b) of ``[a, b]``, ``[rows, tokens, 2 * width]``."""
    nodes = (
        helper.make_node("Split", ["latents"], ["value", "gate"], axis=-1, num_outputs=2),
        helper.make_node("Gelu", ["gate"], ["weight"], approximate="none"),
        helper.make_node("Mul", ["value", "weight"], ["y"]),
    )
    return Operation("GEGLU", (rows, tokens, 1, 2 * width), width, nodes, {})


def write_bundle(operation: Operation, folder: Path) -> None:
    """A bundle whose one component is the operation, in fp16, without an engine."""
    images, channels, height, width = operation.shape
    # Also what no tensor has as an axis: what the gate compares an operation on is made of these.
    profile = {"images": images, "height": height, "width": width}
    axes = ("images", channels, "height")
    name = f"{GRAPH_FOLDER}/{_COMPONENT}.onnx"
    record = Component(
        inputs=(TensorSpec("latents", "float16", (*axes, width)),),
        outputs=(TensorSpec("y", "float16", (*axes, operation.width)),),
        profile={axis: AxisRange(size, size, size) for axis, size in profile.items()},
        precision="fp16",
        parameters=0,
        opset=_OPSET,
        onnx=name,
        weights=(),
        key={},
    )
    with BundleWriter(folder) as writer:
        writer.write(name, _model(operation, record).SerializeToString())
        manifest = Manifest(
            schema_version=SCHEMA_VERSION,
            latentrt="",
            name=operation.what,
            family="sd1",
            latent_space=LatentSpace(channels, 1, 1),
            text_encodings=(),
            force_zeros_for_empty_prompt=False,
            scheduler={},
            defaults=Defaults(width, height, 1, 1.0),
            buckets=((width, height),),
            components={_COMPONENT: record},
            engines=(),
            files=dict(writer.files),
            tools={},
        )
        writer.commit(manifest)


def _model(operation: Operation, record: Component) -> ModelProto:
    def told(spec: TensorSpec, name: str) -> ValueInfoProto:
        return helper.make_tensor_value_info(name, TensorProto.FLOAT16, list(spec.shape))

    (given,), (y,) = record.inputs, record.outputs
    inside = [name for node in operation.nodes for name in node.output if name != y.name]
    graph = helper.make_graph(
        list(operation.nodes),
        _COMPONENT,
        [told(given, given.name)],
        [told(y, y.name)],
        [numpy_helper.from_array(value, name) for name, value in operation.weights.items()],
        value_info=[told(y, name) for name in inside],  # rewrites want to know them
    )
    return helper.make_model(graph, opset_imports=[helper.make_opsetid("", _OPSET)], ir_version=_IR)


@contextmanager
def prepared(bundle: Path, provider: str, x: NDArray[np.float16]) -> Iterator[tuple[Callable[[], None], int]]:
    """What puts a run of the operation on the provider's stream, whose address comes with it.

    Raises:
        LatentRTError: the provider does not build or run it.
    """
    bundle_from_bundle(bundle, bundle, EngineBuildOptions(EngineOptions(provider)))
    opened = open_bundle(bundle)
    choice = provider_here(opened, provider)
    with ExitStack() as taken:
        device = choice.module.open_device(opened)
        taken.callback(device.close)
        taken.enter_context(device.active())
        record = choice.engines[_COMPONENT]
        engine = choice.module.load_engine(opened, record, device=device, threads=1, options={})
        taken.callback(engine.close)
        execution = engine.prepare({"latents": x.shape})
        taken.callback(execution.close)
        tensors: Sequence[tuple[str, tuple[int, ...]]] = [("latents", x.shape), ("y", execution.outputs["y"][0])]
        buffers = {name: device.allocate(shape, np.float16) for name, shape in tensors}
        workspace = device.allocate((execution.workspace_bytes,), np.uint8) if execution.workspace_bytes else None
        for buffer in (*buffers.values(), *(() if workspace is None else (workspace,))):
            taken.callback(buffer.close)
        device.stream.upload(buffers["latents"], x)
        execution.bind(buffers, workspace)
        yield lambda: execution.enqueue(device.stream), device.stream.handle
        device.stream.synchronize()
