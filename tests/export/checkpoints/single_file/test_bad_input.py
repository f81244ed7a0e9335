"""What is not a checkpoint is refused with what it is and what to do; what is broken, with the tensors' names."""

from __future__ import annotations

import pickle
import shutil
import zipfile
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file, save_file

from latentrt.export.checkpoints.checkpoint import read_checkpoint
from latentrt.export.checkpoints.pretrained import network_weights
from latentrt.runtime.errors import CheckpointError, InputError

from .conftest import Saved
from .sparse_file import write_sparse

UNET = "model.diffusion_model."


def refused(path: Path, **arguments: Any) -> str:
    with pytest.raises(InputError) as error:
        read_checkpoint(path, **arguments)
    assert error.value.exit_code == 2
    assert "--prediction-type" in str(error.value) or str(path) in str(error.value) or arguments
    return str(error.value)


def with_names(path: Path, *names: str, shape: tuple[int, ...] = (4, 4), dtype: torch.dtype = torch.float16) -> Path:
    return write_sparse(path, {name: torch.empty(shape, dtype=dtype, device="meta") for name in names})


@pytest.mark.parametrize(
    ("names", "what", "remedy"),
    [
        (["lora_unet_down_blocks_0_attentions_0_proj_in.lora_up.weight"], "a LoRA", "merge it into a checkpoint"),
        (["unet.down_blocks.0.attentions.0.to_q.lora_A.weight"], "a LoRA", "merge it into a checkpoint"),
        (["lora_unet_mid_block_resnets_0_conv1.hada_w1_a"], "a LoRA", "merge it into a checkpoint"),
        (["first_stage_model.decoder.up.0.block.0.conv1.weight"], "an autoencoder (VAE)", "--vae PATH"),
        (["encoder.down.0.block.0.conv1.weight", "decoder.conv_in.weight"], "an autoencoder (VAE)", "--vae PATH"),
        (["decoder.up_blocks.0.resnets.0.conv1.weight"], "an autoencoder (VAE) of a diffusers folder", "as --vae"),
        (["decoder.layers.2.conv.0.weight"], "a tiny autoencoder (TAESD)", "--tiny-vae PATH"),
        (["control_model.input_blocks.0.0.weight"], "a ControlNet", "no option takes it"),
        (["controlnet_cond_embedding.conv_in.weight", "down_blocks.0.norm.weight"], "a ControlNet", "no option"),
        (["input_hint_block.0.weight"], "a ControlNet", "no option takes it"),
        (["down_blocks.0.resnets.0.norm1.weight", "conv_in.weight"], "a UNet of a diffusers folder", "whole folder"),
        (["transformer_blocks.0.attn.to_q.weight"], "a transformer of a diffusers folder", "whole folder"),
        (["double_blocks.0.img_attn.qkv.weight"], "a Flux", "LatentRT knows SD1"),
        (["text_model.encoder.layers.0.mlp.fc1.weight"], "a CLIP text encoder", "--text-encoder PATH"),
        (["transformer.resblocks.0.mlp.c_fc.weight"], "a CLIP text encoder", "--text-encoder PATH"),
        (["encoder.block.0.layer.0.SelfAttention.q.weight"], "a T5 text encoder", "--text-encoder-3 PATH"),
        (["emb_params"], "a textual inversion", "no option takes it"),
        (["clip_g", "clip_l"], "a textual inversion", "no option takes it"),
        (["body.0.block1.weight"], "a T2I-Adapter", "no option takes it"),
        (["ip_adapter.1.to_k_ip.weight"], "an IP-Adapter", "no option takes it"),
        (["down_blocks.0.motion_modules.0.norm.weight"], "a motion module", "no option takes it"),
        (["model_ema.diffusion_modelinput_blocks00weight"], "the averaged (EMA) weights alone", "diffusion_model."),
        ([f"{UNET}input_blocks.0.0.weight", f"{UNET}out.2.weight.quant_map"], "a quantized checkpoint", "made from"),
        ([f"{UNET}input_blocks.0.0.weight", f"{UNET}middle_block.1.proj.SCB"], "a quantized checkpoint", "made from"),
    ],
)  # fmt: skip
def test_another_kind_of_file(tmp_path: Path, names: list[str], what: str, remedy: str) -> None:
    message = refused(with_names(tmp_path / "file.safetensors", *names))
    assert f"not a checkpoint | received: {what}" in message
    assert remedy in message


