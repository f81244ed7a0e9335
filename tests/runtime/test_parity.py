"""Pictures and latents equal diffusers' StableDiffusionXLPipeline in fp32."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import diffusers
import numpy as np
import pytest
import torch

from latentrt.runtime import Pipeline, load

LATENT_LIMIT = 1e-4  # max-abs, on latents of up to about 4
IMAGE_LIMIT = 1e-3  # max-abs, on images in 0..1

CASES: dict[str, dict[str, Any]] = {
    "square": {},
    "guidance 1": {"guidance_scale": 1.0},
    "guidance 0": {"guidance_scale": 0.0},
    "rescaled guidance": {"guidance_rescale": 0.7},
    "negative prompt": {"negative_prompt": "a red background"},
    "empty negative prompt": {"negative_prompt": ""},
    "empty prompt": {"prompt": ""},
    "two prompts": {"prompt": ["a fox", "an owl on a pink background"]},
    "two prompts, two negatives": {"prompt": ["a fox", "an owl"], "negative_prompt": ["blue", "a house"]},
    "two prompts, two images each": {"prompt": ["a fox", "an owl"], "num_images_per_prompt": 2},
    "size conditioning": {"original_size": (160, 192), "crops_coords_top_left": (16, 8), "target_size": (128, 96)},
    "negative size conditioning": {
        "negative_original_size": (64, 64), "negative_target_size": (128, 128),
        "negative_crops_coords_top_left": (4, 12),
    },
    "one step": {"num_inference_steps": 1},
}  # fmt: skip


@pytest.fixture(scope="module")
def references(emoji_checkpoint: Path, tiny_checkpoint: Path) -> dict[str, diffusers.StableDiffusionXLPipeline]:
    loaded = {}
    for name, path in (("emoji", emoji_checkpoint), ("tiny", tiny_checkpoint)):
        pipe = diffusers.StableDiffusionXLPipeline.from_pretrained(path, add_watermarker=False).to(torch.float32)
        pipe.set_progress_bar_config(disable=True)
        loaded[name] = pipe
    return loaded


@pytest.fixture(scope="module")
def pipelines(emoji_bundle: Path, tiny_bundle: Path) -> Iterator[dict[str, Pipeline]]:
    with load(emoji_bundle) as emoji, load(tiny_bundle) as tiny:
        yield {"emoji": emoji, "tiny": tiny}


def both(
    name: str, references: dict[str, Any], pipelines: dict[str, Pipeline], case: dict[str, Any], *, inject: bool
) -> tuple[np.ndarray, np.ndarray, np.ndarray, np.ndarray]:
    """Latents and images of diffusers and of ours for the same call."""
    call = {"prompt": "a rocket! on a blue background", "guidance_scale": 5.0, "num_inference_steps": 8, **case}
    images = (len(call["prompt"]) if isinstance(call["prompt"], list) else 1) * call.get("num_images_per_prompt", 1)
    reference, pipe = references[name], pipelines[name]
    noise = None
    if inject:
        space, defaults = pipe.bundle.manifest.latent_space, pipe.bundle.manifest.defaults
        height, width = call.get("height", defaults.height), call.get("width", defaults.width)
        shape = (images, space.channels, height // space.scale, width // space.scale)
        noise = np.random.default_rng(3).standard_normal(shape, dtype=np.float32)

    def theirs(output_type: str) -> np.ndarray:
        generators = [torch.Generator("cpu").manual_seed(9 + i) for i in range(images)]
        given = None if noise is None else torch.from_numpy(noise)
        result = reference(**call, generator=generators, latents=given, output_type=output_type).images
        return result.numpy() if isinstance(result, torch.Tensor) else result

    def ours(output_type: str) -> np.ndarray:
        return pipe(**call, seed=9, latents=noise, output_type=output_type).images

    return theirs("latent"), ours("latent"), theirs("np"), ours("np")


@pytest.mark.parametrize("inject", [True, False], ids=["injected latents", "seed"])
@pytest.mark.parametrize("case", CASES.values(), ids=CASES.keys())
@pytest.mark.parametrize("name", ["emoji", "tiny"])
def test_calls_equal_diffusers(
    name: str, case: dict[str, Any], inject: bool, references: dict[str, Any], pipelines: dict[str, Pipeline]
) -> None:
    latents, our_latents, image, our_image = both(name, references, pipelines, case, inject=inject)
    assert np.abs(our_latents - latents).max() <= LATENT_LIMIT
    assert np.abs(our_image - image).max() <= IMAGE_LIMIT


SIZES = {
    "emoji": [(128, 128), (160, 96), (96, 160), (192, 64), (64, 192)],
    "tiny": [(96, 96), (120, 72), (72, 120), (144, 64), (88, 104)],
}


@pytest.mark.parametrize("guidance_scale", [1.0, 5.0])
@pytest.mark.parametrize(("name", "size"), [(name, size) for name, sizes in SIZES.items() for size in sizes])
def test_every_aspect_ratio_equals_diffusers(
    name: str, size: tuple[int, int], guidance_scale: float, references: dict[str, Any], pipelines: dict[str, Pipeline]
) -> None:
    case = {"width": size[0], "height": size[1], "guidance_scale": guidance_scale}
    latents, our_latents, image, our_image = both(name, references, pipelines, case, inject=True)
    assert our_image.shape == (1, size[1], size[0], 3)
    assert np.abs(our_latents - latents).max() <= LATENT_LIMIT
    assert np.abs(our_image - image).max() <= IMAGE_LIMIT


SCHEDULERS = {
    "euler": (diffusers.EulerDiscreteScheduler, {}),
    "euler_a": (diffusers.EulerAncestralDiscreteScheduler, {}),
    "ddim": (diffusers.DDIMScheduler, {"clip_sample": False}),
    "dpmpp_2m": (diffusers.DPMSolverMultistepScheduler, {"algorithm_type": "dpmsolver++", "solver_order": 2}),
}


@pytest.mark.parametrize(
    ("sampler", "schedule"), [*((name, None) for name in SCHEDULERS), ("euler", "karras"), ("dpmpp_2m", "karras")]
)
def test_samplers_equal_diffusers_schedulers(
    sampler: str, schedule: str | None, references: dict[str, Any], pipelines: dict[str, Pipeline]
) -> None:
    kind, options = SCHEDULERS[sampler]
    reference, pipe = references["emoji"], pipelines["emoji"]
    karras = {"use_karras_sigmas": True} if schedule == "karras" else {}
    scheduler = kind.from_config(reference.scheduler.config, **options, **karras)
    changed = diffusers.StableDiffusionXLPipeline(
        **{**reference.components, "scheduler": scheduler}, add_watermarker=False
    )
    changed.set_progress_bar_config(disable=True)
    call: dict[str, Any] = {"prompt": "a fox", "num_inference_steps": 12, "guidance_scale": 5.0}
    expected = changed(**call, generator=torch.Generator("cpu").manual_seed(4), output_type="latent").images.numpy()
    received = pipe(**call, seed=4, sampler=sampler, schedule=schedule, output_type="latent").images
    assert np.abs(received - expected).max() <= LATENT_LIMIT


SAME_SEED_LIMIT = 1e-5


@pytest.mark.parametrize("sampler", ["euler", "euler_a"])
def test_a_seed_gives_the_same_image_alone_and_in_any_slot_of_any_batch(
    sampler: str, pipelines: dict[str, Pipeline]
) -> None:
    pipe = pipelines["emoji"]
    call: dict[str, Any] = {"num_inference_steps": 8, "sampler": sampler, "output_type": "np", "guidance_scale": 5.0}
    alone = pipe("a fox", seed=21, **call).images[0]
    in_batch = pipe("a fox", seed=19, num_images_per_prompt=4, **call)
    assert in_batch.seeds == (19, 20, 21, 22)
    assert np.abs(in_batch.images[2] - alone).max() <= SAME_SEED_LIMIT
    neighbours = pipe(["an owl", "a house", "a fox"], seed=[1, 2, 21], **call).images
    assert np.abs(neighbours[2] - alone).max() <= SAME_SEED_LIMIT
    more_than_the_profile = pipe("a fox", seed=list(range(10, 22)), num_images_per_prompt=12, **call).images
    assert np.abs(more_than_the_profile[11] - alone).max() <= SAME_SEED_LIMIT
