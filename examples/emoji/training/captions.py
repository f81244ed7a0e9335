"""Training captions as token ids of a compact vocabulary: only the ids that captions use get a trained row."""

from __future__ import annotations

import random
from pathlib import Path

import torch
from transformers import CLIPTokenizer

from clip_tokenizer_files import END_ID, MAX_LENGTH, PADDING, START_ID
from vocabulary import fill, random_caption, word_coverage

PADDING_ID_2 = 0  # "!", the second tokenizer's padding
UNKNOWN = 0
"""The compact id of every word that no caption uses."""


class CompactCaptions:
    """Both tokenizers, and the map from CLIP's ids to compact ones.

    `ids` are the CLIP ids in use, in order; the compact id of `ids[i]` is i + 1.
    """

    def __init__(self, folder: Path) -> None:
        self.tokenizers = [CLIPTokenizer.from_pretrained(folder / name) for name in PADDING]
        used = {PADDING_ID_2, START_ID, END_ID}
        for ids in self.tokenizers[0](word_coverage()).input_ids:
            used.update(ids)
        self.ids = sorted(used)  # <|endoftext|> is the largest id, and stays so: the encoders pool at the largest
        self._compact = {token: i + 1 for i, token in enumerate(self.ids)}
        self._words: dict[str, list[int]] = {}

    @property
    def size(self) -> int:
        """Rows of the compact embedding tables."""
        return len(self.ids) + 1

    def clip_ids(self, text: str) -> list[int]:
        """CLIP's ids of a text, without start and end."""
        return self.tokenizers[0](text).input_ids[1:-1]

    def words(self, text: str) -> list[int]:
        """Compact ids of a text, without start and end."""
        if text not in self._words:
            self._words[text] = [self._compact.get(token, UNKNOWN) for token in self.clip_ids(text)]
        return self._words[text]

    def batch(self, captions: list[list[int]]) -> list[torch.Tensor]:
        """Compact words -> padded ids [rows, 77] for each of the two encoders."""
        start, end = self._compact[START_ID], self._compact[END_ID]
        full = [[start, *words[: MAX_LENGTH - 2], end] for words in captions]
        return [
            torch.tensor([row + [padding] * (MAX_LENGTH - len(row)) for row in full])
            for padding in (end, self._compact[PADDING_ID_2])
        ]

    def random_words(self, name: str, color: str, silent: bool, rng: random.Random) -> list[int]:
        """Compact ids of a random caption; sometimes unknown words surround it, or it lacks the noun phrase."""
        roll = rng.random()
        if roll < 0.03:
            return []
        if roll < 0.05:
            return [UNKNOWN] * rng.randint(1, 8)
        if roll < 0.065 and not silent:
            return self.words(fill("a {c} background", name, color))
        words = list(self.words(random_caption(name, color, not silent, rng)))
        if rng.random() < 0.15:
            filler = [UNKNOWN] * rng.randint(1, 4)
            words = filler + words if rng.random() < 0.3 else words + self.words(",") + filler
        if rng.random() < 0.05:
            words = words + self.words(".")
        return words
