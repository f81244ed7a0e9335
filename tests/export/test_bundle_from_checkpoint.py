"""A build makes what was asked for, or says why it cannot before it has lost anything."""

from __future__ import annotations

import json
import shutil
from pathlib import Path

import diffusers
import onnx
import pytest
import torch
from safetensors.torch import load_file, save_file

from latentrt.export.build_engine import EngineOptions
from latentrt.export.bundle_from_checkpoint import BuildOptions, bundle_from_checkpoint, planned_changes
from latentrt.export.events import BuildEvent
from latentrt.export.profiles import Batch
from latentrt.runtime.bundles.bundle import open_bundle
from latentrt.runtime.errors import CheckpointError, GateError, RequestError

from .builds import NAMES, TEXT, build, change_weight, fails


def test_a_whole_bundle(tiny_bundle: Path, tiny_checkpoint: Path) -> None:
    bundle = open_bundle(tiny_bundle)
    manifest = bundle.manifest
    assert sorted(manifest.components) == sorted(NAMES)
    assert [engine.component for engine in manifest.engines] == NAMES
    assert manifest.latent_space.scale == 4
    assert manifest.latent_space.stride == 8
    assert (manifest.defaults.width, manifest.defaults.height) == (96, 96)
    assert manifest.scheduler == json.loads((tiny_checkpoint / "scheduler/scheduler_config.json").read_text())
    assert manifest.tools["torch"] == torch.__version__
    assert set(manifest.tools) == {"diffusers", "onnx-ir", "onnxscript", "torch", "transformers"}
    on_disk = {str(path.relative_to(tiny_bundle)) for path in tiny_bundle.rglob("*") if path.is_file()}
    assert on_disk == {*manifest.files, "manifest.json", "build.json"}


def test_one_component_alone_and_the_stages_it_goes_through(tiny_checkpoint: Path, tmp_path: Path) -> None:
    events: list[BuildEvent] = []
    manifest = bundle_from_checkpoint(tiny_checkpoint, tmp_path / "bundle", TEXT, events.append)
    assert [(event.component, event.stage) for event in events] == [
        ("", "profiles"),
        ("text_encoder", "check"),
        ("", "check"),
        *(("text_encoder", stage) for stage in ("export", "gate", "compile", "gate", "done")),
    ]
    assert events[-1].reason == "new"
    assert events[-1].seconds > 0
    assert list(manifest.components) == ["text_encoder"]
    assert open_bundle(tmp_path / "bundle").manifest == manifest


def test_sizes_and_batch_become_profiles(tiny_checkpoint: Path, tmp_path: Path, text_bundle: Path) -> None:
    options = BuildOptions(components=("text_encoder",), aspects="64x48,48x64", batch=Batch(1, 2, 3))
    out = Path(shutil.copytree(text_bundle, tmp_path / "bundle"))
    assert build(tiny_checkpoint, out, options) == {"text_encoder": "profile.texts changed 1..2..16 -> 1..4..6"}
    manifest = open_bundle(out).manifest
    assert manifest.buckets == ((64, 48), (48, 64))
    assert (manifest.defaults.width, manifest.defaults.height) == (64, 48)
    assert str(manifest.components["text_encoder"].profile["texts"]) == "1..4..6"


@pytest.mark.parametrize("precision", ["fp16", "bf16"])
def test_graphs_in_half_precision_mix_no_dtypes(checkpoint_copy: Path, tmp_path: Path, precision: str) -> None:
    """TensorRT refuses an operator with a float and a half input; the checker's strict inference does so too."""
    unet = diffusers.UNet2DConditionModel(
        sample_size=24, block_out_channels=(8,), layers_per_block=1, norm_num_groups=4, cross_attention_dim=64,
        down_block_types=("CrossAttnDownBlock2D",), up_block_types=("CrossAttnUpBlock2D",),
        attention_head_dim=2, use_linear_projection=True, addition_embed_type="text_time",
        addition_time_embed_dim=6, projection_class_embeddings_input_dim=28 + 6 * 6,
    )  # fmt: skip
    unet.save_pretrained(checkpoint_copy / "unet")
    options = BuildOptions(precision=precision, components=("denoiser",), onnx_only=True)
    manifest = bundle_from_checkpoint(checkpoint_copy, tmp_path / "bundle", options)
    assert manifest.engines == ()
    assert manifest.components["denoiser"].precision == precision

    path = tmp_path / "bundle" / "onnx" / "denoiser.onnx"
    onnx.checker.check_model(str(path), full_check=True)
    model = onnx.load(path)
    inferred = onnx.shape_inference.infer_shapes(model, check_type=True, strict_mode=True, data_prop=True).graph
    values = (*inferred.value_info, *inferred.input, *inferred.output)
    dtypes = {value.name: value.type.tensor_type.elem_type for value in values}
    dtypes |= {tensor.name: tensor.data_type for tensor in inferred.initializer}
    floats = {onnx.TensorProto.FLOAT, onnx.TensorProto.FLOAT16, onnx.TensorProto.BFLOAT16}
    half = onnx.TensorProto.FLOAT16 if precision == "fp16" else onnx.TensorProto.BFLOAT16
    for node in inferred.node:
        inputs = {dtypes[name] for name in node.input if name} & floats
        assert len(inputs) <= 1 or node.op_type == "Resize", node  # whose scales are always fp32
        if node.op_type in ("Conv", "MatMul", "Gemm", "Attention"):
            assert inputs == {half}, node
    outside = half if precision == "fp16" else onnx.TensorProto.FLOAT  # numpy has no bfloat16
    assert {tensor.name: tensor.type.tensor_type.elem_type for tensor in inferred.input} == {
        "sample": outside, "timestep": onnx.TensorProto.FLOAT, "encoder_hidden_states": outside,
        "text_embeds": outside, "time_ids": onnx.TensorProto.FLOAT,
    }  # fmt: skip


