"""How a bundle's text encoders take part, and their tokenizers as files of the bundle."""

from __future__ import annotations

from collections.abc import Container

from ...runtime.bundles.manifest import TextEncoding
from ..store import BundleWriter
from .checkpoint import Checkpoint
from .families import TextEncoderRecord
from .tokenizers import TOKENIZERS

TOKENIZER_FOLDER = "tokenizers"


def text_encodings(checkpoint: Checkpoint, held: Container[str], writer: BundleWriter) -> tuple[TextEncoding, ...]:
    """Write the tokenizers, and record how each text encoder takes part.

    An optional encoder that is not among the components ``held`` by the bundle leaves zeros and has no tokenizer.

    Raises:
        CheckpointError: a tokenizer is missing, damaged, or another encoder's.
    """
    encodings, files = [], {}
    for record in checkpoint.family.text_encoders:
        if record.optional and record.component not in held:
            encodings.append(_absent_encoding(record))
            continue
        kind = str(checkpoint.configs[record.component].get("model_type"))
        tokenizer = TOKENIZERS[kind](checkpoint, record.tokenizer, checkpoint.number(record.component, "vocab_size"))
        if tokenizer.vocabulary not in files:
            files[tokenizer.vocabulary] = f"{TOKENIZER_FOLDER}/{record.tokenizer}.json"
            writer.write(files[tokenizer.vocabulary], tokenizer.vocabulary)
        encodings.append(
            TextEncoding(
                component=record.component,
                tokenizer=files[tokenizer.vocabulary],
                added_tokens=tokenizer.added_tokens,
                bos_token_id=tokenizer.bos_token_id,
                eos_token_id=tokenizer.eos_token_id,
                pad_token_id=tokenizer.pad_token_id,
                hidden_states="hidden_states",
                pooled="text_embeds" if record.pooled else None,
                tokens=record.tokens.opt,
                max_tokens=record.tokens.max,
                segment=record.segment,
            )
        )
    return tuple(encodings)


def _absent_encoding(record: TextEncoderRecord) -> TextEncoding:
    return TextEncoding(
        component=record.component,
        tokenizer=None,
        added_tokens=(),
        bos_token_id=None,
        eos_token_id=0,
        pad_token_id=0,
        hidden_states="hidden_states",
        tokens=record.tokens.opt,
        max_tokens=record.tokens.max,
        segment=record.segment,
    )
