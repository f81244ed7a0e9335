"""The published networks in full size: their configs, and random weights that take no memory until they are read.

``python full_size.py FAMILY COMPONENT FOLDER`` exports one of them in fp16, and prints what that took.
"""

from __future__ import annotations

import functools
import json
import math
import resource
import shutil
import sys
import time
import zlib
from dataclasses import replace
from pathlib import Path
from typing import Any

import torch
from torch import nn

from latentrt.export.checkpoints.checkpoint import Checkpoint
from latentrt.export.checkpoints.families import FAMILIES
from latentrt.export.checkpoints.lazy_weights import LazyWeight, Weights
from latentrt.export.graphs.onnx_from_torch import onnx_from_component
from latentrt.export.graphs.weights import GRAPH_FOLDER, WeightStore
from latentrt.export.networks.autoencoders import vae_decoder
from latentrt.export.networks.components import SourceComponent, latent_stride
from latentrt.export.networks.denoisers import denoiser
from latentrt.export.store import BundleWriter

_CROSS_DOWN, _CROSS_UP = "CrossAttnDownBlock2D", "CrossAttnUpBlock2D"
_UNET: dict[str, Any] = {
    "_class_name": "UNet2DConditionModel", "in_channels": 4, "out_channels": 4, "layers_per_block": 2,
    "flip_sin_to_cos": True, "freq_shift": 0, "norm_num_groups": 32,
}  # fmt: skip
_MMDIT: dict[str, Any] = {
    "_class_name": "SD3Transformer2DModel", "sample_size": 128, "patch_size": 2, "in_channels": 16, "out_channels": 16,
    "attention_head_dim": 64, "joint_attention_dim": 4096, "pooled_projection_dim": 2048,
}  # fmt: skip
_VAE: dict[str, Any] = {
    "_class_name": "AutoencoderKL", "in_channels": 3, "out_channels": 3, "latent_channels": 4, "layers_per_block": 2,
    "block_out_channels": [128, 256, 512, 512], "norm_num_groups": 32, "scaling_factor": 0.18215,
    "down_block_types": ["DownEncoderBlock2D"] * 4, "up_block_types": ["UpDecoderBlock2D"] * 4,
}  # fmt: skip

#: Family -> its denoiser's config.
DENOISERS: dict[str, dict[str, Any]] = {
    "sd1": {
        **_UNET, "sample_size": 64, "cross_attention_dim": 768, "attention_head_dim": 8,
        "block_out_channels": [320, 640, 1280, 1280],
        "down_block_types": [*[_CROSS_DOWN] * 3, "DownBlock2D"], "up_block_types": ["UpBlock2D", *[_CROSS_UP] * 3],
    },
    "sd2": {
        **_UNET, "sample_size": 96, "cross_attention_dim": 1024, "attention_head_dim": [5, 10, 20, 20],
        "block_out_channels": [320, 640, 1280, 1280], "use_linear_projection": True, "upcast_attention": True,
        "down_block_types": [*[_CROSS_DOWN] * 3, "DownBlock2D"], "up_block_types": ["UpBlock2D", *[_CROSS_UP] * 3],
    },
    "sdxl": {
        **_UNET, "sample_size": 128, "cross_attention_dim": 2048, "attention_head_dim": [5, 10, 20],
        "block_out_channels": [320, 640, 1280], "transformer_layers_per_block": [1, 2, 10],
        "down_block_types": ["DownBlock2D", *[_CROSS_DOWN] * 2], "up_block_types": [*[_CROSS_UP] * 2, "UpBlock2D"],
        "use_linear_projection": True, "addition_embed_type": "text_time", "addition_time_embed_dim": 256,
        "projection_class_embeddings_input_dim": 2816,
    },
    "sdxl-refiner": {
        **_UNET, "sample_size": 128, "cross_attention_dim": 1280, "attention_head_dim": [6, 12, 24, 24],
        "block_out_channels": [384, 768, 1536, 1536], "transformer_layers_per_block": 4,
        "down_block_types": ["DownBlock2D", *[_CROSS_DOWN] * 2, "DownBlock2D"],
        "up_block_types": ["UpBlock2D", *[_CROSS_UP] * 2, "UpBlock2D"],
        "use_linear_projection": True, "addition_embed_type": "text_time", "addition_time_embed_dim": 256,
        "projection_class_embeddings_input_dim": 2560,
    },
    "sd3": {
        **_MMDIT, "num_layers": 24, "num_attention_heads": 24, "caption_projection_dim": 1536,
        "pos_embed_max_size": 192,
    },
}  # fmt: skip

