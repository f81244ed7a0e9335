"""The graph of every kind of component: in half precision it follows its plan, agrees with fp32, and TensorRT takes it.

Each is traced once, in fp32, and every precision is written into a copy of that.
"""

from __future__ import annotations

import os
from collections import Counter
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import onnx_ir as ir
import onnxruntime as ort
import pytest
import torch
from numpy.typing import NDArray

from latentrt.export.checkpoints.checkpoint import Checkpoint, read_checkpoint
from latentrt.export.engines.tensorrt.build import EngineTask, build_engine
from latentrt.export.engines.tensorrt.compiler import heavy_types
from latentrt.export.gate.examples import example_arrays, example_sizes
from latentrt.export.gate.verify import LIMITS, compare
from latentrt.export.graphs.flops import graph_work
from latentrt.export.graphs.onnx_from_torch import onnx_from_component
from latentrt.export.graphs.onnxruntime_cuda import NEWER, OPSET, for_onnxruntime_cuda
from latentrt.export.graphs.precision import MATRIX_OPERATORS, PrecisionPlan
from latentrt.export.graphs.rewrites import for_tensorrt
from latentrt.export.graphs.typed_graph import check_precision, write_precision
from latentrt.export.networks.components import SourceComponent, latent_stride
from latentrt.export.networks.components_from_checkpoint import components_from_checkpoint
from latentrt.runtime.bundles.spec import AxisRange

from .expected_flops import decoder_flops, mmdit_flops, unet_flops

#: Kind -> the tiny checkpoint it is taken from, and its name there.
KINDS = {
    "unet": ("sd2", "denoiser"),  # fp32 attention
    "unet with sizes": ("sdxl-refiner", "denoiser"),
    "mmdit": ("sd3", "denoiser"),
    "clip": ("sd1", "text_encoder"),
    "clip with projection": ("sd3", "text_encoder_2"),
    "t5": ("sd3", "text_encoder_3"),
    "decoder": ("sd3", "vae_decoder"),
    "encoder": ("sd1", "vae_encoder"),
}

#: Weights of T5 and what to multiply them by for its feed-forward output to be as large as the real one's.
LOUD_T5 = {".wi_1.weight": 300, ".wo.weight": 3e4}

Traced = Callable[[str], "Network"]


@dataclass(frozen=True)
class Network:
    """One kind of component and its fp32 graph."""

    checkpoint: Checkpoint
    name: str
    graph: ir.Model

    def component(self, precision: str) -> SourceComponent:
        found = components_from_checkpoint(self.checkpoint, precision)
        return next(component for component in found if component.name == self.name)

    def typed(self, component: SourceComponent, plan: PrecisionPlan | None = None) -> ir.Model:
        """The graph in the component's precision, or after another plan."""
        model, plan = self.graph.clone(), plan or component.plan
        write_precision(model, plan, component.inputs, component.outputs)
        check_precision(model, plan)
        return model

    def sizes(self) -> dict[str, int]:
        return {**example_sizes(latent_stride(self.checkpoint)), "prompt_tokens": 77}


@pytest.fixture(scope="module")
def traced(family_checkpoint: Callable[[str], Path]) -> Traced:
    networks: dict[str, Network] = {}

    def get(kind: str) -> Network:
        if kind not in networks:
            family, name = KINDS[kind]
            checkpoint = read_checkpoint(family_checkpoint(family))
            component = Network(checkpoint, name, ir.Model(ir.Graph([], [], nodes=[]), ir_version=10)).component("fp32")
            graph = onnx_from_component(component, latent_stride(checkpoint))
            networks[kind] = Network(checkpoint, name, graph)
        return networks[kind]

    return get


def run(path: Path, inputs: dict[str, NDArray[Any]]) -> list[NDArray[Any]]:
    options = ort.SessionOptions()
    options.log_severity_level = 3
    return ort.InferenceSession(path, options, providers=["CPUExecutionProvider"]).run(None, inputs)


