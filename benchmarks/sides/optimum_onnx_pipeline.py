"""optimum-onnx (``ORTDiffusionPipeline``) on its own export of a checkpoint, in fp32 on ONNX Runtime's CPU provider."""

from __future__ import annotations

import time
from pathlib import Path

import diffusers
import onnxruntime
import optimum.onnxruntime  # type: ignore[import-not-found]
import torch
from optimum.version import __version__ as optimum_version  # type: ignore[import-not-found]

from ..workload import Start
from .diffusers_call import draw_with, torch_versions
from .drawer import Drawer


def open_side(start: Start) -> Drawer:
    """Export once into the cache, then load from there as its documentation says to."""
    torch.set_num_threads(start.threads)
    folder = Path(start.cache)
    # The class by name: ORTDiffusionPipeline cannot tell what a checkpoint in a local folder is for.
    kind = diffusers.DiffusionPipeline.load_config(start.source)["_class_name"]
    pipeline = getattr(optimum.onnxruntime, f"ORT{kind}")
    begun = time.perf_counter()
    if not (folder / "model_index.json").exists():
        pipeline.from_pretrained(start.source, export=True).save_pretrained(folder)
    prepared = time.perf_counter() - begun
    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = start.threads
    pipe = pipeline.from_pretrained(folder, session_options=options, provider="CPUExecutionProvider")
    draw = draw_with(pipe, pipe.vae.config.latent_channels, pipe.vae_scale_factor)
    settings = {
        "precision": "fp32",
        "threads": f"{start.threads} (intra_op_num_threads)",
        "provider": "CPUExecutionProvider, graph optimisation at its default (all)",
        "shapes": "dynamic",
    }
    versions = torch_versions(onnxruntime) | {"optimum": optimum_version}
    return Drawer(draw, versions, settings, prepared_seconds=prepared)
