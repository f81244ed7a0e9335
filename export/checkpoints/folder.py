"""A checkpoint in diffusers' folder layout: ``model_index.json`` and a folder for each component."""

from __future__ import annotations

import json
import os
from pathlib import Path
from typing import Any

from ...runtime.errors import CheckpointError
from .layout import Layout, StoredWeights
from .safetensors_header import read_header
from .single_file.clip_tokenizer import ClipTokenizer
from .single_file.refusals import PICKLES

_STEMS = ("diffusion_pytorch_model", "model")  # what diffusers and transformers name their weights
_NETWORKS = ("text_encoder", "text_encoder_2", "text_encoder_3", "unet", "transformer", "vae")
_TOKENIZERS = ("tokenizer", "tokenizer_2", "tokenizer_3")


def read_folder(root: Path) -> Layout:
    """Read the configs of the networks that ``model_index.json`` lists, and check their weights.

    Raises:
        CheckpointError: no checkpoint there; something is missing, damaged, pickled or quantized.
    """
    if not os.path.isfile(root / "model_index.json"):  # noqa: PTH113 - unlike Path.is_file, False without permission
        raise _no_checkpoint(root)
    index = _json(root / "model_index.json")
    networks = [name for name in _NETWORKS if _is_listed(index, name)]
    configs = {folder: network_config(root / folder) for folder in networks}
    configs["scheduler"] = _json(root / "scheduler" / "scheduler_config.json")
    weights: dict[str, StoredWeights] = {folder: weight_files(root / folder) for folder in networks}
    tokenizers: dict[str, Path | ClipTokenizer] = {
        folder: root / folder for folder in _TOKENIZERS if _is_listed(index, folder)
    }
    return Layout(index, configs, weights, tokenizers)


def _is_listed(index: dict[str, Any], name: str) -> bool:
    entry = index.get(name)
    return isinstance(entry, list) and len(entry) == 2 and entry[1] is not None


def check_folder(folder: Path) -> None:
    """Raise CheckpointError for a folder that is not there: transformers would ask its hub for it."""
    if not folder.is_dir():
        raise CheckpointError(f"{folder}: missing", expected="a complete diffusers folder")


def network_config(folder: Path) -> dict[str, Any]:
    path = folder / "config.json"
    config = _json(path)
    if config.get("quantization_config") is not None:
        method = config["quantization_config"]
        method = method.get("quant_method") if isinstance(method, dict) else method
        raise CheckpointError(
            f"{path}: quantized weights cannot be exported",
            received=method,
            expected="weights in fp32, fp16 or bf16",
            remedy="use the checkpoint that it was quantized from",
        )
    return config


#: What a folder with a config of this ``_class_name``, or with this file, is, and what is to be done with it.
_PARTS = {
    "AutoencoderKL": ("an autoencoder", "give it as --vae, with the checkpoint that it belongs to"),
    "AutoencoderTiny": ("a tiny autoencoder", "give it as --tiny-vae, with the checkpoint that it belongs to"),
    "ControlNetModel": ("a ControlNet", "give the checkpoint that it controls"),
    "SD3ControlNetModel": ("a ControlNet", "give the checkpoint that it controls"),
    "UNet2DConditionModel": ("a UNet", "give the folder around it, with model_index.json"),
    "SD3Transformer2DModel": ("a transformer", "give the folder around it, with model_index.json"),
    "adapter_config.json": ("a LoRA", "give the checkpoint that it adapts, with the LoRA fused into it"),
    "pytorch_lora_weights.safetensors": ("a LoRA", "give the checkpoint that it adapts, with the LoRA fused into it"),
}


def _no_checkpoint(root: Path) -> CheckpointError:
    subject, expected = f"{root}: no checkpoint here", "a diffusers folder, a safetensors file, or a bundle"
    if not os.path.exists(root):  # noqa: PTH110
        return CheckpointError(subject, received="no such file or folder", expected=expected)
    signs = {name for name in _PARTS if (root / name).is_file()}
    if (root / "config.json").is_file():
        signs.add(str(_json(root / "config.json").get("_class_name")))
    for sign, (what, remedy) in _PARTS.items():
        if sign in signs:
            return CheckpointError(subject, received=f"{what} alone", expected=expected, remedy=remedy)
    return CheckpointError(subject, received="no model_index.json", expected=expected)


def _json(path: Path) -> dict[str, Any]:
    try:
        content = json.loads(path.read_text(encoding="utf-8"))
    except FileNotFoundError:
        raise CheckpointError(f"{path}: missing", expected="a complete diffusers folder") from None
    except (OSError, ValueError) as error:
        raise CheckpointError(f"{path}: cannot be read", received=str(error), expected="JSON") from None
    if not isinstance(content, dict):
        raise CheckpointError(f"{path}", received=type(content).__name__, expected="a JSON object")
    return content


def weight_files(folder: Path) -> tuple[Path, ...]:
    """The safetensors files of a component: one file, or the shards that an index names. Variants are not mixed in."""
    names = {f"{stem}.safetensors" for stem in _STEMS if (folder / f"{stem}.safetensors").is_file()}
    for stem in _STEMS:
        index = folder / f"{stem}.safetensors.index.json"
        if index.is_file():
            names |= _shards(index)
    if not names:
        raise _no_weights(folder)
    files = tuple(folder / name for name in sorted(names))
    for file in files:
        read_header(file)
    return files


def _shards(index: Path) -> set[str]:
    shards = _json(index).get("weight_map")
    if not isinstance(shards, dict) or not shards or not all(isinstance(name, str) for name in shards.values()):
        raise CheckpointError(f"{index}: weight_map", received=shards, expected="the file of every tensor")
    return set(shards.values())


def _no_weights(folder: Path) -> CheckpointError:
    pickles = sorted(entry.name for entry in folder.glob("*") if entry.suffix in PICKLES)
    variants = sorted(entry.name for entry in folder.glob("*.safetensors"))
    expected = " or ".join(f"{stem}.safetensors" for stem in _STEMS)
    if variants:
        remedy = "rename the variant to use"
        return CheckpointError(f"{folder}: no weights", received=", ".join(variants), expected=expected, remedy=remedy)
    if pickles:
        return CheckpointError(
            f"{folder}: pickled weights are never read, because loading them can run any code",
            received=", ".join(pickles),
            expected=expected,
            remedy="convert them on a machine you can afford to lose: "
            "pipe = DiffusionPipeline.from_pretrained(OLD); pipe.save_pretrained(NEW, safe_serialization=True)",
        )
    return CheckpointError(f"{folder}: no weights", expected=expected)
