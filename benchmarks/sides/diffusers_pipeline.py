"""diffusers on a checkpoint: eager, or with the denoiser and the decoder compiled by ``torch.compile``.

On a GPU the compiled one is the recipe of https://github.com/huggingface/diffusion-fast without its quantization: bf16,
channels last, the projections of attention as one product, ``max-autotune``.
"""

from __future__ import annotations

import os
from pathlib import Path
from typing import Any

import diffusers
import torch

from ..workload import Start
from .diffusers_call import denoiser_of, draw_with, torch_versions
from .drawer import Drawer

_DTYPES = {"fp32": torch.float32, "fp16": torch.float16, "bf16": torch.bfloat16}

#: The recipe's settings of inductor.
_INDUCTOR = {
    "conv_1x1_as_mm": True,
    "coordinate_descent_tuning": True,
    "coordinate_descent_check_all_directions": True,
    "epilogue_fusion": False,
}


def open_side(start: Start) -> Drawer:
    """Load; with the option ``compile``, what is compiled is compiled by the first call of each shape.

    Options: ``device``, and the ``precision`` of the eager pipeline.
    """
    torch.set_num_threads(start.threads)
    device, precision = start.options["device"], start.options["precision"]
    compiled, on_gpu = "compile" in start.options, start.options["device"] == "cuda"
    if compiled and on_gpu:
        precision = "bf16"
    index = diffusers.DiffusionPipeline.load_config(start.source)
    without = {name: None for name, kind in index.items() if kind == [None, None]}  # such as SD3's T5
    pipe: Any = diffusers.DiffusionPipeline.from_pretrained(start.source, torch_dtype=_DTYPES[precision], **without)
    pipe.to(device)
    if getattr(pipe, "watermark", None) is not None:
        pipe.watermark = None  # LatentRT adds none
    settings = {
        "device": torch.cuda.get_device_name() if on_gpu else "cpu",
        "precision": precision,
        "threads": f"{torch.get_num_threads()} (torch.set_num_threads)",
        "attention": "scaled_dot_product_attention",
        "shapes": "dynamic",
    }
    if compiled:
        settings |= _compile(pipe, start.cache, on_gpu)
    channels, scale = pipe.vae.config.latent_channels, pipe.vae_scale_factor
    draw = draw_with(pipe, channels, scale, device=device, dtype=_DTYPES[precision])
    return Drawer(draw, torch_versions(), settings)


def _compile(pipe: Any, cache: str, on_gpu: bool) -> dict[str, str]:
    """Compile a pipeline's denoiser and decoder, for every shape anew; what was done, for a report."""
    found = "as earlier runs left it" if compiled_before(Path(cache)) else "empty at first"
    os.environ["TORCHINDUCTOR_CACHE_DIR"] = cache  # so that only the first run on a machine pays for it
    torch._dynamo.config.recompile_limit = 64  # one for every shape that a run asks for
    options: dict[str, Any] = {"fullgraph": True, "dynamic": False}
    told = f"denoiser and vae.decode, fullgraph, inductor's cache {found}"
    settings = {"memory format": "channels last", "shapes": "fixed, compiled anew for another one"}
    denoiser = denoiser_of(pipe)
    if on_gpu:
        for name, value in _INDUCTOR.items():
            setattr(torch._inductor.config, name, value)
        denoiser.fuse_qkv_projections()
        pipe.vae.fuse_qkv_projections()
        options["mode"] = "max-autotune"
        told += ", max-autotune"
        settings |= {"inductor": ", ".join(f"{name}={value}" for name, value in _INDUCTOR.items()), "qkv": "fused"}
    denoiser.to(memory_format=torch.channels_last)
    denoiser.forward = torch.compile(denoiser.forward, **options)
    pipe.vae.to(memory_format=torch.channels_last)
    pipe.vae.decode = torch.compile(pipe.vae.decode, **options)
    return {"torch.compile": told, **settings}


def compiled_before(cache: Path) -> bool:
    """Whether a run before this one has left compiled code."""
    return cache.is_dir() and any(cache.iterdir())
