"""diffusers on a checkpoint in fp32: eager, or with the denoiser and the decoder compiled by ``torch.compile``."""

from __future__ import annotations

import os
from typing import Any

import diffusers
import torch

from ..workload import Start
from .diffusers_call import draw_with, torch_versions
from .drawer import Drawer


def open_side(start: Start) -> Drawer:
    """Load; with the option ``compile``, what is compiled is compiled by the first call of each shape."""
    torch.set_num_threads(start.threads)
    pipe: Any = diffusers.DiffusionPipeline.from_pretrained(start.source, torch_dtype=torch.float32)
    if getattr(pipe, "watermark", None) is not None:
        pipe.watermark = None  # LatentRT adds none
    settings = {
        "precision": "fp32",
        "threads": f"{torch.get_num_threads()} (torch.set_num_threads)",
        "attention": "scaled_dot_product_attention",
        "shapes": "dynamic",
    }
    networks = [name for name in ("unet", "transformer") if getattr(pipe, name, None) is not None]
    if "compile" in start.options:
        os.environ["TORCHINDUCTOR_CACHE_DIR"] = start.cache  # so that only the first run on a machine pays for it
        torch._dynamo.config.recompile_limit = 64  # one for every shape that a run asks for
        settings |= {
            "torch.compile": "denoiser and vae.decode, fullgraph, compiled code cached from an earlier run",
            "memory format": "channels last",
            "shapes": "fixed, compiled anew for another one",
        }
        for name in networks:
            network = getattr(pipe, name)
            network.to(memory_format=torch.channels_last)
            network.forward = torch.compile(network.forward, fullgraph=True, dynamic=False)
        pipe.vae.to(memory_format=torch.channels_last)
        pipe.vae.decode = torch.compile(pipe.vae.decode, fullgraph=True, dynamic=False)
    draw = draw_with(pipe, pipe.vae.config.latent_channels, pipe.vae_scale_factor)
    return Drawer(draw, torch_versions(), settings)
