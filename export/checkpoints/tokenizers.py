"""A checkpoint's tokenizers as ``tokenizer.json`` files and the marks that go around a prompt."""

from __future__ import annotations

import json
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from ...runtime.bundles.manifest import AddedToken
from ...runtime.errors import CheckpointError
from .checkpoint import Checkpoint
from .folder import check_folder
from .single_file.clip_tokenizer import ClipTokenizer
from .single_file.part import no_t5_tokenizer

_BYTES = 256


@dataclass(frozen=True)
class ExportedTokenizer:
    """One tokenizer: the shareable part as a ``tokenizer.json``, and what is its own."""

    vocabulary: bytes
    added_tokens: tuple[AddedToken, ...]
    bos_token_id: int | None
    eos_token_id: int
    pad_token_id: int


def export_clip_tokenizer(checkpoint: Checkpoint, folder: str, vocabulary: int) -> ExportedTokenizer:
    """Read a CLIP tokenizer: byte pairs, and a prompt between two marks.

    ``vocabulary`` is how many token ids its text encoder knows.

    Raises:
        CheckpointError: files are missing, it is not a CLIP tokenizer, or not this text encoder's.
    """
    import transformers

    source = checkpoint.tokenizers.get(folder, checkpoint.path / folder)
    load = source.load if isinstance(source, ClipTokenizer) else _from_folder(transformers.CLIPTokenizerFast, source)
    tokenizer = _loaded(load, checkpoint, folder, "CLIP")
    content = json.loads(tokenizer.backend_tokenizer.to_str())
    ids = content["model"]["vocab"].values()
    if len(ids) < _BYTES or max(ids) >= vocabulary:  # transformers makes an empty tokenizer of an empty folder
        expected = f"a token for every byte, and ids below {vocabulary}"
        raise _another_encoders(checkpoint, folder, len(ids), expected)
    return _exported(tokenizer, content, tokenizer.bos_token_id)


def export_t5_tokenizer(checkpoint: Checkpoint, folder: str, vocabulary: int) -> ExportedTokenizer:
    """Read a T5 tokenizer: SentencePiece's unigrams, and a mark behind the prompt only.

    Raises:
        CheckpointError: files are missing, it is not a T5 tokenizer, or not this text encoder's.
    """
    import transformers

    source = checkpoint.tokenizers.get(folder)
    if not isinstance(source, Path):
        raise no_t5_tokenizer(checkpoint.path)
    load = _from_folder(transformers.T5TokenizerFast, source)
    tokenizer = _loaded(load, checkpoint, folder, "T5")
    content = json.loads(tokenizer.backend_tokenizer.to_str())
    pieces = content["model"]["vocab"]
    # transformers makes a tokenizer without words of an empty folder
    words = [piece for piece, _ in pieces if not (piece.startswith("<") and piece.endswith(">")) and piece != "\u2581"]
    if not words or len(pieces) > vocabulary:
        raise _another_encoders(checkpoint, folder, len(pieces), f"words, and ids below {vocabulary}")
    return _exported(tokenizer, content, None)


#: ``model_type`` of a text encoder's config -> what reads its tokenizer.
TOKENIZERS: dict[str, Callable[[Checkpoint, str, int], ExportedTokenizer]] = {
    "clip_text_model": export_clip_tokenizer,
    "t5": export_t5_tokenizer,
}


def _from_folder(kind: Any, path: Path) -> Callable[[], Any]:
    check_folder(path)
    return lambda: kind.from_pretrained(str(path), local_files_only=True)


def _loaded(load: Callable[[], Any], checkpoint: Checkpoint, folder: str, kind: str) -> Any:
    try:
        return load()
    except Exception as error:  # transformers raises many kinds for incomplete folders
        lines = str(error).splitlines() or [type(error).__name__]
        subject = f"{checkpoint.place(folder)}: not a readable {kind} tokenizer"
        raise CheckpointError(subject, received=lines[0]) from error


def _another_encoders(checkpoint: Checkpoint, folder: str, received: int, expected: str) -> CheckpointError:
    return CheckpointError(
        f"{checkpoint.place(folder)}: not the tokenizer of its text encoder",
        received=f"{received} tokens",
        expected=expected,
        remedy="copy the whole folder again",
    )


def _exported(tokenizer: Any, content: dict[str, Any], bos_token_id: int | None) -> ExportedTokenizer:
    flags = ("content", "single_word", "lstrip", "rstrip", "normalized")
    added = tuple(AddedToken(**{name: token[name] for name in flags}) for token in content["added_tokens"])
    content.update(added_tokens=[], padding=None, truncation=None, post_processor=None)
    return ExportedTokenizer(
        vocabulary=json.dumps(content, ensure_ascii=False, separators=(",", ":")).encode(),
        added_tokens=added,
        bos_token_id=bos_token_id,
        eos_token_id=tokenizer.eos_token_id,
        pad_token_id=tokenizer.pad_token_id,
    )
