"""A pipeline with diffusers' interface, timed stage by stage: diffusers itself, and what derives from it."""

from __future__ import annotations

import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import torch

from ..workload import Ask, Workload
from .drawer import Drawn, initial_latents


def draw_with(
    pipe: Any, channels: int, scale: int, before: Callable[[Workload], None] = lambda work: None
) -> Callable[[Ask], Drawn]:
    """A side's ``draw``. Stage times are those of the pipeline's own calls of its parts.

    Args:
        pipe: a text-to-image pipeline.
        channels, scale: of its latents.
        before: made ready for a workload, inside the measured time: where shapes are fixed, a new one costs this much.
    """
    pipe.set_progress_bar_config(disable=True)
    stages: dict[str, float] = {}

    def timed(name: str, call: Callable[..., object]) -> Callable[..., object]:
        def run(*arguments: object, **options: object) -> object:
            start = time.perf_counter()
            try:
                return call(*arguments, **options)
            finally:
                stages[name] = stages.get(name, 0.0) + time.perf_counter() - start

        return run

    denoiser = pipe.unet if getattr(pipe, "unet", None) is not None else pipe.transformer
    pipe.encode_prompt = timed("text", pipe.encode_prompt)
    denoiser.forward = timed("denoise", denoiser.forward)
    pipe.vae.decode = timed("decode", pipe.vae.decode)
    processor = pipe.image_processor
    processor.postprocess = timed("postprocess", processor.postprocess)

    def draw(ask: Ask) -> Drawn:
        work = ask.workload
        stages.clear()
        before(work)
        given = ask.give == "latents"
        latents = torch.from_numpy(initial_latents(ask, channels, scale)) if ask.noise == "numpy" else None
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
            array = np.asarray(images.float() if hasattr(images, "float") else images, np.float32)
            return Drawn(dict(stages), [], array, lambda folder: None)

        def save(folder: Path) -> None:
            for i, image in enumerate(images):
                image.save(folder / f"picture-{i}.png")

        return Drawn(dict(stages), list(images), None, save)

    return draw


def torch_versions(*more: Any) -> dict[str, str]:
    """Versions of what such pipelines run on."""
    import diffusers
    import transformers

    modules = (diffusers, torch, transformers, *more)
    return {module.__name__.partition(".")[0]: str(module.__version__) for module in modules}
