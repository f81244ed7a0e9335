"""What each family does with a picture equals diffusers' pipelines for it in fp32."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import diffusers
import numpy as np
import pytest
import torch
from numpy.typing import NDArray
from PIL import Image

from latentrt.runtime import load
from latentrt.runtime.errors import RequestError
from latentrt.runtime.images.pictures import bicubic
from latentrt.runtime.loop.tables import table_of
from latentrt.runtime.samplers import build_table, model_schedule_from_config

LATENT_LIMIT = 1e-4  # max-abs, on latents of up to about 4
IMAGE_LIMIT = 1e-3  # max-abs, on images in 0..1
SEED = 9
WIDTH, HEIGHT = 40, 16

Named = Callable[[str], Path]


def picture() -> Image.Image:
    y, x = np.mgrid[0:HEIGHT, 0:WIDTH]
    values = np.stack([x * 255 / WIDTH, y * 255 / HEIGHT, (x * y) % 256], axis=-1)
    return Image.fromarray(values.astype(np.uint8))


def mask() -> Image.Image:
    y, x = np.mgrid[0:HEIGHT, 0:WIDTH]
    return Image.fromarray(((np.hypot(x - 17, y - 7) < 6) * 255).astype(np.uint8))


def depth() -> NDArray[np.float32]:
    """``[H, W]``, larger than the latents and of another range than the denoiser's."""
    y, x = np.mgrid[0:31, 0:53]
    return (10 + np.sin(x / 7) * 4 + y / 9).astype(np.float32)


#: Checkpoint, diffusers' pipeline, arguments of both, arguments of diffusers' alone.
CASES: dict[str, tuple[str, str, dict[str, Any], dict[str, Any]]] = {
    "sd1 image to image": (
        "sd1", "StableDiffusionImg2ImgPipeline", {"image": picture(), "strength": 0.7}, {},
    ),
    "sd1 at its default strength": ("sd1", "StableDiffusionImg2ImgPipeline", {"image": picture()}, {}),
    "sd3 image to image": (
        "sd3", "StableDiffusion3Img2ImgPipeline",
        {"image": picture(), "strength": 0.7, "width": WIDTH, "height": HEIGHT}, {},
    ),
    "sd3 at its default strength": (
        "sd3", "StableDiffusion3Img2ImgPipeline", {"image": picture(), "width": WIDTH, "height": HEIGHT}, {},
    ),
    "sd1 masked": (
        "sd1", "StableDiffusionInpaintPipeline",
        {"image": picture(), "mask_image": mask(), "strength": 0.8, "width": WIDTH, "height": HEIGHT}, {},
    ),
    "sd1 inpainting": (
        "sd1-inpainting", "StableDiffusionInpaintPipeline",
        {"image": picture(), "mask_image": mask(), "width": WIDTH, "height": HEIGHT}, {},
    ),
    "sd1 inpainting of some steps": (
        "sd1-inpainting", "StableDiffusionInpaintPipeline",
        {"image": picture(), "mask_image": mask(), "strength": 0.6, "width": WIDTH, "height": HEIGHT}, {},
    ),
    "sd1 edit": ("sd1-edit", "StableDiffusionInstructPix2PixPipeline", {"image": picture()}, {}),
    "sd1 edit, its own scale": (
        "sd1-edit", "StableDiffusionInstructPix2PixPipeline", {"image": picture(), "image_guidance_scale": 2.25}, {},
    ),
    "sd1 edit, not guided by the picture": (
        "sd1-edit", "StableDiffusionInstructPix2PixPipeline", {"image": picture(), "image_guidance_scale": 0.5}, {},
    ),
    "sd1 edit without guidance": (
        "sd1-edit", "StableDiffusionInstructPix2PixPipeline", {"image": picture(), "guidance_scale": 1.0}, {},
    ),
    "sd2 depth": (
        "sd2-depth", "StableDiffusionDepth2ImgPipeline", {"image": picture(), "strength": 0.7},
        {"depth_map": torch.from_numpy(depth())[None]},
    ),
}  # fmt: skip


@pytest.mark.filterwarnings("ignore:You have provided more prompts")
@pytest.mark.parametrize("case", CASES.values(), ids=CASES.keys())
def test_calls_equal_diffusers(
    case: tuple[str, str, dict[str, Any], dict[str, Any]], family_checkpoint: Named, family_bundle: Named
) -> None:
    name, kind, arguments, theirs = case
    whole = diffusers.DiffusionPipeline.from_pretrained(family_checkpoint(name)).to(torch.float32)
    parts = {part: value for part, value in whole.components.items() if part != "image_encoder"}
    if "Depth" in kind:
        parts = {key: parts[key] for key in ("vae", "text_encoder", "tokenizer", "unet", "scheduler")}
        parts.update(depth_estimator=None, feature_extractor=None)
    elif name.startswith("sd1"):
        parts["requires_safety_checker"] = False
    reference = getattr(diffusers, kind)(**parts)
    reference.set_progress_bar_config(disable=True)
    call = {"prompt": "a red fox", "negative_prompt": "a house", "num_inference_steps": 6, "guidance_scale": 4.0}
    call.update(arguments)
    ours = {"depth_map": depth()} if "depth_map" in theirs else {}
    with load(family_bundle(name), verify=False) as pipe:
        for output_type, limit in (("latent", LATENT_LIMIT), ("np", IMAGE_LIMIT)):
            generator = [torch.Generator("cpu").manual_seed(SEED)]
            result = reference(**call, **theirs, generator=generator, output_type=output_type).images
            expected = result.detach().numpy() if isinstance(result, torch.Tensor) else np.asarray(result)
            received = pipe(**call, **ours, seed=SEED, output_type=output_type).images
            assert received.shape == expected.shape
            assert np.abs(received - expected).max() <= limit