def test_a_textual_inversion_under_any_name(tmp_path: Path) -> None:
    assert "a textual inversion" in refused(with_names(tmp_path / "cat.safetensors", "<cat-toy>", shape=(1, 768)))
    assert "a textual inversion" in refused(with_names(tmp_path / "cat.safetensors", "cat", shape=(3, 1024)))


def test_tensors_that_say_nothing_are_listed(tmp_path: Path) -> None:
    message = refused(with_names(tmp_path / "file.safetensors", *"abcdefg"))
    assert "received: 7 tensors: a, b, c, d, e, ..." in message
    assert "SD1, SD2, SDXL" in message


@pytest.mark.parametrize(
    ("name", "content", "what"),
    [
        ("model.gguf", b"GGUF\3\0\0\0", "a GGUF file"),
        ("model.safetensors", b"GGUF\3\0\0\0", "a GGUF file"),
        ("model.ckpt", b"anything", "a pickled checkpoint is never read"),
        ("model.safetensors", pickle.dumps({}), "a pickled checkpoint is never read"),
        ("model.safetensors", b"", "damaged"),
        ("model.safetensors", b"\x10\0\0\0\0\0\0\0{}", "damaged"),
    ],
)
def test_another_format(tmp_path: Path, name: str, content: bytes, what: str) -> None:
    (tmp_path / name).write_bytes(content)
    assert what in refused(tmp_path / name)


def test_a_zipped_pickle_is_never_read(tmp_path: Path) -> None:
    with zipfile.ZipFile(tmp_path / "model.safetensors", "w") as archive:
        archive.writestr("archive/data.pkl", b"")
    assert "a pickled checkpoint is never read" in refused(tmp_path / "model.safetensors")


def test_missing_and_unexpected_tensors_are_named(saved: Saved, tmp_path: Path) -> None:
    state = load_file(saved("sdxl")[1])
    gone = [name for name in state if name.startswith(f"{UNET}middle_block.0.")][:7]
    for name in gone:
        del state[name]
    for number in range(3):
        state[f"{UNET}extra.{number}"] = torch.zeros(1)
    save_file(state, tmp_path / "model.safetensors")
    message = refused(tmp_path / "model.safetensors")
    listed, extra = message.split("received: ")[1].split(" | ")[0].split("; ")
    assert listed.startswith("nothing for ")
    assert listed.endswith(", and 2 more")
    assert sum(name in listed for name in gone) == 5
    assert extra == f"unexpected {UNET}extra.0, {UNET}extra.1, {UNET}extra.2"


@pytest.mark.parametrize(
    "name",
    [
        f"{UNET}input_blocks.0.0.weight",
        f"{UNET}input_blocks.1.0.in_layers.0.weight",
        f"{UNET}input_blocks.3.1.proj_in.weight",
        f"{UNET}out.2.weight",
        "first_stage_model.encoder.down.0.block.0.conv1.weight",
        "first_stage_model.decoder.conv_in.weight",
        "conditioner.embedders.0.transformer.text_model.embeddings.token_embedding.weight",
        "conditioner.embedders.1.model.text_projection",
        "conditioner.embedders.1.model.transformer.resblocks.0.attn.in_proj_weight",
    ],
)
def test_any_one_tensor_may_be_missing(saved: Saved, tmp_path: Path, name: str) -> None:
    state = load_file(saved("sdxl")[1])
    del state[name]
    save_file(state, tmp_path / "model.safetensors")
    message = refused(tmp_path / "model.safetensors")
    assert name.removesuffix(".weight").removesuffix(".input_blocks.0.0") in message or "not a checkpoint" in message


