"""A checkpoint folder is checked before anything heavy happens, and its weights are told apart by their bytes."""

from __future__ import annotations

import json
import pickle
import shutil
import struct
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from safetensors.numpy import save_file

from latentrt.export.checkpoints.checkpoint import read_checkpoint
from latentrt.runtime.errors import CheckpointError

NETWORKS = ("text_encoder", "text_encoder_2", "unet", "vae")


def write_json(path: Path, content: object) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(json.dumps(content))


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """What of an SDXL checkpoint is looked at before torch is imported."""
    root = tmp_path / "sdxl"
    listed = {name: ["library", "Class"] for name in (*NETWORKS, "tokenizer", "tokenizer_2", "scheduler")}
    write_json(root / "model_index.json", {"_class_name": "StableDiffusionXLPipeline", **listed})
    write_json(root / "scheduler" / "scheduler_config.json", {"_class_name": "EulerDiscreteScheduler"})
    for name in ("tokenizer", "tokenizer_2"):
        write_json(root / name / "tokenizer.json", {})
    for name in NETWORKS:
        config = {"_class_name": "UNet2DConditionModel", "in_channels": 4, "addition_embed_type": "text_time"}
        write_json(root / name / "config.json", config)
        file = "model" if name.startswith("text") else "diffusion_pytorch_model"
        save_file({"weight": np.arange(8, dtype=np.float32)}, root / name / f"{file}.safetensors")
    return root


def refused(path: Path) -> str:
    with pytest.raises(CheckpointError) as error:
        read_checkpoint(path)
    assert error.value.exit_code == 2
    return str(error.value)


def test_a_complete_folder_is_read(folder: Path) -> None:
    checkpoint = read_checkpoint(folder)
    assert (checkpoint.name, checkpoint.family.name) == ("sdxl", "sdxl")
    assert checkpoint.weights["vae"] == (folder / "vae" / "diffusion_pytorch_model.safetensors",)
    assert checkpoint.scheduler_config["_class_name"] == "EulerDiscreteScheduler"


def test_the_shipped_checkpoint_is_read(emoji_checkpoint: Path) -> None:
    assert read_checkpoint(emoji_checkpoint).family.name == "sdxl"


def test_a_path_that_is_no_checkpoint(folder: Path, tmp_path: Path) -> None:
    assert "no such file or folder" in refused(tmp_path / "nothing")
    (folder / "model_index.json").unlink()
    assert "no model_index.json" in refused(folder)


@pytest.mark.parametrize(
    ("file", "content", "expected"),
    [
        ("config.json", {"_class_name": "AutoencoderKL"}, "received: an autoencoder alone"),
        ("config.json", {"_class_name": "AutoencoderTiny"}, "give it as --tiny-vae"),
        ("config.json", {"_class_name": "ControlNetModel"}, "received: a ControlNet alone"),
        ("config.json", {"_class_name": "UNet2DConditionModel"}, "give the folder around it"),
        ("config.json", {"_class_name": "CLIPTextModel"}, "no model_index.json"),
        ("adapter_config.json", {"peft_type": "LORA"}, "received: a LoRA alone"),
        ("pytorch_lora_weights.safetensors", {}, "received: a LoRA alone"),
    ],
)
def test_a_folder_that_holds_a_part_of_a_checkpoint(
    tmp_path: Path, file: str, content: dict[str, str], expected: str
) -> None:
    write_json(tmp_path / file, content)
    assert expected in refused(tmp_path)


@pytest.mark.parametrize(
    ("change", "expected"),
    [
        ({"_class_name": "FluxPipeline"}, "received: FluxPipeline | expected: sd1 (StableDiffusionPipeline with"),
        ({"text_encoder_2": [None, None]}, "received: StableDiffusionXLPipeline with text_encoder | expected: sdxl"),
        ({"_class_name": "StableDiffusionPipeline"}, "received: StableDiffusionPipeline with text_encoder, text_enc"),
    ],
)
def test_an_unknown_family_says_what_is_known(folder: Path, change: dict[str, Any], expected: str) -> None:
    index = json.loads((folder / "model_index.json").read_text())
    write_json(folder / "model_index.json", {**index, **change})
    assert expected in refused(folder)


@pytest.mark.parametrize("absent", [None, [None, None]])
def test_without_its_first_text_encoder_it_is_the_refiner(folder: Path, absent: object) -> None:
    index = json.loads((folder / "model_index.json").read_text())
    write_json(folder / "model_index.json", {**index, "text_encoder": absent})
    assert read_checkpoint(folder).family.name == "sdxl-refiner"


def test_a_denoiser_of_another_family(folder: Path) -> None:
    write_json(folder / "unet" / "config.json", {"_class_name": "UNet2DConditionModel"})
    assert "received: addition_embed_type=None | expected: sdxl (addition_embed_type='text_time')" in refused(folder)


@pytest.mark.parametrize("method", [{"quant_method": "bitsandbytes", "load_in_8bit": True}, "gguf"])
def test_quantized_weights(folder: Path, method: object) -> None:
    config = json.loads((folder / "unet" / "config.json").read_text())
    write_json(folder / "unet" / "config.json", {**config, "quantization_config": method})
    message = refused(folder)
    assert "quantized weights cannot be exported" in message
    assert "bitsandbytes" in message or "gguf" in message


def test_another_denoiser_class(folder: Path) -> None:
    config = {"_class_name": "UNet3DConditionModel", "addition_embed_type": "text_time"}
    write_json(folder / "unet" / "config.json", config)
    assert "UNet3DConditionModel" in refused(folder)


def test_a_missing_config(folder: Path) -> None:
    (folder / "vae" / "config.json").unlink()
    assert f"{folder / 'vae' / 'config.json'}: missing" in refused(folder)


