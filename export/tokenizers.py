"""A checkpoint's CLIP tokenizers as ``tokenizer.json`` files and the marks that go around a prompt."""

from __future__ import annotations

import json
from dataclasses import dataclass

from ..runtime.errors import CheckpointError
from ..runtime.manifest import AddedToken
from .checkpoint import Checkpoint

_BYTES = 256


@dataclass(frozen=True)
class ExportedTokenizer:
    """One tokenizer: the shareable part as a ``tokenizer.json``, and what is its own."""

    vocabulary: bytes
    added_tokens: tuple[AddedToken, ...]
    bos_token_id: int
    eos_token_id: int
    pad_token_id: int


def export_tokenizer(checkpoint: Checkpoint, folder: str, vocabulary: int) -> ExportedTokenizer:
    """Read a tokenizer folder. ``vocabulary`` is how many token ids its text encoder knows.

    Raises:
        CheckpointError: files are missing, it is not a CLIP tokenizer, or not this text encoder's.
    """
    import transformers

    path = checkpoint.path / folder
    try:
        tokenizer = transformers.CLIPTokenizerFast.from_pretrained(str(path), local_files_only=True)
    except Exception as error:  # transformers raises many kinds for incomplete folders
        lines = str(error).splitlines() or [type(error).__name__]
        raise CheckpointError(f"{path}: not a readable CLIP tokenizer", received=lines[0]) from error
    content = json.loads(tokenizer.backend_tokenizer.to_str())
    ids = content["model"]["vocab"].values()
    if len(ids) < _BYTES or max(ids) >= vocabulary:  # transformers makes an empty tokenizer of an empty folder
        raise CheckpointError(
            f"{path}: not the tokenizer of its text encoder",
            received=f"{len(ids)} tokens",
            expected=f"a token for every byte, and ids below {vocabulary}",
            remedy="copy the whole folder again",
        )
    flags = ("content", "single_word", "lstrip", "rstrip", "normalized")
    added = tuple(AddedToken(**{name: token[name] for name in flags}) for token in content["added_tokens"])
    content.update(added_tokens=[], padding=None, truncation=None, post_processor=None)
    return ExportedTokenizer(
        vocabulary=json.dumps(content, ensure_ascii=False, separators=(",", ":")).encode(),
        added_tokens=added,
        bos_token_id=tokenizer.bos_token_id,
        eos_token_id=tokenizer.eos_token_id,
        pad_token_id=tokenizer.pad_token_id,
    )
