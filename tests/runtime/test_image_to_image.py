"""Runs that start from a picture equal diffusers' StableDiffusionXLImg2ImgPipeline in fp32."""

from __future__ import annotations

from collections.abc import Iterator
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

Case = tuple[Any, dict[str, Any]]


@pytest.fixture(scope="module")
def references(emoji_checkpoint: Path, tiny_checkpoint: Path) -> dict[str, diffusers.StableDiffusionXLImg2ImgPipeline]:
    loaded = {}
    for name, path in (("emoji", emoji_checkpoint), ("tiny", tiny_checkpoint)):
        pipe = diffusers.StableDiffusionXLImg2ImgPipeline.from_pretrained(path, add_watermarker=False)
        loaded[name] = pipe.to(torch.float32)
        loaded[name].set_progress_bar_config(disable=True)
    return loaded


@pytest.fixture(scope="module")
def pipelines(emoji_bundle: Path, tiny_bundle: Path) -> Iterator[dict[str, Pipeline]]:
    with load(emoji_bundle) as emoji, load(tiny_bundle) as tiny:
        yield {"emoji": emoji, "tiny": tiny}


def picture(width: int, height: int) -> Image.Image:
    """A smooth gradient under a disk: neither noise nor flat."""
    y, x = np.mgrid[0:height, 0:width]
    values = np.stack([x * 255 / width, y * 255 / height, np.full_like(x, 96)], axis=-1)
    values[np.hypot(x - width / 2, y - height / 3) < width / 4] = (240, 40, 60)
    return Image.fromarray(values.astype(np.uint8))


def generators(images: int = 1) -> list[torch.Generator]:
    return [torch.Generator("cpu").manual_seed(SEED + i) for i in range(images)]


def of_diffusers(pipe: Any, call: dict[str, Any], output_type: str, images: int = 1) -> NDArray[np.float32]:
    result = pipe(**call, generator=generators(images), output_type=output_type).images
    return np.asarray(result)


CASES: dict[str, dict[str, Any]] = {
    "the default strength": {},
    "half": {"strength": 0.5},
    "all steps": {"strength": 1.0},
    "guidance 1": {"strength": 0.6, "guidance_scale": 1.0},
    "two images of a picture": {"strength": 0.6, "num_images_per_prompt": 2},
    "two prompts for a picture": {"strength": 0.6, "prompt": ["a fox", "an owl"], "negative_prompt": ["red", "blue"]},
    "size conditioning": {"strength": 0.6, "original_size": (160, 192), "target_size": (128, 96)},
    "an end before the last step": {"strength": 0.8, "denoising_end": 0.7},
}


@pytest.mark.parametrize("case", CASES.values(), ids=CASES.keys())
@pytest.mark.parametrize("name", ["emoji", "tiny"])
def test_calls_equal_diffusers(
    name: str, case: dict[str, Any], references: dict[str, Any], pipelines: dict[str, Pipeline]
) -> None:
    defaults = pipelines[name].bundle.manifest.defaults
    call = {"prompt": "a rocket! on blue", "num_inference_steps": 8, "guidance_scale": 5.0, **case}
    call["image"] = picture(defaults.width, defaults.height)
    images = (len(call["prompt"]) if isinstance(call["prompt"], list) else 1) * call.get("num_images_per_prompt", 1)
    expected = of_diffusers(references[name], call, "latent", images)
    received = pipelines[name](**call, seed=SEED, output_type="latent").images
    assert received.shape == expected.shape
    assert np.abs(received - expected).max() <= LATENT_LIMIT


@pytest.mark.parametrize("steps", [8, 9])
@pytest.mark.parametrize("strength", [0.6, 1.0])
def test_what_differs_from_diffusers_is_rounding(
    steps: int, strength: float, references: dict[str, Any], pipelines: dict[str, Pipeline]
) -> None:
    """An untrained denoiser leaves the noise in the latents: after a whole run, which begins at 15 times the noise of
    unit variance, they are three times as large as after a part of it, and so is their rounding.
    """
    call: dict[str, Any] = {"prompt": "a fox", "num_inference_steps": steps, "guidance_scale": 5.0}
    call |= {"image": picture(96, 96), "strength": strength}
    expected = of_diffusers(references["tiny"], call, "latent")
    received = pipelines["tiny"](**call, seed=SEED, output_type="latent").images
    assert np.abs(received - expected).max() <= 3e-6 * np.abs(expected).max()


