"""Pictures show what the prompt says, as often as diffusers' pictures of the same checkpoint and seeds do."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import diffusers
import numpy as np
import pytest
import torch
from retrieval import measure
from vocabulary import COLORS, NAMES, prompt

from latentrt.runtime import Pipeline

STEPS = 20
GUIDANCE_SCALE = 5.0
BATCH = 8
ONE_POINT = 0.01

NAME_COLORS = [list(COLORS)[(7 * i) % len(COLORS)] for i in range(len(NAMES))]
PROMPTS = [prompt(name, color) for name, color in zip(NAMES, NAME_COLORS, strict=True)]


def ours(pipe: Pipeline) -> list[np.ndarray]:
    pictures = []
    for i in range(0, len(PROMPTS), BATCH):
        output = pipe(PROMPTS[i : i + BATCH], seed=i, num_inference_steps=STEPS, guidance_scale=GUIDANCE_SCALE)
        pictures += [np.asarray(image) for image in output.images]
    return pictures


def theirs(checkpoint: Path) -> list[np.ndarray]:
    pipe = diffusers.StableDiffusionXLPipeline.from_pretrained(checkpoint, add_watermarker=False).to(torch.float32)
    pipe.set_progress_bar_config(disable=True)
    pictures = []
    for i in range(0, len(PROMPTS), BATCH):
        prompts = PROMPTS[i : i + BATCH]
        generators = [torch.Generator("cpu").manual_seed(i + k) for k in range(len(prompts))]
        images = pipe(prompts, generator=generators, num_inference_steps=STEPS, guidance_scale=GUIDANCE_SCALE).images
        pictures += [np.asarray(image) for image in images]
    return pictures


def test_every_emoji_is_recognised_as_often_as_with_diffusers(emoji: Pipeline, emoji_checkpoint: Path) -> None:
    mine: dict[str, Any] = measure(ours(emoji), NAMES, NAME_COLORS)
    reference: dict[str, Any] = measure(theirs(emoji_checkpoint), NAMES, NAME_COLORS)
    assert mine["prompts"] == len(NAMES) == 226
    assert abs(mine["top1"] - reference["top1"]) <= ONE_POINT
    assert abs(mine["background_accuracy"] - reference["background_accuracy"]) <= ONE_POINT
    assert mine["top1"] > 0.9
    assert mine["background_accuracy"] > 0.98


@pytest.mark.parametrize(("width", "height"), [(128, 128), (160, 96), (96, 160)])
def test_a_few_emoji_at_every_trained_size(emoji: Pipeline, width: int, height: int) -> None:
    names = ["rocket", "fox", "pizza", "cactus", "penguin", "sunflower"]
    colors = ["blue", "green", "purple", "orange", "pink", "gray"]
    prompts = [prompt(name, color) for name, color in zip(names, colors, strict=True)]
    output = emoji(prompts, seed=1, width=width, height=height, num_inference_steps=STEPS)
    figures = measure([np.asarray(image) for image in output.images], names, colors)
    assert figures["top1"] == 1.0, figures["misses"]
    assert figures["background_accuracy"] == 1.0
