"""Checkpoints in full size with random weights, made without a network: how fast a model is does not depend on what its
weights say, only on how many they are.
"""

from __future__ import annotations

import json
import math
import shutil
import string
import zlib
from collections.abc import Callable
from pathlib import Path
from typing import Any

import diffusers
import safetensors.torch
import torch
import transformers

from ..export.checkpoints.single_file.clip_tokenizer import ClipTokenizer
from ..export.networks.skeleton import skeleton
from .published import Published


def synthetic_checkpoint(model: Published, out: Path, progress: Callable[[str], None] = lambda text: None) -> None:
    """Write a checkpoint in diffusers' folder layout, in fp16; the same model gives the same files. One that is there
    is left as it is.

    Memory: that of the largest network in fp16.
    """
    if (out / "model_index.json").exists():
        return
    unfinished = out.with_name(f"{out.name}.new")
    shutil.rmtree(unfinished, ignore_errors=True)
    index = {**model.model_index(), "scheduler": ["diffusers", model.scheduler()["_class_name"]]}
    for folder in model.sizes:
        progress(f"{model.title}: {folder}")
        index[folder] = _write_network(model.config(folder), unfinished / folder)
    for folder, pad_token in model.tokenizers.items():
        tokenizer = ClipTokenizer(pad_token).load()
        tokenizer.model_max_length = model.config("text_encoder")["max_position_embeddings"]
        tokenizer.save_pretrained(unfinished / folder)
        index[folder] = ["transformers", "CLIPTokenizer"]
    if model.family == "sd1":
        index |= {"safety_checker": [None, None], "feature_extractor": [None, None], "requires_safety_checker": False}
    if model.family == "sd3":
        index["tokenizer_3"] = ["transformers", "T5TokenizerFast"] if "text_encoder_3" in index else [None, None]
        index.setdefault("text_encoder_3", [None, None])
        if "text_encoder_3" in model.sizes:
            _t5_tokenizer().save_pretrained(unfinished / "tokenizer_3")
    (unfinished / "scheduler").mkdir()
    _write_json(model.scheduler(), unfinished / "scheduler" / "scheduler_config.json")
    _write_json(index, unfinished / "model_index.json")
    unfinished.rename(out)


def _write_network(config: dict[str, Any], folder: Path) -> list[str]:
    """A network's config and weights; the library and the class that read them."""
    library: Any = transformers if "architectures" in config else diffusers
    name = config["architectures"][0] if library is transformers else config["_class_name"]
    network: Any = skeleton(getattr(library, name), config)
    folder.mkdir(parents=True)
    if library is transformers:
        network.config.architectures = [name]
        network.config.save_pretrained(folder)
    else:
        network.save_config(folder)
    once = {key for key, _ in (*network.named_parameters(), *network.named_buffers())}  # a tensor may have two names
    weights = {key: _weight(key, tensor) for key, tensor in network.state_dict().items() if key in once}
    file = "model.safetensors" if library is transformers else "diffusion_pytorch_model.safetensors"
    safetensors.torch.save_file(weights, folder / file, metadata={"format": "pt"})
    return [library.__name__, name]


def _weight(name: str, tensor: torch.Tensor) -> torch.Tensor:
    """Numbers of the size that keeps activations near one, others for each name. What a network computes when it is
    made, such as the places of patches, stays."""
    if not tensor.is_meta:
        return tensor.half().contiguous()
    values = torch.randn(tensor.shape, generator=torch.Generator().manual_seed(zlib.crc32(name.encode())))
    if tensor.ndim < 2:  # scales of normalizations, and biases
        return (0.01 * values + float(name.endswith("weight"))).half()
    return (values * math.prod(tensor.shape[1:]) ** -0.5).half()


def _t5_tokenizer() -> Any:
    """Letters in the order of T5's ids: how long T5 takes does not depend on which tokens it is given."""
    pieces: list[tuple[str, float]] = [("<pad>", 0.0), ("</s>", 0.0), ("<unk>", 0.0), ("▁", -2.0)]
    pieces += [(letter, -6.0 - i / 8) for i, letter in enumerate(string.ascii_lowercase + string.digits + ",.")]
    pieces += [(f"<extra_id_{i}>", 0.0) for i in reversed(range(100))]
    return transformers.T5TokenizerFast(vocab=pieces, model_max_length=512)


def _write_json(content: dict[str, Any], path: Path) -> None:
    path.write_text(json.dumps(content, indent=2) + "\n", encoding="utf-8")
