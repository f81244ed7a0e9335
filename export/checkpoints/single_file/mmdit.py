"""The multimodal diffusion transformer of SD3 and SD3.5 (``mmditx.py``) as diffusers' ``SD3Transformer2DModel``."""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping
from typing import Any

from .converted import ConvertedWeights, Source, halves_swapped, part
from .names import Names, layers, layers_without_bias, sources
from .section import HEAD_WIDTH, Section

_ENDS = {
    "pos_embed.proj": "x_embedder.proj",
    "time_text_embed.timestep_embedder.linear_1": "t_embedder.mlp.0",
    "time_text_embed.timestep_embedder.linear_2": "t_embedder.mlp.2",
    "time_text_embed.text_embedder.linear_1": "y_embedder.mlp.0",
    "time_text_embed.text_embedder.linear_2": "y_embedder.mlp.2",
    "context_embedder": "context_embedder",
    "proj_out": "final_layer.linear",
}


def mmdit(section: Section, template: Mapping[str, Any]) -> tuple[dict[str, Any], ConvertedWeights]:
    """The config and the weights of a transformer; ``template`` is what shapes do not tell.

    Raises:
        CheckpointError: the tensors are not those of such a transformer.
    """
    depth = section.count(r"joint_blocks\.(\d+)\.")
    width, patch = section.size("x_embedder.proj.weight"), section.size("x_embedder.proj.weight", 2)
    dual = [layer for layer in range(depth) if f"joint_blocks.{layer}.x_block.attn2.qkv.weight" in section]
    normalized = "joint_blocks.0.x_block.attn.ln_q.weight" in section
    config = {
        **template,
        "num_layers": depth,
        "num_attention_heads": section.heads(width, "MMDiT"),
        "attention_head_dim": HEAD_WIDTH,
        "caption_projection_dim": width,
        "patch_size": patch,
        "in_channels": section.size("x_embedder.proj.weight", 1),
        "out_channels": section.size("final_layer.linear.weight") // patch**2,
        "joint_attention_dim": section.size("context_embedder.weight", 1),
        "pooled_projection_dim": section.size("y_embedder.mlp.0.weight", 1),
        "pos_embed_max_size": math.isqrt(section.size("pos_embed", 1)),
        "dual_attention_layers": dual,
        "qk_norm": "rms_norm" if normalized else None,
    }
    names = sources(_names(depth, set(dual), normalized))
    return config, section.converted(names, ignored=lambda key: False)


def _names(depth: int, dual: set[int], normalized: bool) -> Iterator[Names]:
    yield {"pos_embed.pos_embed": Source("pos_embed")}
    yield layers(_ENDS)
    yield layers({"norm_out.linear": "final_layer.adaLN_modulation.1"}, halves_swapped)
    for number in range(depth):
        last = number == depth - 1  # its text side only feeds attention: it has no output of its own
        ours, image = f"transformer_blocks.{number}", f"joint_blocks.{number}.x_block"
        text = f"joint_blocks.{number}.context_block"
        yield _attention(f"{ours}.attn", f"{image}.attn", ("to_q", "to_k", "to_v"))
        yield _attention(f"{ours}.attn", f"{text}.attn", ("add_q_proj", "add_k_proj", "add_v_proj"))
        yield layers({f"{ours}.attn.to_out.0": f"{image}.attn.proj", f"{ours}.norm1.linear": _modulation(image)})
        yield _feed_forward(f"{ours}.ff", image)
        yield layers({f"{ours}.norm1_context.linear": _modulation(text)}, halves_swapped if last else None)
        if not last:
            yield layers({f"{ours}.attn.to_add_out": f"{text}.attn.proj"})
            yield _feed_forward(f"{ours}.ff_context", text)
        if normalized:
            yield _normalization(f"{ours}.attn", f"{image}.attn", ("norm_q", "norm_k"))
            yield _normalization(f"{ours}.attn", f"{text}.attn", ("norm_added_q", "norm_added_k"))
        if number in dual:
            yield _attention(f"{ours}.attn2", f"{image}.attn2", ("to_q", "to_k", "to_v"))
            yield layers({f"{ours}.attn2.to_out.0": f"{image}.attn2.proj"})
            if normalized:
                yield _normalization(f"{ours}.attn2", f"{image}.attn2", ("norm_q", "norm_k"))


def _modulation(block: str) -> str:
    return f"{block}.adaLN_modulation.1"


def _attention(ours: str, theirs: str, matrices: tuple[str, str, str]) -> Names:
    return sources(layers({f"{ours}.{name}": f"{theirs}.qkv"}, part(n, 3)) for n, name in enumerate(matrices))


def _feed_forward(ours: str, theirs: str) -> Names:
    return layers({f"{ours}.net.0.proj": f"{theirs}.mlp.fc1", f"{ours}.net.2": f"{theirs}.mlp.fc2"})


def _normalization(ours: str, theirs: str, names: tuple[str, str]) -> Names:
    return layers_without_bias({f"{ours}.{names[0]}": f"{theirs}.ln_q", f"{ours}.{names[1]}": f"{theirs}.ln_k"})
