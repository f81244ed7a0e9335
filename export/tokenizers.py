"""A checkpoint's CLIP tokenizers as ``tokenizer.json`` files and the marks that go around a prompt."""

from __future__ import annotations

import json
from dataclasses import dataclass

from ..runtime.errors import CheckpointError
from ..runtime.manifest import AddedToken
from .checkpoint import Checkpoint


@dataclass(frozen=True)
class ExportedTokenizer:
    """One tokenizer: the shareable part as a ``tokenizer.json``, and what is its own."""

    vocabulary: bytes
    added_tokens: tuple[AddedToken, ...]
    bos_token_id: int
    eos_token_id: int
    pad_token_id: int


def export_tokenizer(checkpoint: Checkpoint, folder: str) -> ExportedTokenizer:
    """Read a tokenizer folder.

    Raises:
        CheckpointError: files are missing, or it is not a CLIP tokenizer.
    """
    import transformers

    path = checkpoint.path / folder
    try:
        tokenizer = transformers.CLIPTokenizerFast.from_pretrained(str(path), local_files_only=True)
    except Exception as error:  # transformers raises many kinds for incomplete folders
        lines = str(error).splitlines() or [type(error).__name__]
        raise CheckpointError(f"{path}: not a readable CLIP tokenizer", received=lines[0]) from error
    content = json.loads(tokenizer.backend_tokenizer.to_str())
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
