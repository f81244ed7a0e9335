"""A pipeline with diffusers' interface, timed stage by stage: diffusers itself, and what derives from it."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import torch

from ..workload import Ask, Workload
from .drawer import Drawn, initial_latents
from .stage_clock import StageClock


def draw_with(
    pipe: Any,
    channels: int,
    scale: int,
    before: Callable[[Workload], None] = lambda work: None,
    device: str = "cpu",
    dtype: torch.dtype = torch.float32,
) -> Callable[[Ask], Drawn]:
    """A side's ``draw``. Stage times are those of the pipeline's own calls of its parts.

    Args:
        pipe: a text-to-image pipeline.
        channels, scale: of its latents.
        before: made ready for a workload, inside the measured time: where shapes are fixed, a new one costs this much.
        device, dtype: what it computes on, and in.
    """
    pipe.set_progress_bar_config(disable=True)
    clock = StageClock(device)
    denoiser = denoiser_of(pipe)
    pipe.encode_prompt = clock.timed("text", pipe.encode_prompt)
    denoiser.forward = clock.timed("denoise", denoiser.forward)
    pipe.vae.decode = clock.timed("decode", pipe.vae.decode)
    processor = pipe.image_processor
    processor.postprocess = clock.on_host("postprocess", processor.postprocess)

    def draw(ask: Ask) -> Drawn:
        work = ask.workload
        clock.start()
        before(work)
        given = ask.give == "latents"
        latents = None
        if ask.noise == "numpy":
            latents = torch.from_numpy(initial_latents(ask, channels, scale)).to(device, dtype)
        images = pipe(
            work.prompt,
            width=work.width,
            height=work.height,
            num_inference_steps=work.num_inference_steps,
            guidance_scale=work.guidance_scale,
            num_images_per_prompt=work.images,
            generator=[torch.Generator("cpu").manual_seed(work.seed + i) for i in range(work.images)],
            latents=latents,
            output_type="latent" if given else "pil",
        ).images
        if given:
            array = np.asarray(images.float().cpu() if hasattr(images, "float") else images, np.float32)
            return Drawn(clock.seconds(), [], array, lambda folder: None)

        def save(folder: Path) -> None:
            for i, image in enumerate(images):
                image.save(folder / f"picture-{i}.png")

        return Drawn(clock.seconds(), list(images), None, save)

    return draw


def denoiser_of(pipe: Any) -> Any:
    """A pipeline's UNet or transformer."""
    return pipe.unet if getattr(pipe, "unet", None) is not None else pipe.transformer


def torch_versions(*more: Any) -> dict[str, str]:
    """Versions of what such pipelines run on."""
    import diffusers
    import transformers

    modules = (diffusers, torch, transformers, *more)
    return {module.__name__.partition(".")[0]: str(module.__version__) for module in modules}
