"""Latents and pictures of every family equal those of diffusers' own pipeline, in fp32."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import diffusers
import numpy as np
import pytest
import torch

from latentrt.runtime import Pipeline, load

LATENT_LIMIT = 1e-4  # max-abs, on latents of up to about 4
IMAGE_LIMIT = 1e-3  # max-abs, on images in 0..1
STEPS = 5

FAMILIES = ("sd1", "sd1-lcm", "sd2", "sdxl-refiner", "sd3", "sd3-without-t5")

CASES: dict[str, dict[str, Any]] = {
    "guidance": {},
    "no guidance": {"guidance_scale": 1.0},
    "landscape": {"width": 40, "height": 16},
    "portrait, no guidance": {"width": 16, "height": 32, "guidance_scale": 1.0},
    "negative prompt": {"negative_prompt": "a red background"},
    "empty prompt": {"prompt": ""},
    "two prompts, two images each": {"prompt": ["a fox", "an owl!"], "num_images_per_prompt": 2},
}


@dataclass(frozen=True)
class Both:
    """One checkpoint in diffusers and its bundle in LatentRT."""

    reference: Any
    pipe: Pipeline


@pytest.fixture(scope="module", params=FAMILIES)
def both(
    request: pytest.FixtureRequest, family_checkpoint: Callable[[str], Path], family_bundle: Callable[[str], Path]
) -> Iterator[Both]:
    path = family_checkpoint(request.param)
    index = json.loads((path / "model_index.json").read_text())
    absent = {name: None for name, entry in index.items() if entry == [None, None]}  # diffusers wants to be told
    reference = diffusers.DiffusionPipeline.from_pretrained(path, **absent)
    reference.set_progress_bar_config(disable=True)
    with load(family_bundle(request.param)) as pipe:
        yield Both(reference, pipe)


@pytest.mark.parametrize("case", CASES.values(), ids=CASES.keys())
def test_calls_equal_diffusers(both: Both, case: dict[str, Any]) -> None:
    call = {"prompt": "a rocket on a blue background", "guidance_scale": 4.0, "width": 24, "height": 24, **case}
    call["num_inference_steps"] = STEPS
    images = (len(call["prompt"]) if isinstance(call["prompt"], list) else 1) * call.get("num_images_per_prompt", 1)
    space = both.pipe.bundle.manifest.latent_space
    shape = (images, space.channels, call["height"] // space.scale, call["width"] // space.scale)
    noise = np.random.default_rng(3).standard_normal(shape, dtype=np.float32)

    latents = both.pipe(**call, latents=noise, output_type="latent").images
    picture = both.pipe(**call, latents=noise, output_type="np").images
    assert picture.shape == (images, call["height"], call["width"], 3)
    assert np.abs(latents - theirs(both.reference, call, noise, "latent")).max() <= LATENT_LIMIT
    assert np.abs(picture - theirs(both.reference, call, noise, "np")).max() <= IMAGE_LIMIT


def theirs(reference: Any, call: dict[str, Any], noise: np.ndarray, output_type: str) -> np.ndarray:
    """diffusers' answer to the same call. The refiner's pipeline wants a picture, which a full run forgets."""
    latents = torch.from_numpy(noise)
    if isinstance(reference, diffusers.StableDiffusionXLImg2ImgPipeline):
        reference.scheduler.set_timesteps(STEPS)
        call = {name: value for name, value in call.items() if name not in ("width", "height")}
        call |= {"image": torch.zeros_like(latents), "strength": 1.0}
        latents = latents * reference.scheduler.init_noise_sigma
    result = reference(**call, latents=latents.clone(), output_type=output_type).images
    return result.numpy() if isinstance(result, torch.Tensor) else result