def test_missing_components_are_asked_for(saved: Saved, tmp_path: Path) -> None:
    state = {name: tensor for name, tensor in load_file(saved("sdxl")[1]).items() if name.startswith(UNET)}
    save_file(state, tmp_path / "unet.safetensors")
    message = refused(tmp_path / "unet.safetensors")
    # Its text is not as wide as any published one's, and nothing else tells the family.
    assert "a UNet with a vector condition and text 192 wide" in message
    state = {name: tensor for name, tensor in load_file(saved("sd1")[1]).items() if name.startswith(UNET)}
    save_file(state, tmp_path / "unet.safetensors")
    message = refused(tmp_path / "unet.safetensors")
    assert "not a whole checkpoint of Stable Diffusion 1 | received: no text_encoder and no vae" in message
    assert "--text-encoder PATH and --vae PATH" in message


@pytest.mark.parametrize(
    ("name", "what"),
    [
        (f"{UNET}label_emb.weight", "x4 upscaler"),
        (f"{UNET}input_blocks.1.0.time_stack.in_layers.0.weight", "Stable Video Diffusion"),
        ("cc_projection.weight", "Zero123"),
        ("edm_mean", "Playground v2.5"),
        ("edm_vpred.sigma_max", "CosXL"),
    ],
)
def test_relatives_of_a_family(saved: Saved, tmp_path: Path, name: str, what: str) -> None:
    save_file({**load_file(saved("sd1")[1]), name: torch.zeros(1)}, tmp_path / "model.safetensors")
    message = refused(tmp_path / "model.safetensors")
    assert "a family that LatentRT does not know" in message
    assert what in message


def test_eight_bit_weights(saved: Saved, tmp_path: Path) -> None:
    name = "text_encoders.t5xxl.transformer.shared.weight"
    state = load_file(saved("sd3")[1])
    state[name] = state[name].to(torch.float8_e4m3fn)
    save_file(state, tmp_path / "model.safetensors")
    message = refused(tmp_path / "model.safetensors")
    assert f"received: {name} in F8_E4M3" in message
    assert "--text-encoder" in message
    folder = saved("sd3")[0] / "text_encoder_3"
    checkpoint = read_checkpoint(tmp_path / "model.safetensors", parts={"text_encoder_3": folder})
    assert len(network_weights(checkpoint, "text_encoder")) > 10


@pytest.mark.parametrize(("dtype", "name"), [(torch.float8_e4m3fn, "F8_E4M3"), (torch.int8, "I8")])
def test_eight_bit_weights_in_a_folder(saved: Saved, tmp_path: Path, dtype: torch.dtype, name: str) -> None:
    folder = Path(shutil.copytree(saved("sd1")[0], tmp_path / "folder"))
    path = folder / "vae" / "diffusion_pytorch_model.safetensors"
    state = load_file(path)
    save_file({key: tensor.to(dtype) for key, tensor in state.items()}, path)
    checkpoint = read_checkpoint(folder)
    with pytest.raises(CheckpointError, match=f"quantized weights.* in {name}"):
        network_weights(checkpoint, "vae")


def test_widths_that_no_head_divides(saved: Saved, tmp_path: Path) -> None:
    state = load_file(saved("sd1")[1])
    for key in ("token_embedding.weight", "position_embedding.weight"):
        name = f"cond_stage_model.transformer.text_model.embeddings.{key}"
        state[name] = state[name][:, :40].contiguous()
    save_file(state, tmp_path / "model.safetensors")
    assert "the width of its text encoder | received: 40" in refused(tmp_path / "model.safetensors")


def test_parts_and_prediction_types_that_a_family_does_not_have(saved: Saved) -> None:
    sd1, sd3 = saved("sd1")[1], saved("sd3")[1]
    parts = {"text_encoder_2": saved("sdxl")[1]}
    assert "--text-encoder-2: sd1 has no such part" in refused(sd1, parts=parts)
    assert "received: epsilon" in refused(sd3, prediction_type="epsilon")
    assert "received: velocity" in refused(sd1, prediction_type="velocity")


def test_a_path_without_a_file(tmp_path: Path) -> None:
    with pytest.raises(CheckpointError, match="no such"):
        read_checkpoint(tmp_path / "nothing.safetensors")
