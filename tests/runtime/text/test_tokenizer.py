"""Token ids equal those of each encoder's own tokenizer in transformers."""

from __future__ import annotations

import logging
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
import transformers

from latentrt.runtime import Pipeline
from latentrt.runtime.bundles.bundle import open_bundle
from latentrt.runtime.text.tokenizer import load_vocabulary, token_ids, tokenizer_for

PROMPTS = [
    "",
    "a fox",
    "a rocket on a blue background",
    "  spaces\tand\nlines  ",
    "It's Wow!! don't STOP... 123 4th (a:1.2) [b] <lora:x:1>",
    "éàü ñ ß 日本語 русский 🦊 👩‍🚀 ﬁ",
    "<|startoftext|> in the middle <|endoftext|> of it",
    "!",
    "a" * 400,
    " ".join(["word"] * 75),
    " ".join(["word"] * 76),
    " ".join(["unbelievable"] * 200),
]


@pytest.mark.parametrize("which", [0, 1])
def test_ids_equal_those_of_transformers(emoji_bundle: Path, emoji_checkpoint: Path, which: int) -> None:
    bundle = open_bundle(emoji_bundle)
    encoding = bundle.manifest.text_encodings[which]
    tokenizer = tokenizer_for(encoding, load_vocabulary(bundle.read(encoding.tokenizer)))
    reference = transformers.CLIPTokenizer.from_pretrained(emoji_checkpoint / ("tokenizer", "tokenizer_2")[which])
    expected = reference(PROMPTS, padding="max_length", max_length=77, truncation=True, return_tensors="np").input_ids
    assert np.array_equal(token_ids(tokenizer, encoding, PROMPTS), expected)


@pytest.mark.parametrize("tokens", [77, 256, 512])
def test_ids_of_t5_equal_those_of_transformers(
    family_bundle: Callable[[str], Path], family_checkpoint: Callable[[str], Path], tokens: int
) -> None:
    bundle = open_bundle(family_bundle("sd3"))
    encoding = bundle.manifest.text_encodings[2]
    tokenizer = tokenizer_for(encoding, load_vocabulary(bundle.read(str(encoding.tokenizer))))
    reference = transformers.T5TokenizerFast.from_pretrained(family_checkpoint("sd3") / "tokenizer_3")
    prompts = [*PROMPTS, "a red fox </s> on <extra_id_3>, a house!", "<pad>", "fox " * 600]
    expected = reference(prompts, padding="max_length", max_length=tokens, truncation=True, return_tensors="np")
    assert np.array_equal(token_ids(tokenizer, encoding, prompts, tokens), expected.input_ids)


def test_t5_reads_prompts_of_several_lengths_and_clip_of_one(family_bundle: Callable[[str], Path]) -> None:
    encodings = open_bundle(family_bundle("sd3")).manifest.text_encodings
    assert [(encoding.tokens, encoding.max_tokens) for encoding in encodings] == [(77, 77), (77, 77), (256, 512)]
    assert [encoding.segment for encoding in encodings] == [0, 0, 1]
    assert encodings[2].bos_token_id is None


def test_both_encoders_of_sdxl_share_one_vocabulary_file(emoji_bundle: Path) -> None:
    first, second = open_bundle(emoji_bundle).manifest.text_encodings
    assert first.tokenizer == second.tokenizer
    assert first.pad_token_id == 49407
    assert second.pad_token_id == 0


def test_a_prompt_that_is_too_long_is_cut_and_said(emoji_bundle: Path, caplog: pytest.LogCaptureFixture) -> None:
    bundle = open_bundle(emoji_bundle)
    encoding = bundle.manifest.text_encodings[0]
    tokenizer = tokenizer_for(encoding, load_vocabulary(bundle.read(encoding.tokenizer)))
    with caplog.at_level(logging.WARNING):
        token_ids(tokenizer, encoding, [" ".join(["word"] * 75) + " and the tail"])
    assert "78 tokens, 75 fit; cut off: 3, 'and the tail'" in caplog.text


def test_a_long_prompt_is_said_once_and_in_few_words(emoji: Pipeline, caplog: pytest.LogCaptureFixture) -> None:
    with caplog.at_level(logging.WARNING):
        emoji(["word " * 5000, "a fox"], negative_prompt="word " * 100, num_inference_steps=1)
    said = sorted((record.getMessage() for record in caplog.records), reverse=True)
    assert len(said) == 2, "both encoders cut in the same place"
    beginning = ("word " * 12).rstrip()
    assert said[0].startswith(
        f"text_encoder, text_encoder_2: a prompt has 5000 tokens, 75 fit; cut off: 4925, '{beginning}"
    )
    assert max(map(len, said)) < 200