SCHEDULERS: dict[str, tuple[str, dict[str, Any]]] = {
    "euler": ("EulerDiscreteScheduler", {}),
    "euler_a": ("EulerAncestralDiscreteScheduler", {}),
    "heun": ("HeunDiscreteScheduler", {}),
    "dpm2": ("KDPM2DiscreteScheduler", {}),
    "ddim": ("DDIMScheduler", {"clip_sample": False}),
    "dpmpp_2m": ("DPMSolverMultistepScheduler", {"algorithm_type": "dpmsolver++", "solver_order": 2}),
    "dpmpp_2m_sde": ("DPMSolverMultistepScheduler", {"algorithm_type": "sde-dpmsolver++", "solver_order": 2}),
    "unipc": ("UniPCMultistepScheduler", {}),
}


@pytest.mark.filterwarnings("ignore:__array_wrap__ must accept context:DeprecationWarning")  # KDPM2's own numpy
@pytest.mark.parametrize(("strength", "steps"), [(0.45, 11), (1.0, 5)])
@pytest.mark.parametrize("sampler", SCHEDULERS)
def test_samplers_equal_diffusers(
    sampler: str, strength: float, steps: int, references: dict[str, Any], pipelines: dict[str, Pipeline]
) -> None:
    kind, options = SCHEDULERS[sampler]
    reference = references["emoji"]
    scheduler = getattr(diffusers, kind).from_config(reference.scheduler.config, **options)
    components = {**reference.components, "scheduler": scheduler}
    changed = diffusers.StableDiffusionXLImg2ImgPipeline(**components, add_watermarker=False)
    changed.set_progress_bar_config(disable=True)
    call: dict[str, Any] = {
        "prompt": "a fox", "image": picture(128, 128), "strength": strength,
        "num_inference_steps": steps, "guidance_scale": 5.0,
    }  # fmt: skip
    expected = of_diffusers(changed, call, "latent")
    received = pipelines["emoji"](**call, seed=SEED, sampler=sampler, output_type="latent").images
    assert np.abs(received - expected).max() <= LATENT_LIMIT


@pytest.mark.parametrize(("width", "height"), [(160, 96), (96, 160)])
def test_the_picture_decides_the_size(
    width: int, height: int, references: dict[str, Any], pipelines: dict[str, Pipeline]
) -> None:
    call: dict[str, Any] = {
        "prompt": "a fox", "image": picture(width, height), "strength": 0.5, "num_inference_steps": 8,
    }  # fmt: skip
    expected = of_diffusers(references["emoji"], call, "np")
    received = pipelines["emoji"](**call, seed=SEED, output_type="np").images
    assert received.shape == (1, height, width, 3)
    assert np.abs(received - expected).max() <= IMAGE_LIMIT


def test_a_picture_is_resized_to_the_size_that_is_asked_for(
    references: dict[str, Any], pipelines: dict[str, Pipeline]
) -> None:
    large = picture(300, 200)
    call: dict[str, Any] = {"prompt": "a fox", "strength": 0.5, "num_inference_steps": 6, "seed": SEED}
    resized = large.resize((160, 96), Image.Resampling.LANCZOS)
    pipe = pipelines["emoji"]
    expected = pipe(image=resized, **call, output_type="np").images
    for given in (large, np.asarray(large), [large], np.asarray(large)[None]):
        received = pipe(image=given, width=160, height=96, **call, output_type="np").images
        assert np.array_equal(received, expected)


