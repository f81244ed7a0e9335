"""Texts for each text encoder: as in diffusers' SDXL and SD3 pipelines, and what is refused."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import diffusers
import numpy as np
import pytest
import torch

from latentrt.runtime import Pipeline, load
from latentrt.runtime.errors import RequestError
from latentrt.runtime.images.provenance import details_text

LATENT_LIMIT = 1e-4  # max-abs, on latents of up to about 4

CASES: dict[str, dict[str, Any]] = {
    "a second prompt": {"prompt_2": "on a blue background"},
    "an empty second prompt is none": {"prompt_2": ""},
    "a second negative prompt": {"negative_prompt": "red", "negative_prompt_2": "a house"},
    "all": {"prompt_2": "blue", "negative_prompt": "red", "negative_prompt_2": "a house"},
    "one for each": {
        "prompt": ["a fox", "an owl"], "prompt_2": ["blue", ""], "negative_prompt": ["red", ""],
        "negative_prompt_2": ["a house", "a rocket"],
    },
}  # fmt: skip
THIRD: dict[str, dict[str, Any]] = {
    "a third prompt": {"prompt_3": "a red fox on blue"},
    "a third negative prompt": {"negative_prompt": "red", "negative_prompt_3": "a house"},
    "three prompts and negatives": {
        "prompt_2": "blue", "prompt_3": "a rocket", "negative_prompt": "red", "negative_prompt_2": "a house",
        "negative_prompt_3": "an owl",
    },
    "a third negative prompt alone": {"negative_prompt_3": "a house"},
}  # fmt: skip


def difference(reference: Any, pipe: Pipeline, size: int, case: dict[str, Any]) -> float:
    """Between the latents of both for the same call."""
    call = {"prompt": "a fox", "num_inference_steps": 3, "guidance_scale": 4.0, "width": size, "height": size, **case}
    images, space = len(call["prompt"]) if isinstance(call["prompt"], list) else 1, pipe.bundle.manifest.latent_space
    shape = (images, space.channels, size // space.scale, size // space.scale)
    noise = np.random.default_rng(3).standard_normal(shape, dtype=np.float32)
    reference.set_progress_bar_config(disable=True)
    theirs = reference(**call, latents=torch.from_numpy(noise), output_type="latent").images.numpy()
    return float(np.abs(pipe(**call, latents=noise, output_type="latent").images - theirs).max())


@pytest.mark.parametrize("case", CASES.values(), ids=CASES.keys())
def test_two_encoders_as_in_diffusers(case: dict[str, Any], tiny_checkpoint: Path, tiny_bundle: Path) -> None:
    reference = diffusers.StableDiffusionXLPipeline.from_pretrained(tiny_checkpoint, add_watermarker=False)
    with load(tiny_bundle, verify=False) as pipe:
        assert difference(reference.to(torch.float32), pipe, 96, case) <= LATENT_LIMIT


@pytest.mark.parametrize("case", {**CASES, **THIRD}.values(), ids={**CASES, **THIRD}.keys())
def test_three_encoders_as_in_diffusers(
    case: dict[str, Any], family_checkpoint: Callable[[str], Path], family_bundle: Callable[[str], Path]
) -> None:
    reference = diffusers.StableDiffusion3Pipeline.from_pretrained(family_checkpoint("sd3"))
    with load(family_bundle("sd3"), verify=False) as pipe:
        assert difference(reference, pipe, 24, case) <= LATENT_LIMIT


def test_another_text_makes_another_picture_and_is_recorded(emoji: Pipeline) -> None:
    call: dict[str, Any] = {"num_inference_steps": 2, "seed": 1, "negative_prompt": "", "guidance_scale": 3.0}
    plain = emoji("a fox", **call)
    other = emoji("a fox", prompt_2="a house", negative_prompt_2="red", **call)
    same = emoji("a fox", prompt_2="a fox", **call)
    assert np.abs(np.asarray(plain.images[0], int) - np.asarray(other.images[0], int)).max() > 10
    assert np.array_equal(plain.images[0], same.images[0])
    made = other.provenance[0]
    assert (made.prompt, made.prompt_2, made.negative_prompt, made.negative_prompt_2) == ("a fox", "a house", "", "red")
    assert same.provenance[0].prompt_2 is None
    assert "Prompt 2: a house\nNegative prompt 2: red" in details_text(made)


BAD: dict[str, tuple[dict[str, Any], str]] = {
    "an encoder that there is not": ({"prompt_3": "x"}, r"prompt_3 .* which has 2 \| expected: a model with 3 text"),
    "a negative for it": ({"negative_prompt": "", "negative_prompt_3": "x"}, "negative_prompt_3 .* which has 2"),
    "no text": ({"prompt_2": 5}, r"prompt_2 \| received: 5 \| expected: a string or a list of strings"),
    "too many": ({"prompt_2": ["a", "b"]}, r"prompt_2 \| received: 2 texts for 1 prompt "),
    "a negative without the first": ({"negative_prompt_2": "x"}, "negative_prompt_2 without a negative_prompt"),
    "a lone surrogate": ({"prompt_2": "\ud800"}, r"prompt_2 \| received: '\\ud800' .* without lone surrogates"),
    "negatives that are no texts": ({"negative_prompt": 5}, r"negative_prompt \| received: 5"),
    "a prompt with a lone surrogate": ({"prompt": "fox \udcff"}, r"prompt \| received: 'fox \\udcff'"),
}


@pytest.mark.parametrize(("arguments", "message"), BAD.values(), ids=BAD.keys())
def test_texts_that_cannot_be_encoded(emoji: Pipeline, arguments: dict[str, Any], message: str) -> None:
    with pytest.raises(RequestError, match=message):
        emoji(**{"prompt": "a fox", **arguments})


def test_a_text_for_an_encoder_that_was_left_out(family_bundle: Callable[[str], Path]) -> None:
    with (
        load(family_bundle("sd3-without-t5"), verify=False) as pipe,
        pytest.raises(RequestError, match=r"prompt_3 .* without text_encoder_3 .* --component text_encoder_3"),
    ):
        pipe("a fox", prompt_3="a red fox")
