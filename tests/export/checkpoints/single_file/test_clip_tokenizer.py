"""The tokenizer that ships with the package is the one that checkpoints come with."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from latentrt.export.checkpoints.single_file.clip_tokenizer import ClipTokenizer, clip_merges, clip_vocabulary

PROMPTS = [
    "",
    "a photo of a cat",
    "Ünïcödé 🙂 naïve  café\t\n42nd!",
    "it's <|endoftext|> isn't",
    "x" * 300,
    "日本語のテキスト",
]


def test_the_vocabulary_is_the_published_one(emoji_checkpoint: Path) -> None:
    vocabulary = clip_vocabulary(clip_merges())
    assert len(vocabulary) == 49408
    assert vocabulary == json.loads((emoji_checkpoint / "tokenizer" / "vocab.json").read_text())
    lines = (emoji_checkpoint / "tokenizer" / "merges.txt").read_text().splitlines()
    assert [" ".join(pair) for pair in clip_merges()] == lines[1:]


@pytest.mark.parametrize("folder", ["tokenizer", "tokenizer_2"])
def test_it_tokenizes_as_a_checkpoints_own(folder: str, emoji_checkpoint: Path) -> None:
    import transformers

    own = transformers.CLIPTokenizer.from_pretrained(emoji_checkpoint / folder)
    shipped = ClipTokenizer(own.pad_token).load()
    assert shipped.backend_tokenizer.to_str() == own.backend_tokenizer.to_str()
    settings = {"padding": "max_length", "max_length": 77, "truncation": True}
    assert shipped(PROMPTS, **settings)["input_ids"] == own(PROMPTS, **settings)["input_ids"]
    marks = ("bos_token_id", "eos_token_id", "pad_token_id", "unk_token_id")
    assert [getattr(shipped, mark) for mark in marks] == [getattr(own, mark) for mark in marks]