def test_a_missing_tokenizer_is_not_looked_for_elsewhere(folder: Path) -> None:
    shutil.rmtree(folder / "tokenizer_2")
    assert f"{folder / 'tokenizer_2'}: missing" in refused(folder)


@pytest.mark.parametrize("content", ["{not json", "[1, 2]", "\udcff"])
def test_a_config_that_is_not_a_json_object(folder: Path, content: str) -> None:
    (folder / "unet" / "config.json").write_bytes(content.encode(errors="surrogateescape"))
    assert str(folder / "unet" / "config.json") in refused(folder)


def test_a_config_without_a_needed_number(folder: Path) -> None:
    checkpoint = read_checkpoint(folder)
    assert checkpoint.number("unet", "in_channels") == 4
    with pytest.raises(CheckpointError, match=r"config\.json: out_channels \| received: None"):
        checkpoint.number("unet", "out_channels")
    with pytest.raises(CheckpointError, match="block_out_channels"):
        checkpoint.levels("unet")


class _Bomb:
    def __init__(self, target: Path):
        self.target = target

    def __reduce__(self) -> tuple[Any, ...]:
        return Path.touch, (self.target,)


def test_pickled_weights_are_never_read(folder: Path, tmp_path: Path) -> None:
    (folder / "unet" / "diffusion_pytorch_model.safetensors").unlink()
    (folder / "unet" / "diffusion_pytorch_model.bin").write_bytes(pickle.dumps(_Bomb(tmp_path / "exploded")))
    message = refused(folder)
    assert "pickled weights are never read" in message
    assert "diffusion_pytorch_model.bin" in message
    assert not (tmp_path / "exploded").exists()


def test_no_weights_and_only_a_variant(folder: Path) -> None:
    weights = folder / "vae" / "diffusion_pytorch_model.safetensors"
    weights.rename(weights.with_name("diffusion_pytorch_model.fp16.safetensors"))
    assert "received: diffusion_pytorch_model.fp16.safetensors" in refused(folder)
    weights.with_name("diffusion_pytorch_model.fp16.safetensors").unlink()
    assert f"{folder / 'vae'}: no weights" in refused(folder)


def _header(content: object) -> bytes:
    text = json.dumps(content).encode()
    return struct.pack("<Q", len(text)) + text


@pytest.mark.parametrize(
    "damage",
    [
        lambda data: b"",
        lambda data: data[:5],
        lambda data: data[:-1],
        lambda data: data + b"\0",
        lambda data: struct.pack("<Q", 1 << 60) + data[8:],
        lambda data: data[:8] + b"\xff" * 20 + data[28:],
        lambda data: _header([]),
        lambda data: _header({}),
        lambda data: _header({"weight": {"dtype": "F32"}}),
        lambda data: _header({"weight": {"data_offsets": ["a", "b"]}}),
    ],
    ids=["empty", "short", "cut", "longer", "huge header", "not JSON", "a list", "no tensors", "no offsets", "text"],
)
def test_a_damaged_weight_file(folder: Path, damage: Any) -> None:
    path = folder / "unet" / "diffusion_pytorch_model.safetensors"
    path.write_bytes(damage(path.read_bytes()))
    message = refused(folder)
    assert f"{path}: damaged" in message
    assert message.count("received") == 1


@pytest.mark.parametrize("content", [b"", b"# A project\n\nWhat it is for.", b"\x10\0\0\0\0\0\0\0not a JSON text!"])
def test_a_file_that_is_no_safetensors_file(tmp_path: Path, content: bytes) -> None:
    (tmp_path / "README.md").write_bytes(content)
    message = refused(tmp_path / "README.md")
    assert f"{tmp_path / 'README.md'}: not a safetensors file | received" in message
    assert message.count("received") == 1


def test_the_index_of_a_folder_in_its_place(folder: Path) -> None:
    assert refused(folder / "model_index.json").endswith(f"give its folder: {folder}")


def shard(folder: Path) -> Path:
    """Split the UNet's weights in two files with an index."""
    (folder / "unet" / "diffusion_pytorch_model.safetensors").unlink()
    names = [f"diffusion_pytorch_model-0000{number}-of-00002.safetensors" for number in (1, 2)]
    for number, name in enumerate(names):
        save_file({f"weight{number}": np.zeros(4, np.float32)}, folder / "unet" / name)
    index = folder / "unet" / "diffusion_pytorch_model.safetensors.index.json"
    write_json(index, {"weight_map": {f"weight{number}": name for number, name in enumerate(names)}})
    return index


def test_shards(folder: Path) -> None:
    index = shard(folder)
    files = read_checkpoint(folder).weights["unet"]
    assert [file.name[-13:] for file in files] == ["2.safetensors"] * 2
    files[1].unlink()
    assert f"{files[1]}: cannot be read" in refused(folder)
    write_json(index, {"weight_map": ["nonsense"]})
    assert "weight_map" in refused(folder)


def test_the_digest_is_of_weights_and_config_of_one_folder(folder: Path, tmp_path: Path) -> None:
    def digests(path: Path) -> dict[str, str]:
        checkpoint = read_checkpoint(path)
        return {name: checkpoint.digest(name) for name in NETWORKS}

    before = digests(folder)
    assert digests(shutil.copytree(folder, tmp_path / "copy")) == before
    path = folder / "unet" / "diffusion_pytorch_model.safetensors"
    data = bytearray(path.read_bytes())
    data[-1] ^= 1
    path.write_bytes(data)
    write_json(folder / "text_encoder" / "config.json", {"in_channels": 5})
    after = digests(folder)
    assert [name for name in NETWORKS if before[name] != after[name]] == ["text_encoder", "unet"]
