"""Requests that cannot be run say what was received, what is expected and what to do."""

from __future__ import annotations

import math
from typing import Any

import numpy as np
import pytest
from PIL import Image

from latentrt.runtime import Pipeline
from latentrt.runtime.errors import InputError, RequestError
from latentrt.runtime.requests.arguments import CallArguments
from latentrt.runtime.requests.request import request_from_arguments

PICTURE = Image.new("RGB", (128, 128))
MASK = Image.new("L", (128, 128), 255)
LATENTS = np.zeros((1, 4, 16, 16), np.float32)

BAD: dict[str, tuple[dict[str, Any], str]] = {
    "width off the stride": ({"width": 100}, r"width \| received: 100 \| expected: a multiple of 32 from 64 to 192"),
    "the nearest width is named": ({"width": 100}, "the nearest is 96"),
    "width above the profile": ({"width": 256}, r"width \| received: 256 .* larger or smaller --aspects"),
    "height below the profile": ({"height": 32}, r"height \| received: 32"),
    "zero height": ({"height": 0}, r"height \| received: 0"),
    "width of a wrong type": ({"width": 128.0}, r"width \| received: 128.0 \| expected: an integer"),
    "no steps": ({"num_inference_steps": 0}, r"num_inference_steps \| received: 0 .* from 1 to 1000"),
    "negative steps": ({"num_inference_steps": -3}, r"num_inference_steps \| received: -3"),
    "ten thousand steps": ({"num_inference_steps": 10_000}, r"num_inference_steps \| received: 10000"),
    "steps of a wrong type": ({"num_inference_steps": "20"}, r"num_inference_steps \| received: '20'"),
    "unknown sampler": ({"sampler": "eulr"}, "sampler .* 'eulr' .* euler"),
    "unknown schedule": ({"schedule": "karas"}, "schedule .* 'karas' .* karras"),
    "NaN guidance": ({"guidance_scale": math.nan}, r"guidance_scale \| received: nan \| expected: a finite number"),
    "infinite guidance": ({"guidance_scale": math.inf}, r"guidance_scale \| received: inf"),
    "no guidance scales": ({"guidance_scale": [], "num_inference_steps": 2}, "one per step .* received: 0"),
    "too few guidance scales": ({"guidance_scale": [1.0], "num_inference_steps": 2}, "one per step .* received: 1"),
    "no prompts": ({"prompt": []}, r"prompt \| received: an empty list"),
    "a prompt that is no text": ({"prompt": 3}, r"prompt \| received: 3 \| expected: a string"),
    "a list with a prompt that is no text": ({"prompt": ["a", None]}, r"prompt \| received: \['a', None\]"),
    "too few negatives": (
        {"prompt": ["a", "b"], "negative_prompt": ["x"]}, r"negative_prompt \| received: 1 texts for 2 prompts",
    ),
    "an empty list of negatives": ({"negative_prompt": []}, r"negative_prompt \| received: 0 texts for 1 prompt "),
    "too many seeds": ({"seed": [1, 2]}, r"seed \| received: 2 seeds"),
    "a negative seed": ({"seed": -1}, r"seed \| received: -1 \| expected: an integer from 0"),
    "a seed beyond 64 bits": ({"seed": 2**64}, "seed"),
    "no images": ({"num_images_per_prompt": 0}, r"num_images_per_prompt \| received: 0"),
    "latents of another shape": (
        {"latents": np.zeros((1, 4, 8, 8), np.float32)}, r"\[1, 4, 8, 8\] \| expected: .* float32 \[1, 4, 16, 16\]",
    ),
    "latents in float64": ({"latents": np.zeros((1, 4, 16, 16))}, r"latents \| received: an array, float64"),
    "latents for another count": ({"latents": np.zeros((2, 4, 16, 16), np.float32)}, r"latents \| received"),
    "latents with NaN": ({"latents": np.full((1, 4, 16, 16), np.nan, np.float32)}, "not finite"),
    "latents that are no array": ({"latents": [1.0]}, r"latents \| received: \[1.0\] \| expected: an array"),
    "output type": ({"output_type": "pt"}, r"output_type \| received: 'pt' \| expected: 'pil' or 'np' or 'latent'"),
    "a size that is no pair": ({"original_size": 128}, r"original_size \| received: 128 \| expected: two integers"),
    "a negative crop": ({"crops_coords_top_left": (-1, 0)}, r"crops_coords_top_left \| received: -1"),
    "an unknown argument": ({"num_steps": 3}, "does not have .* num_steps .* num_inference_steps"),
    "an aesthetic score that is no number": ({"aesthetic_score": "high"}, "aesthetic_score .* a finite number"),
    "a strength without a picture": ({"strength": 0.5}, "strength without an image"),
    "a mask without a picture": ({"mask_image": MASK}, "mask_image without an image"),
    "a start without a picture": ({"denoising_start": 0.5}, "denoising_start without an image"),
    "a start and a strength": (
        {"image": LATENTS, "denoising_start": 0.5, "strength": 0.5}, "denoising_start and strength exclude each other",
    ),
    "a start and a mask": (
        {"image": PICTURE, "denoising_start": 0.5, "mask_image": MASK}, "denoising_start and mask_image exclude",
    ),
    "a start behind the end": (
        {"image": LATENTS, "denoising_start": 0.8, "denoising_end": 0.5}, "denoising_end leaves no step to run",
    ),
    "a start beyond 1": ({"image": LATENTS, "denoising_start": 2}, r"denoising_start \| received: 2"),
    "an end that is no number": ({"denoising_end": "late"}, r"denoising_end \| received: 'late'"),
    "a strength beyond 1": ({"image": PICTURE, "strength": 1.1}, r"strength \| received: 1.1 .* from 0 to 1"),
    "a strength of NaN": ({"image": PICTURE, "strength": math.nan}, r"strength \| received: nan"),
    "a strength too small for a step": ({"image": PICTURE, "strength": 0.001}, "strength leaves no step to run"),
    "a strength among the sampler's options": (
        {"image": PICTURE, "sampler_options": {"strength": 0.5}}, "sampler_options has strength .* argument",
    ),
    "a list of settings": ({"sampler_options": ["eta"]}, r"sampler_options \| received: \['eta'\] .* settings by name"),
    "a schedule among the sampler's options": (
        {"sampler_options": {"schedule": "karras"}}, "sampler_options has schedule .* schedule= as an argument",
    ),
    "an option that is no setting": ({"sampler_options": {"eta": [[1]]}}, "eta is no number"),
    "an option beyond 64 bits": ({"sampler": "ddim", "sampler_options": {"eta": 10**400}}, "eta .* 64 bits"),
    "a sampler that is no text": ({"sampler": 5}, r"sampler \| received: 5 \| expected: a string"),
    "an interval that ends before it begins": ({"guidance_interval": (0.8, 0.2)}, "start <= stop"),
    "an interval of texts": ({"guidance_interval": ("0", "1")}, r"guidance_interval \| received: \('0', '1'\)"),
    "too many images": ({"num_images_per_prompt": 10**9}, "num_images_per_prompt .* from 1 to 1000"),
    "a size that float32 has not": ({"original_size": (2**25, 1)}, "original_size .* from 0 to 16777216"),
    "a start from two states": (
        {"image": LATENTS, "latents": LATENTS, "denoising_start": 0.5}, "image and latents with denoising_start",
    ),
    "a start from no state": ({"latents": [1.0], "denoising_start": 0.5}, r"latents with denoising_start .*\[n, 4, h"),
    "an empty picture": ({"image": Image.new("RGB", (0, 9)), "width": 128, "height": 128}, "a picture of 0x9"),
    "a picture of unknown range": ({"image": Image.new("F", (128, 128))}, "mode F: its range is not known .* I;16"),
    "a path for a picture": ({"image": "fox.png"}, r"image \| received: str \| expected: a PIL picture"),
    "no pictures": ({"image": []}, r"image \| received: an empty list"),
    "two pictures for three prompts": (
        {"prompt": ["a", "b", "c"], "image": [PICTURE, PICTURE]}, r"image \| received: 2 of them \| expected: 1 or 3",
    ),
    "a picture with one channel as an array": ({"image": np.zeros((128, 128), np.uint8)}, r"uint8 \[128, 128\]"),
    "a picture of 16-bit integers": ({"image": np.zeros((128, 128, 3), np.uint16)}, "an array of uint16"),
    "a picture in -1..1": (
        {"image": np.full((128, 128, 3), -1, np.float32)}, r"image in floating point \| received: -1 to -1 .* 0..1",
    ),
    "a picture with NaN": ({"image": np.full((128, 128, 3), np.nan, np.float32)}, "a finite number"),
    "a picture of a size that the bundle cannot": (
        {"image": Image.new("RGB", (100, 128))}, r"width of the picture \| received: 100 .* resized to the width",
    ),
    "a floating-point picture of another size": (
        {"image": np.zeros((64, 64, 3), np.float32), "width": 128, "height": 128},
        r"image in floating point \| received: 64x64 \| expected: 128x128",
    ),
    "latents of another size": (
        {"image": LATENTS, "width": 160, "height": 96}, r"image as latents .* float32 \[1, 4, 12, 20\]",
    ),
    "latents in float64 for a picture": ({"image": LATENTS.astype(np.float64)}, "image as latents .* float64"),
    "latents with NaN for a picture": ({"image": LATENTS * np.nan}, "image as latents .* not finite"),
    "a mask that is text": ({"image": PICTURE, "mask_image": "left"}, r"mask_image \| received: str"),
    "a mask with three channels as an array": (
        {"image": PICTURE, "mask_image": np.zeros((128, 128, 3))[:, :, None]}, "mask_image",
    ),
    "a mask beyond 1": (
        {"image": PICTURE, "mask_image": np.full((128, 128), 2, np.float32)}, "mask_image in floating point",
    ),
}  # fmt: skip