def test_depth_maps_are_resized_as_by_torch() -> None:
    values = depth()
    for size in ((8, 20), (31, 53), (64, 70)):
        expected = torch.nn.functional.interpolate(
            torch.from_numpy(values)[None, None], size=size, mode="bicubic", align_corners=False
        )
        np.testing.assert_allclose(bicubic(values, *size), expected[0, 0].numpy(), atol=1e-5)


def test_a_depth_model_draws_from_noise_too(family_bundle: Named) -> None:
    call: dict[str, Any] = {"num_inference_steps": 3, "seed": SEED, "output_type": "latent", "width": WIDTH}
    with load(family_bundle("sd2-depth"), verify=False) as pipe:
        near = pipe("a fox", depth_map=depth(), height=HEIGHT, **call).images
        far = pipe("a fox", depth_map=-depth(), height=HEIGHT, **call).images
    assert near.shape == (1, 4, HEIGHT // 2, WIDTH // 2)
    assert np.abs(near - far).max() > 1e-3


PICTURE, MASK = {"image": picture()}, {"mask_image": mask()}
LATENTS = {"image": np.zeros((1, 4, 8, 20), np.float32)}
BAD: list[tuple[str, dict[str, Any], str]] = [
    ("sd1-inpainting", {}, "image is missing .* trained for inpainting"),
    ("sd1-inpainting", PICTURE, "mask_image is missing"),
    ("sd1-inpainting", LATENTS | MASK, r"image \| received: latents"),
    ("sd1-inpainting", PICTURE | MASK | {"denoising_start": 0.5}, "denoising_start has no use"),
    ("sd1-edit", {}, "image is missing .* trained for edit"),
    ("sd1-edit", PICTURE | {"strength": 0.5}, "strength has no use here .* image, image_guidance_scale"),
    ("sd1-edit", PICTURE | {"image_guidance_scale": "much"}, r"image_guidance_scale \| received: 'much'"),
    ("sd2-depth", {}, "depth_map is missing"),
    ("sd2-depth", {"depth_map": np.ones((4, 4))}, r"depth_map \| received: 1 everywhere"),
    ("sd2-depth", {"depth_map": np.full((4, 4), np.nan)}, "depth_map"),
    ("sd2-depth", {"depth_map": np.ones((4, 4, 3, 2))}, r"depth_map \| received: an array, float64 \[4, 4, 3, 2\]"),
    ("sd2-depth", {"depth_map": "near"}, r"depth_map \| received: 'near'"),
    ("sd1", {"depth_map": depth()}, "depth_map has no use here"),
    ("sd1", PICTURE | {"image_guidance_scale": 1.5}, "image_guidance_scale has no use here"),
    ("sd1", {"max_sequence_length": 128}, "max_sequence_length .* a bundle with T5"),
    ("sd1", {"skip_layer_guidance_scale": 2.8}, "skip-layer guidance .* cannot skip layers"),
    ("sd3", {"max_sequence_length": 1000}, "max_sequence_length .* from 1 to"),
    ("sd1-lcm", {"guidance_scale": [2.0, 3.0]}, "distilled to one guidance scale"),
    ("sd1-lcm", {"guidance_interval": (0.0, 0.5)}, "distilled to one guidance scale"),
]


@pytest.mark.parametrize(("name", "arguments", "message"), BAD)
def test_pictures_that_the_checkpoint_needs_or_cannot_use(
    name: str, arguments: dict[str, Any], message: str, family_bundle: Named
) -> None:
    with load(family_bundle(name), verify=False) as pipe, pytest.raises(RequestError, match=message):
        pipe("a fox", **{"num_inference_steps": 2, "width": WIDTH, "height": HEIGHT, **arguments})


def test_the_size_shifts_a_rectified_flow_where_its_schedule_says_so(family_bundle: Named) -> None:
    config = {"_class_name": "FlowMatchEulerDiscreteScheduler", "use_dynamic_shifting": True, "max_shift": 1.3}
    schedule = model_schedule_from_config(config)
    with load(family_bundle("sd3"), verify=False) as pipe:
        manifest, stride = pipe.bundle.manifest, pipe.bundle.manifest.latent_space.stride
        request = pipe.request("a fox", width=WIDTH, height=HEIGHT, num_inference_steps=4)
        explicit = pipe.request("a fox", width=WIDTH, height=HEIGHT, num_inference_steps=4, sampler_options={"mu": 0.9})
    patches = (HEIGHT // stride) * (WIDTH // stride)
    expected = build_table(None, None, 4, schedule, image_seq_len=patches)
    np.testing.assert_allclose(table_of(request, manifest, schedule).sigmas, expected.sigmas)
    np.testing.assert_allclose(
        table_of(explicit, manifest, schedule).sigmas, build_table(None, None, 4, schedule, mu=0.9).sigmas
    )
    assert np.abs(table_of(explicit, manifest, schedule).sigmas - expected.sigmas).max() > 0.01