def test_latents_start_a_run(references: dict[str, Any], pipelines: dict[str, Pipeline]) -> None:
    latents = np.random.default_rng(0).standard_normal((1, 4, 16, 16), dtype=np.float32)
    call: dict[str, Any] = {"prompt": "a fox", "strength": 0.6, "num_inference_steps": 8, "guidance_scale": 5.0}
    expected = of_diffusers(references["emoji"], {**call, "image": torch.from_numpy(latents)}, "latent")
    received = pipelines["emoji"](**call, image=latents, seed=SEED, output_type="latent").images
    assert np.abs(received - expected).max() <= LATENT_LIMIT


def test_a_run_in_two_parts_is_a_run(pipelines: dict[str, Pipeline]) -> None:
    call: dict[str, Any] = {"num_inference_steps": 10, "guidance_scale": 5.0, "seed": SEED, "output_type": "latent"}
    pipe = pipelines["emoji"]
    whole = pipe("a fox", sampler="euler", **call).images
    first = pipe("a fox", sampler="euler", denoising_end=0.6, **call)
    assert first.steps_done == 6
    second = pipe("a fox", sampler="euler", denoising_start=0.6, image=first.images, **call)
    assert second.steps_done == 4
    assert np.abs(second.images - whole).max() <= 1e-5


def test_one_picture_per_prompt_or_per_image(pipelines: dict[str, Pipeline]) -> None:
    pipe, pictures = pipelines["emoji"], [picture(128, 128), picture(128, 128).rotate(90)]
    call: dict[str, Any] = {"num_inference_steps": 4, "strength": 0.5, "output_type": "np", "guidance_scale": 5.0}
    alone = [
        pipe(prompt, image=image, seed=seed, **call).images[0]
        for prompt, image, seed in (("a fox", 0, 3), ("a fox", 0, 4), ("an owl", 1, 5), ("an owl", 1, 6))
        for image in [pictures[image]]
    ]
    together = pipe(["a fox", "an owl"], image=pictures, seed=3, num_images_per_prompt=2, **call).images
    each = [pictures[0], pictures[0], pictures[1], pictures[1]]
    one_by_one = pipe(["a fox", "an owl"], image=each, seed=3, num_images_per_prompt=2, **call).images
    assert np.abs(together - np.stack(alone)).max() <= 1e-5
    assert np.array_equal(one_by_one, together)


def test_latents_are_the_state_that_a_run_goes_on_from(
    references: dict[str, Any], pipelines: dict[str, Pipeline]
) -> None:
    """With diffusers they take the place of the picture, which its pipeline wants all the same."""
    state = np.random.default_rng(5).standard_normal((1, 4, 16, 16), dtype=np.float32) * 3
    call: dict[str, Any] = {"prompt": "a fox", "num_inference_steps": 8, "denoising_start": 0.5, "guidance_scale": 5.0}
    given = {**call, "image": picture(128, 128), "latents": torch.from_numpy(state)}
    expected = of_diffusers(references["emoji"], given, "latent")
    for name in ("latents", "image"):
        received = pipelines["emoji"](**call, **{name: state}, output_type="latent").images
        assert np.abs(received - expected).max() <= LATENT_LIMIT


def test_the_encoder_is_loaded_when_it_is_needed(emoji_bundle: Path) -> None:
    with load(emoji_bundle, verify=False) as pipe:
        pipe("a fox", num_inference_steps=1)
        assert pipe.engines.get("vae_encoder") is None
        pipe("a fox", image=picture(128, 128), num_inference_steps=4)
        assert pipe.engines.get("vae_encoder") is not None


def test_floats_and_bytes_are_the_same_picture(pipelines: dict[str, Pipeline]) -> None:
    image = picture(128, 128)
    floats = np.asarray(image, np.float32) / 255
    call: dict[str, Any] = {"num_inference_steps": 4, "strength": 0.5, "seed": SEED, "output_type": "latent"}
    received = [
        pipelines["emoji"]("a fox", image=given, **call).images for given in (image, floats, image.convert("RGBA"))
    ]
    assert np.array_equal(received[0], received[1])
    assert np.array_equal(received[0], received[2])