def reference(component: SourceComponent, inputs: dict[str, NDArray[Any]]) -> tuple[torch.Tensor, ...]:
    tensors = (torch.from_numpy(array) for array in inputs.values())
    with torch.inference_mode():
        outputs = component.load()(*(tensor.float() if tensor.is_floating_point() else tensor for tensor in tensors))
    return outputs if isinstance(outputs, tuple) else (outputs,)


@pytest.mark.parametrize("kind", KINDS)
def test_half_precision_agrees_with_fp32_in_onnxruntime(kind: str, traced: Traced, tmp_path: Path) -> None:
    network = traced(kind)
    half = network.component("fp16")
    ir.save(network.typed(half), tmp_path / "half.onnx")
    onnx.checker.check_model(tmp_path / "half.onnx", full_check=True)
    inputs = example_arrays(half.inputs, network.sizes(), vocabulary=half.vocabulary)
    expected = reference(half, inputs)
    for spec, received, tensor in zip(half.outputs, run(tmp_path / "half.onnx", inputs), expected, strict=True):
        assert received.dtype == spec.dtype == "float16"
        figures = compare(kind, spec.name, {}, received, tensor.numpy())
        assert figures.non_finite == 0
        assert figures.cosine_distance < LIMITS["fp16"][0] / 100
        assert figures.max_abs < 0.01 * figures.reference_max_abs


@pytest.mark.parametrize("kind", KINDS)
def test_the_spelling_for_onnxruntime_on_gpus_has_kernels_there_and_the_same_results(
    kind: str, traced: Traced, tmp_path: Path
) -> None:
    network = traced(kind)
    half = network.component("fp16")
    portable = network.typed(half)
    spelt = for_onnxruntime_cuda(portable)
    counts = Counter(node.op_type for node in spelt.graph)
    of_onnx = {node.op_type for node in spelt.graph if node.domain == ""} - {"SimplifiedLayerNormalization"}
    assert spelt.graph.opset_imports[""] == OPSET
    assert not NEWER & of_onnx
    assert all(onnx.defs.has(name, OPSET) for name in of_onnx)
    masked = half.name.startswith("text_encoder")  # short, and spelt out
    attentions = sum(node.op_type == "Attention" for node in portable.graph)
    assert counts["MultiHeadAttention"] == (0 if masked else attentions)
    inputs = example_arrays(half.inputs, network.sizes(), vocabulary=half.vocabulary)
    for name, model in (("portable", portable), ("spelt", spelt)):
        ir.save(model, tmp_path / f"{name}.onnx")
    results = [run(tmp_path / f"{name}.onnx", inputs) for name in ("spelt", "portable")]
    for spec, received, expected in zip(half.outputs, *results, strict=True):
        assert compare(kind, spec.name, {}, received, expected).cosine_distance < LIMITS["fp16"][0] / 100


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("precision", ["fp16", "bf16"])
def test_what_is_heavy_is_in_half_precision_and_casts_are_few(precision: str, kind: str, traced: Traced) -> None:
    network = traced(kind)
    component = network.component(precision)
    model = network.typed(component)
    half = {"fp16": ir.DataType.FLOAT16, "bf16": ir.DataType.BFLOAT16}[precision]
    heavy = [node for node in model.graph if node.op_type in MATRIX_OPERATORS]
    wide = [node for node in heavy if node.outputs[0].dtype != half]
    expected = {("unet", "fp16"): "Attention", ("t5", "fp16"): "MatMul"}.get((kind, precision))
    assert {node.op_type for node in wide} == ({expected} if expected else set())
    assert heavy
    weights = {value.name: value.dtype for value in model.graph.initializers.values() if "weight" in value.name}
    assert {name for name, dtype in weights.items() if dtype == ir.DataType.FLOAT and ".wo." not in name} <= {
        name for name in weights if "norm" in name and kind == "t5"
    }
    casts = [node for node in model.graph if node.op_type == "Cast"]
    borders = len(component.inputs) + len(component.outputs) + 1  # and one behind the sinusoids
    islands = len(heavy) if kind in ("t5", "mmdit") else 0  # T5's GELU, and sums in fp32
    assert len(casts) <= borders + 4 * len(wide) + islands


