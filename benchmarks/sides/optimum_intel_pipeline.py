"""OpenVINO through optimum-intel (``OVDiffusionPipeline``) on its own export of a checkpoint, on the CPU.

Shapes are fixed to those of the workload, as Intel's guide for Stable Diffusion recommends; other ones are compiled
when they are first asked for.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

import diffusers
import openvino  # type: ignore[import-not-found]
import optimum.intel  # type: ignore[import-not-found]
import torch
from optimum.intel.version import __version__ as optimum_intel_version  # type: ignore[import-not-found]

from ..workload import Start, Workload
from .diffusers_call import denoiser_of, draw_with, torch_versions
from .drawer import Drawer
from .own_export import exported


def open_side(start: Start) -> Drawer:
    """Load what ``export`` has made, fix the shapes and compile.

    The option ``hint``: ``f32`` or ``bf16``, OpenVINO's INFERENCE_PRECISION_HINT.
    """
    torch.set_num_threads(start.threads)
    folder, prepared = exported(__name__, start)
    precision = start.options["hint"]
    hints = {
        "INFERENCE_PRECISION_HINT": precision,
        "INFERENCE_NUM_THREADS": str(start.threads),
        "PERFORMANCE_HINT": "LATENCY",
    }
    pipe = _pipeline_class(start.source).from_pretrained(folder, compile=False, ov_config=hints)
    denoiser = denoiser_of(pipe)
    shape: tuple[int, ...] | None = None

    def fix_shape(work: Workload) -> None:
        nonlocal shape
        wanted = (work.guidance_scale > 1, work.height, work.width, work.images)
        if wanted != shape:
            pipe.reshape(1, work.height, work.width, work.images)
            if work.guidance_scale <= 1:
                _reshape_without_guidance(denoiser.model, work.images)
            pipe.compile()
            shape = wanted

    fix_shape(start.workload)
    draw = draw_with(pipe, pipe.vae.config.latent_channels, pipe.vae_scale_factor, before=fix_shape)
    settings = {"precision": precision, "shapes": "fixed, compiled anew for another one", **hints}
    versions = torch_versions(openvino) | {"optimum-intel": optimum_intel_version}
    return Drawer(draw, versions, settings, prepared_seconds=prepared)


def export(checkpoint: str, folder: Path) -> None:
    """optimum's export, with weights as they are."""
    pipe = _pipeline_class(checkpoint).from_pretrained(checkpoint, export=True, compile=False, load_in_8bit=False)
    pipe.save_pretrained(folder)


def _pipeline_class(checkpoint: str) -> Any:
    """By name: OVDiffusionPipeline cannot tell what a checkpoint in a local folder is for."""
    kind = diffusers.DiffusionPipeline.load_config(checkpoint)["_class_name"]
    return getattr(optimum.intel, f"OV{kind}")


def _reshape_without_guidance(model: Any, images: int) -> None:
    """A row for each picture: ``reshape`` of the pipeline makes two, for guidance. (A batch that is left open computes
    one row no faster than two.)"""
    shapes = {tensor: tensor.get_partial_shape() for tensor in model.inputs}
    for shape in shapes.values():
        if len(shape) and shape[0] == 2 * images:
            shape[0] = images
    model.reshape(shapes)
