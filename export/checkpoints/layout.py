"""What a checkpoint holds, in the terms of diffusers' folder layout, wherever it was read from."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Any

from .single_file.clip_tokenizer import ClipTokenizer
from .single_file.converted import ConvertedWeights

#: A component's weights: the safetensors files of its folder, or tensors of a single file under other names.
StoredWeights = tuple[Path, ...] | ConvertedWeights


@dataclass(frozen=True)
class Layout:
    """A checkpoint by the names of diffusers' folders, before it is known to be of a family.

    ``model_index`` is the content of ``model_index.json``; ``configs`` holds every component's config and, as
    ``scheduler``, the scheduler's; ``tokenizers`` where the tokenizer of each folder comes from.
    """

    model_index: dict[str, Any]
    configs: dict[str, dict[str, Any]]
    weights: dict[str, StoredWeights]
    tokenizers: dict[str, Path | ClipTokenizer]
