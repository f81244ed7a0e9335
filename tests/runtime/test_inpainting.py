"""Masked runs equal diffusers' StableDiffusionXLInpaintPipeline in fp32, with a denoiser made for it and without."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import diffusers
import numpy as np
import pytest
import torch
from numpy.typing import NDArray
from PIL import Image

from latentrt.runtime import Pipeline, load

LATENT_LIMIT = 1e-4  # max-abs, on latents of up to about 4
IMAGE_LIMIT = 1e-3  # max-abs, on images in 0..1
SEED = 9


@pytest.fixture(scope="module")
def inpainting_checkpoint(once: Callable[[str, Callable[[Path], object]], Path], tiny_checkpoint: Path) -> Path:
    """The untrained SDXL with a UNet that takes a mask and a masked picture beside the latents."""

    def save(path: Path) -> None:
        pipe = diffusers.StableDiffusionXLPipeline.from_pretrained(tiny_checkpoint)
        torch.manual_seed(5)
        unet = diffusers.UNet2DConditionModel.from_config({**pipe.unet.config, "in_channels": 9})
        changed = {**pipe.components, "unet": unet}
        diffusers.StableDiffusionXLInpaintPipeline(**changed, add_watermarker=False).save_pretrained(path)

    return once("tiny-sdxl-inpainting", save)


@pytest.fixture(scope="module")
def inpainting_bundle(once: Callable[[str, Callable[[Path], object]], Path], inpainting_checkpoint: Path) -> Path:
    def build(path: Path) -> None:
        from latentrt.export.bundle_from_checkpoint import bundle_from_checkpoint

        bundle_from_checkpoint(inpainting_checkpoint, path)

    return once("tiny-sdxl-inpainting-bundle", build)


@pytest.fixture(scope="module")
def references(emoji_checkpoint: Path, inpainting_checkpoint: Path) -> dict[str, Any]:
    loaded = {}
    for name, path in (("plain", emoji_checkpoint), ("inpainting", inpainting_checkpoint)):
        pipe = diffusers.StableDiffusionXLInpaintPipeline.from_pretrained(path, add_watermarker=False)
        loaded[name] = pipe.to(torch.float32)
        loaded[name].set_progress_bar_config(disable=True)
    return loaded


@pytest.fixture(scope="module")
def pipelines(emoji_bundle: Path, inpainting_bundle: Path) -> Iterator[dict[str, Pipeline]]:
    with load(emoji_bundle) as plain, load(inpainting_bundle) as inpainting:
        yield {"plain": plain, "inpainting": inpainting}


def picture_and_mask(width: int, height: int) -> tuple[Image.Image, Image.Image]:
    """A gradient, and a soft-edged disk that is not aligned to latent pixels."""
    y, x = np.mgrid[0:height, 0:width]
    values = np.stack([x * 255 / width, y * 255 / height, np.full_like(x, 96)], axis=-1)
    distance = np.hypot(x - width / 2.3, y - height / 1.9)
    mask = np.clip((height / 3 - distance) * 16 + 128, 0, 255)
    return Image.fromarray(values.astype(np.uint8)), Image.fromarray(mask.astype(np.uint8))


def of_diffusers(pipe: Any, call: dict[str, Any], output_type: str) -> NDArray[np.float32]:
    generator = [torch.Generator("cpu").manual_seed(SEED)]
    return np.asarray(pipe(**call, generator=generator, output_type=output_type).images)


CASES: dict[str, dict[str, Any]] = {
    "all steps": {"strength": 1.0},
    "some steps": {"strength": 0.7},
    "guidance 1": {"strength": 0.7, "guidance_scale": 1.0},
    "noise in every step": {"strength": 0.7, "scheduler": "EulerAncestralDiscreteScheduler", "sampler": "euler_a"},
    "a state of unit variance": {"strength": 0.7, "scheduler": "DDIMScheduler", "sampler": "ddim"},
    "a multistep sampler": {"strength": 1.0, "scheduler": "DPMSolverMultistepScheduler", "sampler": "dpmpp_2m"},
}


@pytest.mark.parametrize("case", CASES.values(), ids=CASES.keys())
@pytest.mark.parametrize("name", ["plain", "inpainting"])
def test_calls_equal_diffusers(
    name: str, case: dict[str, Any], references: dict[str, Any], pipelines: dict[str, Pipeline]
) -> None:
    pipe, reference = pipelines[name], references[name]
    call = {"prompt": "a rocket! on blue", "num_inference_steps": 7, "guidance_scale": 5.0, **case}
    sampler, kind = call.pop("sampler", None), call.pop("scheduler", None)
    if kind is not None:
        scheduler = getattr(diffusers, kind).from_config(reference.scheduler.config, clip_sample=False)
        changed = {**reference.components, "scheduler": scheduler}
        reference = diffusers.StableDiffusionXLInpaintPipeline(
            **changed,
            add_watermarker=False,
            force_zeros_for_empty_prompt=reference.config.force_zeros_for_empty_prompt,
        )
        reference.set_progress_bar_config(disable=True)
    call["width"], call["height"] = pipe.bundle.manifest.buckets[1]
    call["image"], call["mask_image"] = picture_and_mask(call["width"], call["height"])
    limits = {"latent": LATENT_LIMIT, **({"np": IMAGE_LIMIT} if sampler is None else {})}
    for output_type, limit in limits.items():
        expected = of_diffusers(reference, call, output_type)
        received = pipe(**call, seed=SEED, sampler=sampler, output_type=output_type).images
        assert np.abs(received - expected).max() <= limit


def test_what_is_not_masked_stays(pipelines: dict[str, Pipeline]) -> None:
    latents = np.random.default_rng(0).standard_normal((1, 4, 16, 16), dtype=np.float32)
    mask = np.zeros((128, 128), np.float32)
    mask[:, 64:] = 1
    call: dict[str, Any] = {"num_inference_steps": 6, "output_type": "latent", "seed": SEED}
    for sampler in ("euler", "heun", "unipc", "dpmpp_2m"):
        images = pipelines["plain"]("a fox", image=latents, mask_image=mask, sampler=sampler, **call).images
        assert np.array_equal(images[..., :8], latents[..., :8])
        assert np.abs(images[..., 8:] - latents[..., 8:]).max() > 0.1


def test_masks_of_every_form_are_the_same_mask(pipelines: dict[str, Pipeline]) -> None:
    image, mask = picture_and_mask(128, 128)
    values = np.asarray(mask)
    pipe = pipelines["plain"]
    call: dict[str, Any] = {"num_inference_steps": 3, "output_type": "latent", "seed": SEED, "image": image}
    expected = pipe("a fox", mask_image=mask, **call).images
    floats = values.astype(np.float32) / 255
    for given in (values, floats, floats >= 0.5, mask.convert("RGB"), [mask], values[None]):
        assert np.array_equal(pipe("a fox", mask_image=given, **call).images, expected)


def test_a_mask_of_another_size_is_resized(pipelines: dict[str, Pipeline]) -> None:
    image, mask = picture_and_mask(128, 128)
    call: dict[str, Any] = {"num_inference_steps": 3, "output_type": "latent", "seed": SEED, "image": image}
    large = mask.resize((256, 256), Image.Resampling.NEAREST)
    expected = pipelines["plain"]("a fox", mask_image=large.resize((128, 128), Image.Resampling.LANCZOS), **call).images
    assert np.array_equal(pipelines["plain"]("a fox", mask_image=large, **call).images, expected)