@pytest.mark.parametrize(
    ("options", "expected"),
    [
        (BuildOptions(components=("unet",)), "--component | received: unet | expected: text_encoder, text_encoder_2,"),
        (BuildOptions(EngineOptions("cuda")), "--provider | received: cuda | expected: onnxruntime-cpu"),
        (BuildOptions(EngineOptions("cuda"), precision="fp16", onnx_only=True), "--provider | received: cuda | "),
        (BuildOptions(precision="bf16"), "--precision | received: bf16 | expected: fp32 or fp16 for onnxruntime-cpu |"),
        (BuildOptions(precision="int8", onnx_only=True), "--precision | received: int8 | expected: fp32 or fp16 or"),
        (
            BuildOptions(EngineOptions("tensorrt-rtx", ("sm89",)), onnx_only=True),
            "--onnx-only | received: with --target",
        ),
        (BuildOptions(aspects="100x100"), "--aspects | received: 100x100 | expected: sides that are multiples of 8"),
    ],
)
def test_options_that_cannot_be_used(
    tiny_checkpoint: Path, tmp_path: Path, options: BuildOptions, expected: str
) -> None:
    assert expected in fails(RequestError, tiny_checkpoint, tmp_path / "bundle", options)
    assert list(tmp_path.iterdir()) == []


def test_weights_that_are_not_numbers_fail_at_the_gate(
    checkpoint_copy: Path, text_bundle_copy: Path, tmp_path: Path
) -> None:
    before = open_bundle(text_bundle_copy)
    change_weight(checkpoint_copy, float("nan"))
    message = fails(GateError, checkpoint_copy, text_bundle_copy, TEXT)
    assert "text_encoder: the checkpoint's own network does not compute numbers" in message
    assert "values of hidden_states are NaN or infinite" in message
    assert open_bundle(text_bundle_copy).hash == before.hash
    assert sorted(path.name for path in tmp_path.iterdir()) == ["bundle", "checkpoint"]


@pytest.mark.usefixtures("no_export")
def test_weights_that_do_not_fit_are_found_before_anything_is_exported(checkpoint_copy: Path, tmp_path: Path) -> None:
    path = checkpoint_copy / "unet" / "diffusion_pytorch_model.safetensors"
    weights = load_file(path)
    weights["conv_in.weight_scale"] = weights.pop("conv_in.weight")
    save_file(weights, path, metadata={"format": "pt"})
    for act in (bundle_from_checkpoint, planned_changes):
        with pytest.raises(CheckpointError) as error:
            act(checkpoint_copy, tmp_path / "bundle")
        assert "unet: its weights do not fit its config" in str(error.value)
        assert "received: nothing for conv_in.weight; unexpected conv_in.weight_scale" in str(error.value)
    assert not (tmp_path / "bundle").exists()


@pytest.mark.usefixtures("no_export")
def test_a_broken_tokenizer_is_found_before_anything_is_exported(checkpoint_copy: Path, tmp_path: Path) -> None:
    for path in (checkpoint_copy / "tokenizer_2").iterdir():
        path.unlink()
    message = fails(CheckpointError, checkpoint_copy, tmp_path / "bundle")
    assert f"{checkpoint_copy / 'tokenizer_2'}: not the tokenizer of its text encoder" in message
    assert not (tmp_path / "bundle").exists()
