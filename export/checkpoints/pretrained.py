"""A checkpoint's weights under the names that today's diffusers and transformers give them."""

from __future__ import annotations

import re
from collections.abc import Iterator

from .checkpoint import Checkpoint
from .lazy_weights import LazyWeight, Weights, weights_from_converted, weights_from_safetensors

#: Attention of autoencoders as diffusers called it until 0.17, and does since.
_ATTENTION = {"query": "to_q", "key": "to_k", "value": "to_v", "proj_attn": "to_out.0"}
_OLD_ATTENTION = re.compile(rf"(.*\battentions\.\d+)\.({'|'.join(_ATTENTION)})\.(weight|bias)")

#: transformers wraps CLIP's text model in a module of this name, depending on the class and on its own version.
_CLIP_MODULE = "text_model."
_CLIP_MARK = "embeddings.token_embedding.weight"

#: T5's embedding has two names, of which files have either.
_T5_EMBEDDINGS = ("shared.weight", "encoder.embed_tokens.weight")


def network_weights(checkpoint: Checkpoint, folder: str) -> Weights:
    """The weights of a component, by every name that its network may have for them."""
    stored = checkpoint.weights[folder]
    weights = weights_from_safetensors(stored) if isinstance(stored, tuple) else weights_from_converted(stored)
    return {**weights, **{name: weights[known] for name, known in _other_names(weights)}}


def _other_names(weights: dict[str, LazyWeight]) -> Iterator[tuple[str, str]]:
    """Names that files lack, and the name that they have instead."""
    for name in weights:
        old = _OLD_ATTENTION.fullmatch(name)
        if old:
            yield f"{old[1]}.{_ATTENTION[old[2]]}.{old[3]}", name
        if name.startswith(_CLIP_MODULE):
            yield name.removeprefix(_CLIP_MODULE), name
        elif _CLIP_MARK in weights:
            yield f"{_CLIP_MODULE}{name}", name
    for name, other in (_T5_EMBEDDINGS, _T5_EMBEDDINGS[::-1]):
        if name in weights and other not in weights:
            yield other, name
