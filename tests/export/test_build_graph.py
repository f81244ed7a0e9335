"""Graphs of a bundle in half precision: built, gated in their own precision, and what is said where that cannot be."""

from __future__ import annotations

import importlib.util
import shutil
from pathlib import Path

import numpy as np
import onnx
import onnx_ir as ir
import pytest
from safetensors.torch import load_file, save_file

from latentrt.export.bundle_from_checkpoint import BuildOptions, bundle_from_checkpoint
from latentrt.export.gate.graph_gate import cannot_run
from latentrt.export.gate.overflow import first_overflow
from latentrt.export.gate.verify import LIMITS
from latentrt.runtime.bundles.manifest import Component
from latentrt.runtime.bundles.spec import TensorSpec
from latentrt.runtime.errors import GateError, RequestError


def test_half_precision_builds_for_the_processor_and_passes_both_gates(tiny_checkpoint: Path, tmp_path: Path) -> None:
    options = BuildOptions(precision="fp16", components=("text_encoder_2",))
    manifest = bundle_from_checkpoint(tiny_checkpoint, tmp_path / "half", options)
    record, (engine,) = manifest.components["text_encoder_2"], manifest.engines
    assert record.precision == "fp16"
    assert {spec.dtype for spec in record.outputs} == {"float16"}
    for figures in (*record.gate, *engine.gate):
        assert 0 < figures.cosine_distance < LIMITS["fp16"][0]
        assert figures.non_finite == 0
    assert {figures.output for figures in record.gate} == {"hidden_states", "text_embeds"}
    stored = sum(manifest.files[name].size for name in record.weights)
    assert stored == pytest.approx(2 * record.parameters, rel=0.02)


def test_bf16_is_exported_and_compared(tiny_checkpoint: Path, tmp_path: Path) -> None:
    """ONNX Runtime does not compute in bf16: its values are rounded to bf16 instead, with the errors of that."""
    options = BuildOptions(precision="bf16", components=("text_encoder",), onnx_only=True)
    manifest = bundle_from_checkpoint(tiny_checkpoint, tmp_path / "brain", options)
    record = manifest.components["text_encoder"]
    assert record.not_run == ""
    for figures in record.gate:
        assert 1e-7 < figures.cosine_distance < LIMITS["bf16"][0]
        assert figures.non_finite == 0
    assert {spec.dtype for spec in record.outputs} == {"float32"}  # numpy has no bfloat16
    path = tmp_path / "brain" / record.onnx
    onnx.checker.check_model(path, full_check=True)
    types = {tensor.data_type for tensor in onnx.load(path, load_external_data=False).graph.initializer}
    assert onnx.TensorProto.BFLOAT16 in types
    assert onnx.TensorProto.FLOAT not in types


def test_bf16_engines_for_the_processor_are_refused_with_a_way_out(tiny_checkpoint: Path, tmp_path: Path) -> None:
    with pytest.raises(RequestError, match=r"--precision .* bf16 .* fp32 or fp16 for onnxruntime-cpu .* --onnx-only"):
        bundle_from_checkpoint(tiny_checkpoint, tmp_path / "brain", BuildOptions(precision="bf16"))
    assert not (tmp_path / "brain").exists()


def test_a_component_that_does_not_fit_into_memory_is_not_run(
    text_bundle: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    from latentrt.export.gate import graph_gate
    from latentrt.runtime.bundles.bundle import open_bundle

    record = open_bundle(text_bundle).manifest.components["text_encoder"]
    assert cannot_run(record) == ""
    monkeypatch.setattr(graph_gate, "available_memory", lambda: 1000)
    assert cannot_run(record) == "it takes about 0.0 GB of memory, more than was available"


def test_without_onnxruntime_nothing_is_compared_and_nothing_passes(
    tiny_checkpoint: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """latentrt[export,tensorrt-rtx] does not bring it along."""
    find = importlib.util.find_spec
    monkeypatch.setattr(importlib.util, "find_spec", lambda name: None if name == "onnxruntime" else find(name))
    options = BuildOptions(components=("text_encoder",), onnx_only=True)
    record = bundle_from_checkpoint(tiny_checkpoint, tmp_path / "bundle", options).components["text_encoder"]
    assert record.gate == ()
    assert record.not_run == "onnxruntime is not installed"


def test_the_node_that_leaves_the_range_of_fp16_is_named(tmp_path: Path) -> None:
    """A mask of minus infinity is meant; the square of 300 is not."""
    graph = ir.from_onnx_text("""
        <ir_version: 10, opset_import: ["" : 23]>
        graph (float16[rows] sample) => (float16[rows] model_output) {
            lowest = Constant <value = float16[1] {64512}> ()
            shown = Max (sample, lowest)
            [the_square] square = Mul (shown, shown)
            [the_end] model_output = Neg (square)
        }""")
    for node in graph.graph:
        for value in node.outputs:
            value.type, value.shape = ir.TensorType(ir.DataType.FLOAT16), ir.Shape(["rows"])
    ir.save(graph, tmp_path / "denoiser.onnx")
    sample = TensorSpec("sample", "float16", ("rows",))
    record = Component((sample,), (sample,), {}, "fp16", 0, 23, "denoiser.onnx", (), {})
    for value, expected in ((3, ""), (300, "the_square (Mul)")):
        inputs = {"sample": np.array([1, value], np.float16)}
        assert first_overflow(record, tmp_path, {"rows": 2}, inputs) == expected


def test_a_graph_that_overflows_is_refused_with_that_node(tmp_path: Path, tiny_checkpoint: Path) -> None:
    """The output of a feed-forward network, as T5's: each weight is in the range of fp16, their product is not."""
    checkpoint = Path(shutil.copytree(tiny_checkpoint, tmp_path / "checkpoint"))
    path = checkpoint / "text_encoder" / "model.safetensors"
    weights = load_file(path)
    for name in weights:
        if ".0.mlp.fc" in name:
            weights[name] = weights[name] * 3e3
    save_file(weights, path, metadata={"format": "pt"})
    options = BuildOptions(precision="fp16", components=("text_encoder",), onnx_only=True)
    says = r"text_encoder: .* values not finite, the first from \S+ \((MatMul|Gemm|Add)\) .* build it in bf16 or fp32"
    with pytest.raises(GateError, match=says):
        bundle_from_checkpoint(checkpoint, tmp_path / "half", options)
    assert not (tmp_path / "half").exists()
