"""A build makes what was asked for, takes over what has not changed, says why, and never loses a bundle."""

from __future__ import annotations

import importlib.metadata
import json
import shutil
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import diffusers
import msgspec
import onnx
import pytest
import torch
from safetensors.torch import load_file, save_file

from latentrt.export import build_graph
from latentrt.export.build_engine import EngineOptions
from latentrt.export.bundle_from_checkpoint import BuildOptions, bundle_from_checkpoint, planned_changes
from latentrt.export.checkpoints.checkpoint import read_checkpoint
from latentrt.export.events import BuildEvent
from latentrt.export.gate import graph_gate
from latentrt.export.networks import components as components_module
from latentrt.export.networks.components_from_checkpoint import components_from_checkpoint
from latentrt.export.profiles import Batch
from latentrt.export.store import BundleWriter
from latentrt.runtime.bundles.bundle import open_bundle
from latentrt.runtime.bundles.manifest import Manifest, encode_manifest
from latentrt.runtime.errors import CheckpointError, GateError, LatentRTError, OutputError, RequestError

NAMES = ["text_encoder", "text_encoder_2", "vae_encoder", "denoiser", "vae_decoder"]
TEXT = BuildOptions(components=("text_encoder",))


@pytest.fixture
def bundle_copy(tmp_path: Path, tiny_bundle: Path) -> Path:
    return Path(shutil.copytree(tiny_bundle, tmp_path / "bundle"))


@pytest.fixture
def no_weights(monkeypatch: pytest.MonkeyPatch) -> None:
    """Loading the weights of any component is an error."""

    def refuse(checkpoint: object, folder: str) -> None:
        raise AssertionError(f"{folder} was loaded")

    monkeypatch.setattr(components_module, "network_weights", refuse)


@pytest.fixture
def no_export(monkeypatch: pytest.MonkeyPatch) -> None:
    """Exporting any component from torch is an error."""

    def refuse(*arguments: object) -> None:
        raise AssertionError("torch was asked to export")

    monkeypatch.setattr(build_graph, "onnx_from_component", refuse)


def build(checkpoint: Path, out: Path, options: BuildOptions | None = None) -> dict[str, str]:
    """Build; returns why each component was built, or that it was reused."""
    events: list[BuildEvent] = []
    bundle_from_checkpoint(checkpoint, out, options, events.append)
    return {event.component: event.reason for event in events if event.stage == "done"}


def fails(error: type[LatentRTError], checkpoint: Path, out: Path, options: BuildOptions | None = None) -> str:
    with pytest.raises(error) as caught:
        bundle_from_checkpoint(checkpoint, out, options)
    return str(caught.value)


def change_weight(checkpoint: Path, value: float = 0.5) -> None:
    """Change one value of the first text encoder."""
    path = checkpoint / "text_encoder" / "model.safetensors"
    weights = load_file(path)
    weights[sorted(weights)[0]].view(-1)[0] = value
    save_file(weights, path, metadata={"format": "pt"})


