"""Prompts to CLIP token ids: one chunk of 77 per prompt, with the marks and the padding of each text encoder."""

from __future__ import annotations

import logging
from collections.abc import Sequence

import msgspec
import numpy as np
import tokenizers
from numpy.typing import NDArray
from tokenizers import Tokenizer

from .manifest import TextEncoding
from .spec import TOKENS_PER_CHUNK

logger = logging.getLogger(__name__)


def load_vocabulary(data: bytes) -> Tokenizer:
    """The byte-pair tokenizer of a ``tokenizer.json`` without added tokens; it is only a part of ``tokenizer_for``."""
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


def token_ids(tokenizer: Tokenizer, encoding: TextEncoding, prompts: Sequence[str]) -> NDArray[np.int64]:
    """Token ids ``[prompts, 77]``: begin mark, at most 75 tokens, end mark, padding.

    A longer prompt is cut as in diffusers, and the part that has no effect is logged.
    """
    room = TOKENS_PER_CHUNK - 2
    ids = np.full((len(prompts), TOKENS_PER_CHUNK), encoding.pad_token_id, np.int64)
    for row, prompt in enumerate(prompts):
        encoded = tokenizer.encode(prompt, add_special_tokens=False)
        words = encoded.ids
        if len(words) > room:
            cut = prompt[encoded.offsets[room][0] :]
            logger.warning("the prompt has %d tokens, %d fit; this part has no effect: %r", len(words), room, cut)
            words = words[:room]
        ids[row, 0] = encoding.bos_token_id
        ids[row, 1 : 1 + len(words)] = words
        ids[row, 1 + len(words)] = encoding.eos_token_id
    return ids
