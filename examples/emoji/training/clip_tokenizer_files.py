"""The two CLIP tokenizers of SDXL as files, from OpenAI's byte-pair table. Standard library only.

The table is `bpe_simple_vocab_16e6.txt.gz`, which the open_clip_torch wheel contains (MIT).
"""

from __future__ import annotations

import gzip
import json
from pathlib import Path
from typing import Any

VOCABULARY_SIZE = 49408
MAX_LENGTH = 77
START, END = "<|startoftext|>", "<|endoftext|>"
START_ID, END_ID = VOCABULARY_SIZE - 2, VOCABULARY_SIZE - 1
PADDING = {"tokenizer": END, "tokenizer_2": "!"}
"""Folder -> padding token, as in the published SDXL. The id of "!" is 0."""


def byte_characters() -> list[str]:
    """A printable character for each of the 256 bytes, in CLIP's order (`bytes_to_unicode` of OpenAI's CLIP)."""
    printable = [*range(ord("!"), ord("~") + 1), *range(ord("¡"), ord("¬") + 1), *range(ord("®"), ord("ÿ") + 1)]
    others = 256 - len(printable)
    return [chr(code) for code in [*printable, *range(256, 256 + others)]]


def _special(text: str) -> dict[str, Any]:
    return {"content": text, "lstrip": False, "normalized": True, "rstrip": False, "single_word": False}


def write_tokenizers(bpe: Path, folder: Path) -> None:
    """Write `tokenizer/` and `tokenizer_2/` under `folder`, in the layout of Hugging Face's CLIPTokenizer.

    Raises `ValueError` where the table does not give CLIP's 49408 tokens.
    """
    with gzip.open(bpe, "rt", encoding="utf-8") as file:
        lines = file.read().split("\n")
    merges = lines[
        1 : VOCABULARY_SIZE - 512 - 2 + 1
    ]  # after the header; 512: each byte inside and at the end of a word
    characters = byte_characters()
    words = ["".join(merge.split()) for merge in merges]
    tokens = [*characters, *(character + "</w>" for character in characters), *words, START, END]
    ids = {token: i for i, token in enumerate(tokens)}
    if len(ids) != VOCABULARY_SIZE:
        raise ValueError(f"{bpe} gives {len(ids)} tokens; expected {VOCABULARY_SIZE} (bpe_simple_vocab_16e6.txt.gz)")
    for name, padding in PADDING.items():
        special_tokens = {
            "bos_token": _special(START),
            "eos_token": _special(END),
            "pad_token": padding,
            "unk_token": _special(END),
        }
        config = {
            "add_prefix_space": False,
            "bos_token": START,
            "clean_up_tokenization_spaces": False,
            "do_lower_case": True,
            "eos_token": END,
            "errors": "replace",
            "model_max_length": MAX_LENGTH,
            "pad_token": padding,
            "tokenizer_class": "CLIPTokenizer",
            "unk_token": END,
        }
        texts = {
            "vocab.json": json.dumps(ids, ensure_ascii=False),
            "merges.txt": "#version: 0.2\n" + "\n".join(merges) + "\n",
            "special_tokens_map.json": json.dumps(special_tokens, indent=2),
            "tokenizer_config.json": json.dumps(config, indent=2),
        }
        (folder / name).mkdir(parents=True, exist_ok=True)
        for file_name, text in texts.items():
            (folder / name / file_name).write_text(text, encoding="utf-8")