# --- what is built ----------------------------------------------------------------------------------------------------


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
    assert [(event.component, event.stage) for event in events if event.component] == [
        ("text_encoder", stage) for stage in ("check", "export", "gate", "compile", "gate", "done")
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


# --- what is taken over -----------------------------------------------------------------------------------------------


@pytest.mark.usefixtures("no_weights", "no_export")
def test_a_second_build_takes_everything_over_and_loads_no_weights(tiny_checkpoint: Path, bundle_copy: Path) -> None:
    before = open_bundle(bundle_copy)
    assert build(tiny_checkpoint, bundle_copy) == dict.fromkeys(NAMES, "reused")
    assert open_bundle(bundle_copy).hash == before.hash


@pytest.mark.usefixtures("no_export")
def test_other_sizes_need_other_engines_but_no_export(tiny_checkpoint: Path, bundle_copy: Path) -> None:
    reasons = build(tiny_checkpoint, bundle_copy, BuildOptions(aspects="96x96,96x64"))
    assert [name for name in NAMES if reasons[name] == "reused"] == ["text_encoder", "text_encoder_2"]
    assert all("profile.max changed 144x144 -> 96x96" in reasons[name] for name in NAMES[2:])
    assert open_bundle(bundle_copy).manifest.components["denoiser"].profile["width"].max == 24


def test_a_changed_weight_rebuilds_its_component_and_says_so(checkpoint_copy: Path, bundle_copy: Path) -> None:
    change_weight(checkpoint_copy)
    before = open_bundle(bundle_copy).manifest
    reasons = build(checkpoint_copy, bundle_copy)
    assert reasons["text_encoder"].startswith("weights changed ")
    assert [name for name in NAMES if reasons[name] == "reused"] == NAMES[1:]
    after = open_bundle(bundle_copy).manifest
    assert after.components["text_encoder"].weights != before.components["text_encoder"].weights
    assert set(before.components["text_encoder"].weights).isdisjoint(after.files)


def test_force_builds_what_is_named_and_leaves_the_rest(tiny_checkpoint: Path, bundle_copy: Path) -> None:
    before = open_bundle(bundle_copy)
    reasons = build(tiny_checkpoint, bundle_copy, BuildOptions(components=("text_encoder",), force=True))
    assert reasons == {"text_encoder": "forced", **dict.fromkeys(NAMES[1:], "reused")}
    assert open_bundle(bundle_copy).hash == before.hash


def test_a_component_is_added_to_the_ones_that_are_there(tiny_checkpoint: Path, text_bundle_copy: Path) -> None:
    options = BuildOptions(components=("text_encoder_2",))
    assert build(tiny_checkpoint, text_bundle_copy, options) == {"text_encoder": "reused", "text_encoder_2": "new"}
    assert list(open_bundle(text_bundle_copy).manifest.components) == ["text_encoder", "text_encoder_2"]


@pytest.mark.usefixtures("no_weights")
def test_a_component_that_is_not_named_and_has_changed_is_not_lost(checkpoint_copy: Path, bundle_copy: Path) -> None:
    change_weight(checkpoint_copy)
    before = open_bundle(bundle_copy)
    message = fails(RequestError, checkpoint_copy, bundle_copy, BuildOptions(components=("vae_decoder",)))
    assert "the bundle's text_encoder would have to be rebuilt too | received: weights changed" in message
    assert open_bundle(bundle_copy).hash == before.hash


@pytest.mark.usefixtures("no_export")
def test_a_damaged_engine_is_not_taken_over(tiny_checkpoint: Path, text_bundle_copy: Path) -> None:
    before = open_bundle(text_bundle_copy)
    path = text_bundle_copy / "engines" / "onnxruntime-cpu" / "text_encoder.onnx"
    path.write_bytes(path.read_bytes()[:-1])
    assert build(tiny_checkpoint, text_bundle_copy, TEXT) == {"text_encoder": "its files were damaged"}
    assert open_bundle(text_bundle_copy).hash == before.hash


def test_damaged_weights_are_not_taken_over(tiny_checkpoint: Path, text_bundle_copy: Path) -> None:
    before = open_bundle(text_bundle_copy)
    path = text_bundle_copy / before.manifest.components["text_encoder"].weights[0]
    data = bytearray(path.read_bytes())
    data[1000] ^= 1
    path.write_bytes(data)
    assert build(tiny_checkpoint, text_bundle_copy, TEXT) == {"text_encoder": "its files were damaged"}
    assert open_bundle(text_bundle_copy).hash == before.hash


def planned(checkpoint: Path, out: Path, options: BuildOptions) -> tuple[dict[str, str], list[str]]:
    """What a dry run says: of each component, and of what would be dropped."""
    events: list[BuildEvent] = []
    changes = planned_changes(checkpoint, out, options, events.append)
    return changes, [f"{event.component}: {event.detail}" for event in events if event.stage == "drop"]


def test_a_plan_says_that_a_newer_latentrt_made_the_bundle(tiny_checkpoint: Path, text_bundle_copy: Path) -> None:
    path = text_bundle_copy / "manifest.json"
    path.write_text(path.read_text().replace('"schema_version": ', '"schema_version": 9'))
    changes, dropped = planned(tiny_checkpoint, text_bundle_copy, TEXT)
    assert changes == {"text_encoder": "new"}
    assert dropped == [f": {text_bundle_copy}: made by a newer LatentRT: nothing of it is taken over"]


def rewrite(bundle: Path, change: Callable[[Manifest], Manifest]) -> None:
    (bundle / "manifest.json").write_bytes(encode_manifest(change(open_bundle(bundle).manifest)))


@pytest.mark.parametrize("file", ["onnx", "weights", "engine"])
def test_a_dry_run_finds_a_flipped_byte(tiny_checkpoint: Path, text_bundle_copy: Path, file: str) -> None:
    manifest = open_bundle(text_bundle_copy).manifest
    record = manifest.components["text_encoder"]
    name = {"onnx": record.onnx, "weights": record.weights[0], "engine": manifest.engines[0].path}[file]
    data = bytearray((text_bundle_copy / name).read_bytes())
    data[len(data) // 2] ^= 1
    (text_bundle_copy / name).write_bytes(data)
    assert planned(tiny_checkpoint, text_bundle_copy, TEXT) == ({"text_encoder": "its files were damaged"}, [])
    assert (text_bundle_copy / name).read_bytes() == data


@pytest.mark.parametrize(
    ("name", "value", "reason"),
    [
        ("OPSET", 24, "opset changed 23 -> 24"),
        ("export_code", lambda: "f" * 64, "export code changed "),
        ("version", lambda name: "9.0" if name == "torch" else importlib.metadata.version(name), "torch changed "),
    ],
)
def test_parts_of_a_graphs_key_that_are_not_the_checkpoints(
    tiny_checkpoint: Path,
    text_bundle_copy: Path,
    monkeypatch: pytest.MonkeyPatch,
    name: str,
    value: object,
    reason: str,
) -> None:
    monkeypatch.setattr(build_graph, name, value)
    changes, _ = planned(tiny_checkpoint, text_bundle_copy, TEXT)
    assert changes["text_encoder"].startswith(reason)
    assert ";" not in changes["text_encoder"]


def test_precision_and_what_a_text_encoder_gives_are_parts_of_its_key(
    tiny_checkpoint: Path, text_bundle_copy: Path
) -> None:
    """An encoder's config and weights do not say which of its hidden states the family wants."""
    half = BuildOptions(components=("text_encoder",), precision="fp16")
    assert planned(tiny_checkpoint, text_bundle_copy, half)[0] == {"text_encoder": "precision changed fp32 -> fp16"}
    first, second = components_from_checkpoint(read_checkpoint(tiny_checkpoint), "fp32")[:2]
    assert first.settings == {"hidden state": "penultimate", "pooled": "False"}
    assert second.settings == {"hidden state": "penultimate", "pooled": "True"}

    def other_state(manifest: Manifest) -> Manifest:
        record = manifest.components["text_encoder"]
        key = {**record.key, "hidden state": "last"}
        return msgspec.structs.replace(manifest, components={"text_encoder": msgspec.structs.replace(record, key=key)})

    rewrite(text_bundle_copy, other_state)
    expected = {"text_encoder": "hidden state changed last -> penultimate"}
    assert planned(tiny_checkpoint, text_bundle_copy, TEXT)[0] == expected


@pytest.mark.usefixtures("no_export")
def test_what_could_not_be_compared_is_compared_when_it_can(tiny_checkpoint: Path, text_bundle_copy: Path) -> None:
    """The bundle of a machine with too little memory, rebuilt on a larger one, is the one that that one builds."""
    whole = open_bundle(text_bundle_copy).hash

    def not_compared(manifest: Manifest) -> Manifest:
        record, (engine,) = manifest.components["text_encoder"], manifest.engines
        return msgspec.structs.replace(
            manifest,
            components={"text_encoder": msgspec.structs.replace(record, gate=(), not_run="too little memory")},
            engines=(msgspec.structs.replace(engine, gate=(), not_run="too little memory"),),
        )

    rewrite(text_bundle_copy, not_compared)
    assert build(tiny_checkpoint, text_bundle_copy, TEXT) == {"text_encoder": "reused"}
    assert open_bundle(text_bundle_copy).hash == whole


def test_obstacles_in_the_manifest_say_nothing_of_the_moment(
    text_bundle: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    record = open_bundle(text_bundle).manifest.components["text_encoder"]
    reasons = set()
    for available in (1000, 2000):
        for module in (build_graph, graph_gate):
            monkeypatch.setattr(module, "available_memory", lambda available=available: available)
        reasons |= {build_graph.Reference(None).cannot_run(record), graph_gate.cannot_run(record)}  # type: ignore[arg-type]
    assert reasons == {
        "its reference takes about 0.0 GB of memory, more than was available",
        "it takes about 0.0 GB of memory, more than was available",
    }


@pytest.mark.usefixtures("no_export")
def test_graphs_alone_keep_the_engines_that_belong_to_them(tiny_checkpoint: Path, text_bundle_copy: Path) -> None:
    before = open_bundle(text_bundle_copy)
    options = BuildOptions(components=("text_encoder",), onnx_only=True)
    assert build(tiny_checkpoint, text_bundle_copy, options) == {"text_encoder": "reused"}
    assert open_bundle(text_bundle_copy).hash == before.hash
    half = replace(options, precision="fp16")
    dropped = "text_encoder: onnxruntime-cpu engine dropped because precision changed fp32 -> fp16"
    assert planned(tiny_checkpoint, text_bundle_copy, half)[1] == [dropped]
    more = replace(options, batch=Batch(1, 1, 9))
    dropped = "text_encoder: onnxruntime-cpu engine dropped because profile.texts changed 1..2..16 -> 1..2..18"
    assert planned(tiny_checkpoint, text_bundle_copy, more) == ({"text_encoder": "reused"}, [dropped])


def test_a_component_that_nothing_is_given_for_is_not_lost_in_silence(
    tiny_checkpoint: Path, text_bundle_copy: Path
) -> None:
    def with_tiny_decoder(manifest: Manifest) -> Manifest:
        record = manifest.components["text_encoder"]
        return msgspec.structs.replace(manifest, components={**manifest.components, "tiny_decoder": record})

    rewrite(text_bundle_copy, with_tiny_decoder)
    message = fails(RequestError, tiny_checkpoint, text_bundle_copy, TEXT)
    assert "--component: the bundle's tiny_decoder would be lost | received: a checkpoint without it" in message
    _, dropped = planned(tiny_checkpoint, text_bundle_copy, BuildOptions())
    assert dropped == ["tiny_decoder: dropped because nothing was given that has one"]


@pytest.mark.usefixtures("no_export")
@pytest.mark.parametrize("onnx_only", [True, False])
def test_a_disk_without_room_for_the_graphs_is_told_before_the_work(
    tiny_checkpoint: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, onnx_only: bool
) -> None:
    usage = shutil.disk_usage(tmp_path)
    monkeypatch.setattr(shutil, "disk_usage", lambda path: usage._replace(free=1_000_000))
    options = BuildOptions(components=("text_encoder",), onnx_only=onnx_only)
    message = fails(OutputError, tiny_checkpoint, tmp_path / "bundle", options)
    assert "not enough room for the bundle | received: 0.0 GB free | expected: about 0.0 GB for text_encoder" in message
    assert list(tmp_path.iterdir()) == []


def test_weights_that_have_two_names_take_room_once(tiny_checkpoint: Path) -> None:
    stored = load_file(tiny_checkpoint / "text_encoder" / "model.safetensors").values()
    encoder = components_from_checkpoint(read_checkpoint(tiny_checkpoint), "fp32")[0]
    assert encoder.weight_bytes == sum(tensor.nbytes for tensor in stored)


def test_a_build_that_has_to_wait_for_another_says_so(tiny_checkpoint: Path, tmp_path: Path) -> None:
    def stop(event: BuildEvent) -> None:
        raise RuntimeError(event.stage)

    with BundleWriter(tmp_path / "bundle"), pytest.raises(RuntimeError, match="wait"):
        bundle_from_checkpoint(tiny_checkpoint, tmp_path / "bundle", TEXT, stop)
    assert list(tmp_path.iterdir()) == []


# --- what cannot be built ---------------------------------------------------------------------------------------------


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