@pytest.mark.parametrize(("arguments", "message"), BAD.values(), ids=BAD.keys())
def test_a_request_that_cannot_be_run(emoji: Pipeline, arguments: dict[str, Any], message: str) -> None:
    with pytest.raises(RequestError, match=message) as caught:
        emoji(**{"prompt": "a fox", **arguments})
    assert isinstance(caught.value, InputError)
    assert isinstance(caught.value, ValueError)
    assert caught.value.exit_code == 2


def test_nothing_ran_before_a_request_was_refused(emoji: Pipeline, monkeypatch: pytest.MonkeyPatch) -> None:
    def refuse(*arguments: object) -> None:
        raise AssertionError("an engine ran")

    monkeypatch.setattr(emoji.engines, "run", refuse)
    with pytest.raises(RequestError):
        emoji("a fox", sampler="no such sampler")


def test_defaults_are_the_bundles(emoji: Pipeline) -> None:
    output = emoji("", num_inference_steps=1)
    assert output.images[0].size == (128, 128)
    assert output.provenance[0].guidance_scale == 5.0
    assert output.provenance[0].sampler == "euler"


def test_an_omitted_seed_is_drawn_and_told(emoji: Pipeline) -> None:
    first, second = (emoji("a fox", num_inference_steps=1, output_type="latent") for _ in range(2))
    assert first.seeds != second.seeds
    again = emoji("a fox", num_inference_steps=1, output_type="latent", seed=first.seeds[0])
    assert np.array_equal(again.images, first.images)


def test_seed_zero_is_a_seed(emoji: Pipeline) -> None:
    outputs = [emoji("a fox", num_inference_steps=1, output_type="latent", seed=0) for _ in range(2)]
    assert outputs[0].seeds == (0,)
    assert np.array_equal(outputs[0].images, outputs[1].images)


def test_every_argument_of_a_call_is_described_and_understood() -> None:
    described = set(CallArguments.__annotations__)
    understood = set(request_from_arguments.__annotations__) - {"manifest", "prompt", "return"}
    assert described == understood
    assert CallArguments.__doc__ is not None
    for name in described:
        assert f"``{name}``" in CallArguments.__doc__
