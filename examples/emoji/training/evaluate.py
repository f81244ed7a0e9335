"""Generate with a diffusers folder and measure: does the picture show the prompted emoji, on the prompted background?

    python examples/emoji/training/evaluate.py --model examples/emoji --metrics metrics.json --sheet contact_sheet.png

`retrieval.py` says how a picture is judged. To judge pictures that another program made, use score_pictures.py.
"""

from __future__ import annotations

import argparse
import json
import time
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from diffusers import AutoencoderKL, StableDiffusionXLPipeline

from contact_sheet import SHEET_PROMPTS, write_contact_sheet
from rendering import picture
from retrieval import measure
from tensors import tensor_from_images
from vocabulary import COLORS, NAMES, prompt

BATCH = 32


@dataclass(frozen=True)
class Sampling:
    """How every picture is generated."""

    steps: int
    guidance_scale: float
    seed: int  # of the first picture; the next ones count on


def generate(
    pipeline: StableDiffusionXLPipeline, prompts: Sequence[str], height: int, width: int, sampling: Sampling
) -> list[np.ndarray]:
    """One uint8 [height, width, 3] picture for each prompt."""
    batches = []
    for start in range(0, len(prompts), BATCH):
        part = list(prompts[start : start + BATCH])
        seeds = range(sampling.seed + start, sampling.seed + start + len(part))
        result = pipeline(
            prompt=part,
            height=height,
            width=width,
            num_inference_steps=sampling.steps,
            guidance_scale=sampling.guidance_scale,
            generator=[torch.Generator("cpu").manual_seed(seed) for seed in seeds],
            output_type="np",
        )
        batches.append(result.images)  # float32 [rows, height, width, 3]
    return list((np.concatenate(batches) * 255 + 0.5).astype(np.uint8))


@torch.no_grad()
def autoencoder_psnr(vae: AutoencoderKL, names: Sequence[str], colors: Sequence[str]) -> float:
    """Mean peak signal-to-noise ratio (dB) of the autoencoder on clean 128x128 pictures."""
    pictures = [picture(name, color, 128, 128) for name, color in zip(names, colors, strict=True)]
    values: list[float] = []
    for start in range(0, len(pictures), BATCH):
        x = tensor_from_images(pictures[start : start + BATCH])
        y = vae.decode(vae.encode(x).latent_dist.mean).sample.clamp(-1, 1)
        values += (-10 * torch.log10(((y - x) / 2).square().mean((1, 2, 3)))).tolist()
    return round(float(np.mean(values)), 2)


def evaluate(
    pipeline: StableDiffusionXLPipeline, names: Sequence[str], sampling: Sampling, quick: bool
) -> dict[str, Any]:
    """The content of metrics.json; `quick` leaves out the prompts with a background colour."""
    palette = list(COLORS)
    colors = [palette[(7 * i) % len(palette)] for i in range(len(names))]  # 7: neighbours differ, all colours occur
    metrics: dict[str, Any] = {
        "settings": {
            "scheduler": type(pipeline.scheduler).__name__,
            "steps": sampling.steps,
            "guidance_scale": sampling.guidance_scale,
            "seed": sampling.seed,
            "random_retrieval_top1": round(1 / len(NAMES), 4),
        },
        "autoencoder_psnr_db": autoencoder_psnr(pipeline.vae, names, colors),
    }
    start = time.perf_counter()
    images = generate(pipeline, [prompt(name) for name in names], 128, 128, sampling)
    seconds = (time.perf_counter() - start) / len(names)
    metrics["settings"]["seconds_per_128x128_image_in_a_batch"] = round(seconds, 3)
    metrics["plain_128x128"] = measure(images, names)
    print(json.dumps(metrics), flush=True)
    if quick:
        return metrics
    prompts = [prompt(name, color) for name, color in zip(names, colors, strict=True)]
    for height, width in ((128, 128), (160, 96), (96, 160)):
        key = f"colour_{height}x{width}"
        metrics[key] = measure(generate(pipeline, prompts, height, width, sampling), names, colors)
        print(key, json.dumps(metrics[key]), flush=True)
    return metrics


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--model", type=Path, default=Path(__file__).resolve().parent.parent, help="diffusers folder")
    parser.add_argument("--metrics", type=Path, default=Path("metrics.json"), help="where to write the numbers")
    parser.add_argument("--sheet", type=Path, help="also write a contact sheet of 36 prompts")
    parser.add_argument("--steps", type=int, default=25)
    parser.add_argument("--guidance", type=float, default=5.0)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--limit", type=int, default=0, help="only the first N names (0: all)")
    parser.add_argument("--quick", action="store_true", help="only the prompts without a background colour")
    parser.add_argument("--sheet-only", action="store_true", help="no metrics")
    options = parser.parse_args()
    if options.sheet_only and options.sheet is None:
        parser.error("--sheet-only needs --sheet")

    pipeline = StableDiffusionXLPipeline.from_pretrained(options.model, add_watermarker=False)
    pipeline.set_progress_bar_config(disable=True)
    sampling = Sampling(options.steps, options.guidance, options.seed)
    if options.sheet:
        write_contact_sheet(generate(pipeline, SHEET_PROMPTS, 128, 128, sampling), SHEET_PROMPTS, 6, options.sheet)
    if not options.sheet_only:
        metrics = evaluate(pipeline, NAMES[: options.limit or None], sampling, options.quick)
        options.metrics.write_text(json.dumps(metrics, indent=2) + "\n", encoding="utf-8")


if __name__ == "__main__":
    main()
