"""optimum-onnx (``ORTDiffusionPipeline``) on its own export of a checkpoint, in fp32 on ONNX Runtime's CPU provider."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import diffusers
import onnxruntime
import optimum.onnxruntime  # type: ignore[import-not-found]
import torch
from optimum.version import __version__ as optimum_version  # type: ignore[import-not-found]

from ..workload import Start
from .diffusers_call import draw_with, torch_versions
from .drawer import Drawer
from .own_export import exported


def open_side(start: Start) -> Drawer:
    """Load what ``export`` has made, as its documentation says to."""
    torch.set_num_threads(start.threads)
    folder, prepared = exported(__name__, start)
    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = start.threads
    pipeline = _pipeline_class(start.source)
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


def export(checkpoint: str, folder: Path) -> None:
    """optimum's export."""
    _pipeline_class(checkpoint).from_pretrained(checkpoint, export=True).save_pretrained(folder)


def _pipeline_class(checkpoint: str) -> Any:
    """By name: ORTDiffusionPipeline cannot tell what a checkpoint in a local folder is for."""
    kind = diffusers.DiffusionPipeline.load_config(checkpoint)["_class_name"]
    return getattr(optimum.onnxruntime, f"ORT{kind}")
