"""Prompts to token ids: a fixed number for each prompt, with the marks and the padding of each text encoder."""

from __future__ import annotations

import logging
from collections.abc import Callable, Sequence

import msgspec
import numpy as np
import tokenizers
from numpy.typing import NDArray
from tokenizers import Tokenizer

from ..bundles.manifest import TextEncoding

logger = logging.getLogger(__name__)

#: Characters of a cut prompt's rest that are shown.
SHOWN_REST = 60


def load_vocabulary(data: bytes) -> Tokenizer:
    """The tokenizer of a ``tokenizer.json`` without added tokens; it is only a part of ``tokenizer_for``."""
    return Tokenizer.from_buffer(data)


def tokenizer_for(encoding: TextEncoding, vocabulary: Tokenizer) -> Tokenizer:
    """The tokenizer of one text encoder: the shared vocabulary, which is not copied, and the encoder's added tokens.

    It splits words only; ``token_ids`` adds the marks and the padding.
    """
    tokenizer = Tokenizer(vocabulary.model)
    tokenizer.normalizer = vocabulary.normalizer
    tokenizer.pre_tokenizer = vocabulary.pre_tokenizer
    tokenizer.add_special_tokens([tokenizers.AddedToken(**msgspec.structs.asdict(t)) for t in encoding.added_tokens])
    return tokenizer


def token_ids(
    tokenizer: Tokenizer,
    encoding: TextEncoding,
    prompts: Sequence[str],
    tokens: int | None = None,
    report: Callable[[str], object] = logger.warning,
) -> NDArray[np.int64]:
    """Token ids ``[prompts, tokens]``: the begin mark if the encoder has one, words, the end mark, padding.

    ``tokens`` is the encoder's own number by default. A longer prompt is cut as in diffusers; ``report`` is told what
    the encoder does not read.
    """
    length = encoding.tokens if tokens is None else tokens
    begin = [] if encoding.bos_token_id is None else [encoding.bos_token_id]
    room = length - len(begin) - 1
    ids = np.full((len(prompts), length), encoding.pad_token_id, np.int64)
    for row, prompt in enumerate(prompts):
        encoded = tokenizer.encode(prompt, add_special_tokens=False)
        words = encoded.ids
        if len(words) > room:
            rest = prompt[encoded.offsets[room][0] :]
            beginning = rest if len(rest) <= SHOWN_REST else rest[:SHOWN_REST] + "…"
            report(f"a prompt has {len(words)} tokens, {room} fit; cut off: {len(words) - room}, {beginning!r}")
        marked = [*begin, *words[:room], encoding.eos_token_id]
        ids[row, : len(marked)] = marked
    return ids
