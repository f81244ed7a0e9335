"""Prompts to token ids: a fixed number for each prompt, with the marks and the padding of each text encoder."""

from __future__ import annotations

import logging
from collections.abc import Sequence

import msgspec
import numpy as np
import tokenizers
from numpy.typing import NDArray
from tokenizers import Tokenizer

from ..bundles.manifest import TextEncoding

logger = logging.getLogger(__name__)


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
    tokenizer: Tokenizer, encoding: TextEncoding, prompts: Sequence[str], tokens: int | None = None
) -> NDArray[np.int64]:
    """Token ids ``[prompts, tokens]``: the begin mark if the encoder has one, words, the end mark, padding.

    ``tokens`` is the encoder's own number by default. A longer prompt is cut as in diffusers, and the part that has no
    effect is logged.
    """
    length = encoding.tokens if tokens is None else tokens
    begin = [] if encoding.bos_token_id is None else [encoding.bos_token_id]
    room = length - len(begin) - 1
    ids = np.full((len(prompts), length), encoding.pad_token_id, np.int64)
    for row, prompt in enumerate(prompts):
        encoded = tokenizer.encode(prompt, add_special_tokens=False)
        words = encoded.ids
        if len(words) > room:
            cut = prompt[encoded.offsets[room][0] :]
            logger.warning("the prompt has %d tokens, %d fit; this part has no effect: %r", len(words), room, cut)
        marked = [*begin, *words[:room], encoding.eos_token_id]
        ids[row, : len(marked)] = marked
    return ids
