"""The byte-pair tokenizer of CLIP, which a single file does not hold: every text encoder of the family uses it."""

from __future__ import annotations

import bz2
import json
import tempfile
from dataclasses import dataclass
from importlib.resources import files
from pathlib import Path
from typing import Any

_BEGIN, _END = "<|startoftext|>", "<|endoftext|>"
_END_OF_WORD = "</w>"


@dataclass(frozen=True)
class ClipTokenizer:
    """OpenAI's vocabulary of 49408 tokens; encoders differ in the token that fills up a prompt."""

    pad_token: str

    def load(self) -> Any:
        """The tokenizer as transformers' ``CLIPTokenizer``, with marks that are normalized like words, as published."""
        import transformers

        merges = clip_merges()
        begin, end = (transformers.AddedToken(mark, normalized=True) for mark in (_BEGIN, _END))
        marks = {"bos_token": begin, "eos_token": end, "unk_token": end, "pad_token": self.pad_token}
        with tempfile.TemporaryDirectory() as folder:  # what every version of transformers reads
            vocabulary = json.dumps(clip_vocabulary(merges))
            Path(folder, "vocab.json").write_text(vocabulary, encoding="utf-8")
            lines = ["#version: 0.2", *(f"{left} {right}" for left, right in merges), ""]
            Path(folder, "merges.txt").write_text("\n".join(lines), encoding="utf-8")
            return transformers.CLIPTokenizerFast.from_pretrained(folder, local_files_only=True, **marks)


def clip_merges() -> list[tuple[str, str]]:
    """The pairs that are merged, the first first: the part of the vocabulary that everything else follows from."""
    packed = files(__package__).joinpath("clip_vocabulary", "merges.txt.bz2").read_bytes()
    pairs = (line.split(" ") for line in bz2.decompress(packed).decode("utf-8").splitlines())
    return [(left, right) for left, right in pairs]


def clip_vocabulary(merges: list[tuple[str, str]]) -> dict[str, int]:
    """Token to id: the bytes inside a word, the bytes at its end, the merged pairs, the two marks (``bytes_to_unicode``
    and ``SimpleTokenizer`` of https://github.com/openai/CLIP)."""
    inside = _byte_characters()
    at_end = [character + _END_OF_WORD for character in inside]
    tokens = [*inside, *at_end, *(left + right for left, right in merges), _BEGIN, _END]
    return {token: index for index, token in enumerate(tokens)}


def _byte_characters() -> list[str]:
    """A printable character for every byte: those that have one first, the others from 256 on."""
    printable = [*range(ord("!"), ord("~") + 1), *range(ord("¡"), ord("¬") + 1), *range(ord("®"), ord("ÿ") + 1)]
    return [chr(code) for code in [*printable, *range(256, 512 - len(printable))]]
