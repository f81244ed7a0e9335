"""Graphs of a bundle in half precision: built, gated in their own precision, and what is said where that cannot be."""

from __future__ import annotations

from pathlib import Path

import onnx
import pytest

from latentrt.export.bundle_from_checkpoint import BuildOptions, bundle_from_checkpoint
from latentrt.export.graph_gate import cannot_run
from latentrt.export.verify import LIMITS
from latentrt.runtime.errors import RequestError


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


def test_bf16_is_exported_and_says_that_it_did_not_run(tiny_checkpoint: Path, tmp_path: Path) -> None:
    options = BuildOptions(precision="bf16", components=("text_encoder",), onnx_only=True)
    manifest = bundle_from_checkpoint(tiny_checkpoint, tmp_path / "brain", options)
    record = manifest.components["text_encoder"]
    assert record.gate == ()
    assert record.not_run == "ONNX Runtime's CPU provider does not compute in bf16"
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
    from latentrt.export import graph_gate
    from latentrt.runtime.bundle import open_bundle

    record = open_bundle(text_bundle).manifest.components["text_encoder"]
    assert cannot_run(record) == ""
    monkeypatch.setattr(graph_gate, "available_memory", lambda: 1000)
    assert cannot_run(record) == "it takes about 0.0 GB of memory, and 0.0 GB are available"