#: Stable Diffusion 3.5 Large, of which only sizes are computed.
SD35_LARGE = {
    **_MMDIT, "num_layers": 38, "num_attention_heads": 38, "caption_projection_dim": 2432, "pos_embed_max_size": 192,
    "qk_norm": "rms_norm",
}  # fmt: skip

#: Family -> its autoencoder's config.
AUTOENCODERS: dict[str, dict[str, Any]] = {
    "sd1": _VAE,
    "sd2": _VAE,
    "sdxl": {**_VAE, "scaling_factor": 0.13025, "force_upcast": False},
    "sdxl-refiner": {**_VAE, "scaling_factor": 0.13025, "force_upcast": False},
    "sd3": {
        **_VAE, "latent_channels": 16, "scaling_factor": 1.5305, "shift_factor": 0.0609,
        "use_quant_conv": False, "use_post_quant_conv": False,
    },
}  # fmt: skip


def random_weight(name: str, shape: tuple[int, ...]) -> LazyWeight:
    """fp16 numbers of the size that keeps activations near one, other ones for each name."""
    return LazyWeight(shape, torch.float16, functools.partial(_random, name, shape))


def _random(name: str, shape: tuple[int, ...]) -> torch.Tensor:
    generator = torch.Generator().manual_seed(zlib.crc32(name.encode()))
    block, size = torch.randn(1 << 16, generator=generator), math.prod(shape)
    if len(shape) < 2:  # scales of normalizations, and biases
        values = block * 0.01 + (1 if name.endswith("weight") else 0)
    else:
        values = block * math.prod(shape[1:]) ** -0.5
    return values.half().repeat(-(-size // len(block)))[:size].reshape(shape)


def checkpoint(family: str) -> Checkpoint:
    """A checkpoint of a family that has no files: only its denoiser and its autoencoder exist."""
    record = next(record for record in FAMILIES if record.name == family)
    return Checkpoint(
        path=Path(family),
        name=family,
        family=record,
        model_index={},
        configs={record.denoiser_folder: DENOISERS[family], "vae": AUTOENCODERS[family]},
        weights={},
        tokenizers={},
    )


def component(family: str, name: str, precision: str) -> SourceComponent:
    """The denoiser or the decoder of a family, with random weights."""
    made = (denoiser if name == "denoiser" else vae_decoder)(checkpoint(family), precision)
    return replace(made, weights=lambda: random_weights(made.network()))


def random_weights(network: nn.Module) -> Weights:
    """Weights of a network as a checkpoint would give them."""
    return {name: random_weight(name, tuple(tensor.shape)) for name, tensor in network.named_parameters()}


def export(family: str, name: str, out: Path) -> dict[str, float]:
    """Write a component's fp16 graph and weights into a bundle under construction, and keep those; what that took."""
    stride, start = latent_stride(checkpoint(family)), time.perf_counter()
    with BundleWriter(out / "bundle") as writer:
        weights = WeightStore(writer)
        model = onnx_from_component(component(family, name, "fp16"), stride)
        traced = time.perf_counter()
        weights.externalize(model, name)
        writer.write(f"{GRAPH_FOLDER}/{name}.onnx", weights.graph_bytes(model, relative_to=GRAPH_FOLDER))
        written = time.perf_counter()
        shutil.move(writer.folder / GRAPH_FOLDER, out / GRAPH_FOLDER)
    return {
        "trace_s": traced - start,
        "write_s": written - traced,
        "cpu_s": time.process_time(),
        "bytes": sum(record.size for record in writer.files.values()),
        "peak_memory": resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024,
    }


if __name__ == "__main__":
    print(json.dumps(export(sys.argv[1], sys.argv[2], Path(sys.argv[3]))))
