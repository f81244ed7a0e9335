"""Texts, sizes and guidance become the denoiser's inputs as in diffusers."""

from __future__ import annotations

import diffusers
import msgspec
import numpy as np
import pytest
import torch
from numpy.typing import NDArray

from latentrt.runtime.bundles.manifest import SCHEMA_VERSION, Defaults, LatentSpace, Manifest, TextEncoding
from latentrt.runtime.requests.request import request_from_arguments
from latentrt.runtime.requests.size_conditioning import SizeConditioning
from latentrt.runtime.text.conditioning import encode_texts, guidance_embedding, time_ids, unique_texts

EMPTY = Manifest(
    schema_version=SCHEMA_VERSION, latentrt="0", name="nothing", family="sdxl", latent_space=LatentSpace(4, 8, 8),
    text_encodings=(), force_zeros_for_empty_prompt=True, scheduler={}, defaults=Defaults(64, 64, 1, 2.0),
    buckets=(), components={}, engines=(), files={}, tools={},
)  # fmt: skip


def encoding(component: str, *, segment: int = 0, pooled: bool = False, present: bool = True) -> TextEncoding:
    return TextEncoding(
        component=component, tokenizer="tokenizer.json" if present else None, added_tokens=(), bos_token_id=0,
        eos_token_id=1, pad_token_id=1, hidden_states="hidden_states", pooled="text_embeds" if pooled else None,
        tokens=3, segment=segment,
    )  # fmt: skip


def run(encoding: TextEncoding, ids: NDArray[np.int64]) -> dict[str, NDArray[np.float32]]:
    """A text encoder whose states are the ids times its number, of as many values as its number."""
    number = int(encoding.component)
    states = np.repeat(ids[:, :, None] * number, number, axis=-1).astype(np.float32)
    return {"hidden_states": states, "text_embeds": states[:, 0]}


IDS = np.array([[1, 2, 3], [4, 5, 6]])


def test_one_segment_is_joined_along_its_width() -> None:
    encodings = (encoding("1"), encoding("2", pooled=True))
    manifest = msgspec.structs.replace(EMPTY, text_encodings=encodings, text_width=3)
    states = encode_texts(manifest, {"1": IDS, "2": IDS}, run)
    assert states.hidden_states.tolist()[0] == [[1, 2, 2], [2, 4, 4], [3, 6, 6]]
    assert states.pooled is not None
    assert states.pooled.tolist() == [[2, 2], [8, 8]]


def test_segments_are_widened_and_joined_along_the_tokens() -> None:
    encodings = (encoding("1", pooled=True), encoding("2", pooled=True), encoding("5", segment=1))
    manifest = msgspec.structs.replace(EMPTY, text_encodings=encodings, text_width=5)
    states = encode_texts(manifest, {"1": IDS, "2": IDS, "5": IDS[:, :2]}, run)
    assert states.hidden_states.shape == (2, 5, 5)
    assert states.hidden_states.tolist()[0] == [
        [1, 2, 2, 0, 0], [2, 4, 4, 0, 0], [3, 6, 6, 0, 0], [5, 5, 5, 5, 5], [10, 10, 10, 10, 10]
    ]  # fmt: skip
    assert states.pooled is not None
    assert states.pooled.tolist() == [[1, 2, 2], [4, 8, 8]]


def test_an_encoder_that_is_left_out_gives_zeros() -> None:
    encodings = (encoding("1", pooled=True), encoding("5", segment=1, present=False))
    manifest = msgspec.structs.replace(EMPTY, text_encodings=encodings, text_width=5)
    states = encode_texts(manifest, {"1": IDS}, run)
    assert states.hidden_states.shape == (2, 6, 5)
    assert not states.hidden_states[:, 3:].any()
    assert states.hidden_states[:, :3, 0].tolist() == IDS.tolist()


@pytest.mark.parametrize(
    ("guidance_scale", "zero_omitted", "expected"),
    [(5.0, True, [("a",)]), (5.0, False, [("",), ("a",)]), (1.0, False, [("a",)])],
)
def test_an_omitted_negative_prompt_is_encoded_only_where_it_counts(
    guidance_scale: float, zero_omitted: bool, expected: list[tuple[str]]
) -> None:
    call = {"guidance_scale": guidance_scale, "seed": 0, "output_type": "latent"}
    request = request_from_arguments(EMPTY, ["a", "a"], **call)
    assert unique_texts(request, zero_omitted=zero_omitted) == expected


def test_size_conditioning_has_pairs_and_scores() -> None:
    size = SizeConditioning((10, 20), (1, 2), (30, 40), 6.5)
    assert time_ids(("original_size", "crops_coords_top_left", "target_size"), size) == [10, 20, 1, 2, 30, 40]
    assert time_ids(("original_size", "crops_coords_top_left", "aesthetic_score"), size) == [10, 20, 1, 2, 6.5]


@pytest.mark.parametrize("width", [10, 11, 256])
@pytest.mark.parametrize("guidance_scale", [1.0, 4.0, 8.5])
def test_the_guidance_scale_is_embedded_as_in_diffusers(width: int, guidance_scale: float) -> None:
    reference = diffusers.StableDiffusionXLPipeline.get_guidance_scale_embedding
    expected = reference(None, torch.tensor([guidance_scale - 1]), embedding_dim=width).numpy()[0]
    received = guidance_embedding(guidance_scale, width)
    assert received.dtype == np.float32
    assert np.abs(received - expected).max() <= 1e-3  # sines of up to 7500 radians, of which float32 keeps 5e-4