@pytest.mark.parametrize("kind", KINDS)
def test_the_graph_holds_every_weight_that_it_uses_once(kind: str, traced: Traced) -> None:
    network = traced(kind)
    weights = network.component("fp32").weights()
    for value in network.graph.graph.initializers.values():
        name = value.name.removesuffix(".T").split(".", 1)[-1]
        if name in weights:
            assert value.const_value.size == np.prod(weights[name].shape)
    names = [value.name for value in network.graph.graph.initializers.values()]
    assert len(names) == len(set(names))


def test_t5_overflows_in_fp16_but_for_its_islands(traced: Traced, tmp_path: Path) -> None:
    network = traced("t5")
    half = network.component("fp16")
    graph = network.graph.clone()
    for value in graph.graph.initializers.values():
        factor = next((factor for name, factor in LOUD_T5.items() if name in value.name), 1)
        if factor != 1:
            value.const_value = ir.tensor(value.const_value.numpy() * np.float32(factor), name=value.name)
    loud = Network(network.checkpoint, network.name, graph)
    inputs = example_arrays(half.inputs, network.sizes(), vocabulary=half.vocabulary)
    results = []
    for name, plan in (("fp32", PrecisionPlan("fp32")), ("islands", half.plan), ("none", PrecisionPlan("fp16"))):
        component = network.component("fp32") if name == "fp32" else half
        ir.save(loud.typed(component, plan), tmp_path / f"{name}.onnx")
        results += run(tmp_path / f"{name}.onnx", inputs)
    expected, with_islands, without = results
    figures = compare("t5", "hidden_states", {}, with_islands, expected)
    assert figures.non_finite == 0
    assert figures.cosine_distance < LIMITS["fp16"][0]
    assert not np.isfinite(without).all()


@pytest.mark.parametrize("kind", ["unet", "unet with sizes", "mmdit", "decoder"])
def test_flops_are_those_of_the_config(kind: str, traced: Traced, tmp_path: Path) -> None:
    network = traced(kind)
    ir.save(network.graph, tmp_path / "graph.onnx")
    checkpoint = network.checkpoint
    sizes = {"rows": 3, "height": 8, "width": 12, "tokens": 77}
    if kind == "decoder":
        sizes = {"images": 2, "height": 6, "width": 5}
        expected = decoder_flops(checkpoint.configs["vae"], **sizes)
    else:
        config = checkpoint.configs[checkpoint.family.denoiser_folder]
        expected = (mmdit_flops if kind == "mmdit" else unet_flops)(config, **sizes)
    work = graph_work(tmp_path / "graph.onnx", sizes)
    assert work.flops == pytest.approx(expected, rel=0.01)
    assert work.flops == sum(work.by_operator.values())
    assert work.activation_bytes > 0
    assert work.weight_bytes == pytest.approx((tmp_path / "graph.onnx").stat().st_size, rel=0.4)


@pytest.mark.parametrize("kind", KINDS)
def test_tensorrt_rtx_builds_the_half_precision_graph(kind: str, traced: Traced, tmp_path: Path) -> None:
    pytest.importorskip("tensorrt_rtx")
    network = traced(kind)
    half = network.component("fp16")
    model = for_tensorrt(network.typed(half))
    ir.save(model, tmp_path / "graph.onnx")
    profile = {axis: AxisRange(size, size, 2 * size) for axis, size in network.sizes().items()}
    engine = tmp_path / "engine"
    figures = build_engine(
        EngineTask(
            "tensorrt-rtx", half.name, tmp_path / "graph.onnx", engine, half.inputs, half.outputs, (profile,),
            ("sm89", "sm120"), heavy_types(model),
        )
    )  # fmt: skip
    assert figures.heavy_layers == len(heavy_types(model)) > 0
    assert os.path.getsize(engine) > 0  # noqa: PTH202
