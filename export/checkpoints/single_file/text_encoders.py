"""Text encoders of single files: CLIP as transformers has it, CLIP as OpenCLIP has it, and T5's encoder."""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping
from typing import Any

from .converted import ConvertedWeights, Source, identity, part, transposed
from .families import TextEncoderPlace
from .names import Names, layers, layers_without_bias, sources
from .section import HEAD_WIDTH, Section

_CLIP_LAYER = ("layer_norm1", "layer_norm2", "mlp.fc1", "mlp.fc2")
_CLIP_ATTENTION = ("q_proj", "k_proj", "v_proj", "out_proj")
_OPEN_CLIP_LAYER = {
    "layer_norm1": "ln_1",
    "layer_norm2": "ln_2",
    "mlp.fc1": "mlp.c_fc",
    "mlp.fc2": "mlp.c_proj",
    "self_attn.out_proj": "attn.out_proj",
}
_T5_ATTENTION = ("q", "k", "v", "o")
_T5_FEED_FORWARD = ("wi_0", "wi_1", "wo")

Result = tuple[dict[str, Any], ConvertedWeights]


def text_encoder(section: Section, template: Mapping[str, Any], place: TextEncoderPlace) -> Result:
    """The config and the weights of a text encoder; ``template`` is what shapes do not tell.

    Raises:
        CheckpointError: the tensors are not those of the encoder that they look like.
    """
    if "shared.weight" in section:
        return _t5(section, template)
    if "positional_embedding" in section:
        return _open_clip(section, template, place.unused_layers)
    return _clip(section, template, identity_projection=place.identity_projection)


def _clip(section: Section, template: Mapping[str, Any], *, identity_projection: bool) -> Result:
    """A CLIP text model under transformers' names."""
    # Early SD1 files lack the part of the name that transformers added later.
    model = "" if "final_layer_norm.weight" in section else "text_model."
    embeddings = f"{model}embeddings"
    depth = section.count(rf"{re.escape(model)}encoder\.layers\.(\d+)\.")
    config = {
        **template,
        **_embeddings(section, f"{embeddings}.token_embedding.weight", f"{embeddings}.position_embedding.weight"),
        "intermediate_size": section.size(f"{model}encoder.layers.0.mlp.fc1.weight"),
        "num_hidden_layers": depth,
    }
    names = sources(_clip_names(model, depth))
    if identity_projection:
        names["text_projection.weight"] = Source(f"{model}final_layer_norm.weight", identity)
        config["projection_dim"] = config["hidden_size"]
    elif _projects(template):
        names["text_projection.weight"] = Source("text_projection.weight")
        config["projection_dim"] = section.size("text_projection.weight")
    return config, section.converted(names, ignored=_is_left_over)


def _open_clip(section: Section, template: Mapping[str, Any], unused_layers: int) -> Result:
    depth = section.count(r"transformer\.resblocks\.(\d+)\.") - unused_layers
    config = {
        **template,
        **_embeddings(section, "token_embedding.weight", "positional_embedding"),
        "intermediate_size": section.size("transformer.resblocks.0.mlp.c_fc.weight"),
        "num_hidden_layers": depth,
    }
    if _projects(template):
        config["projection_dim"] = section.size("text_projection", 1)
    unused = tuple(f"transformer.resblocks.{depth + number}." for number in range(unused_layers))
    names = sources(_open_clip_names(depth, projected=_projects(template)))
    return config, section.converted(names, ignored=lambda key: _is_left_over(key) or key.startswith(unused))


def _projects(template: Mapping[str, Any]) -> bool:
    return bool(template["architectures"] == ["CLIPTextModelWithProjection"])


def _embeddings(section: Section, tokens: str, positions: str) -> dict[str, int]:
    width = section.size(tokens, 1)
    return {
        "vocab_size": section.size(tokens),
        "max_position_embeddings": section.size(positions),
        "hidden_size": width,
        "num_attention_heads": section.heads(width, "text encoder"),
    }


def _t5(section: Section, template: Mapping[str, Any]) -> Result:
    depth = section.count(r"encoder\.block\.(\d+)\.")
    attention = "encoder.block.0.layer.0.SelfAttention"
    config = {
        **template,
        "vocab_size": section.size("shared.weight"),
        "d_model": section.size("shared.weight", 1),
        "d_kv": HEAD_WIDTH,
        "d_ff": section.size("encoder.block.0.layer.1.DenseReluDense.wo.weight", 1),
        "num_layers": depth,
        "num_heads": section.heads(section.size(f"{attention}.q.weight"), "text encoder"),
        "relative_attention_num_buckets": section.size(f"{attention}.relative_attention_bias.weight"),
    }
    return config, section.converted(sources(_t5_names(depth)), ignored=_is_left_over)


def _is_left_over(key: str) -> bool:
    """What text encoders are stored with and nothing here uses: training's temperature, constant indices, the causal
    mask, tied copies, and projections of encoders that are used without one."""
    ends = (
        "logit_scale",
        "position_ids",
        "attn_mask",
        "text_projection",
        "text_projection.weight",
        "embed_tokens.weight",
    )
    return key.endswith(ends)


def _clip_names(model: str, depth: int) -> Iterator[Names]:
    for name in ("token_embedding", "position_embedding"):
        yield layers_without_bias({f"text_model.embeddings.{name}": f"{model}embeddings.{name}"})
    yield layers({"text_model.final_layer_norm": f"{model}final_layer_norm"})
    for number in range(depth):
        layer = f"encoder.layers.{number}"
        names = (*_CLIP_LAYER, *(f"self_attn.{name}" for name in _CLIP_ATTENTION))
        yield layers({f"text_model.{layer}.{name}": f"{model}{layer}.{name}" for name in names})


def _open_clip_names(depth: int, *, projected: bool) -> Iterator[Names]:
    yield {
        "text_model.embeddings.token_embedding.weight": Source("token_embedding.weight"),
        "text_model.embeddings.position_embedding.weight": Source("positional_embedding"),
    }
    yield layers({"text_model.final_layer_norm": "ln_final"})
    if projected:
        yield {"text_projection.weight": Source("text_projection", transposed)}
    for number in range(depth):
        ours, theirs = f"text_model.encoder.layers.{number}", f"transformer.resblocks.{number}"
        yield layers({f"{ours}.{name}": f"{theirs}.{other}" for name, other in _OPEN_CLIP_LAYER.items()})
        for index, name in enumerate(("q_proj", "k_proj", "v_proj")):
            yield {
                f"{ours}.self_attn.{name}.{kind}": Source(f"{theirs}.attn.in_proj_{kind}", part(index, 3))
                for kind in ("weight", "bias")
            }


def _t5_names(depth: int) -> Iterator[Names]:
    """The names are transformers' on both sides."""
    weights = ["shared", "encoder.final_layer_norm"]
    for number in range(depth):
        attention, feed_forward = (f"encoder.block.{number}.layer.{layer}" for layer in (0, 1))
        weights += [f"{attention}.SelfAttention.{name}" for name in _T5_ATTENTION]
        weights += [f"{feed_forward}.DenseReluDense.{name}" for name in _T5_FEED_FORWARD]
        weights += [f"{attention}.layer_norm", f"{feed_forward}.layer_norm"]
    weights.append("encoder.block.0.layer.0.SelfAttention.relative_attention_bias")
    yield layers_without_bias({name: name for name in weights})
