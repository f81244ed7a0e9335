"""The UNet of Latent Diffusion and of SGM (``openaimodel.py``) as diffusers' ``UNet2DConditionModel``."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Any

from .converted import ConvertedWeights
from .names import Names, layers, layers_without_bias, sources
from .section import Section

#: Attention heads at every width, where the projections around attention are convolutions (SD 1).
_HEADS = 8

_RESNET = {
    "norm1": "in_layers.0",
    "conv1": "in_layers.2",
    "time_emb_proj": "emb_layers.1",
    "norm2": "out_layers.0",
    "conv2": "out_layers.3",
}
_ATTENTION = ("to_q", "to_k", "to_v")
_BLOCK = ("attn1.to_out.0", "attn2.to_out.0", "norm1", "norm2", "norm3", "ff.net.0.proj", "ff.net.2")
_ENDS = {
    "conv_in": "input_blocks.0.0",
    "time_embedding.linear_1": "time_embed.0",
    "time_embedding.linear_2": "time_embed.2",
    "conv_norm_out": "out.0",
    "conv_out": "out.2",
}
_ADDED_CONDITION = {"add_embedding.linear_1": "label_emb.0.0", "add_embedding.linear_2": "label_emb.0.2"}


@dataclass(frozen=True)
class _Level:
    """One resolution: its width, how many residual blocks it has, and the transformer blocks after each of them."""

    width: int
    resnets: int
    depth: int


def unet(section: Section, template: Mapping[str, Any]) -> tuple[dict[str, Any], ConvertedWeights]:
    """The config and the weights of a UNet; ``template`` is what shapes do not tell.

    Raises:
        CheckpointError: the tensors are not those of such a UNet.
    """
    levels = _levels(section)
    depths = [level.depth for level in levels]
    config = {**template, **_widths(section, levels), "layers_per_block": levels[0].resnets}
    attentive = {depth for depth in depths if depth}
    uniform = len(attentive) == 1
    config["transformer_layers_per_block"] = attentive.pop() if uniform else [max(depth, 1) for depth in depths]
    config["down_block_types"] = ["CrossAttnDownBlock2D" if depth else "DownBlock2D" for depth in depths]
    config["up_block_types"] = ["CrossAttnUpBlock2D" if depth else "UpBlock2D" for depth in reversed(depths)]
    added = "label_emb.0.0.weight" in section
    if added:
        config["addition_embed_type"] = "text_time"
        config["projection_class_embeddings_input_dim"] = section.size("label_emb.0.0.weight", 1)
    mid_depth = config["transformer_layers_per_block"] if uniform else depths[-1]
    names = sources(_names(levels, mid_depth, added))
    return config, section.converted(names, ignored=lambda key: False)


def _levels(section: Section) -> list[_Level]:
    levels: list[_Level] = []
    widths: list[int] = []
    depth, block = 0, 1
    while True:
        if f"input_blocks.{block}.0.in_layers.0.weight" in section:
            widths.append(section.size(f"input_blocks.{block}.0.out_layers.3.weight"))
            depth = section.count(rf"input_blocks\.{block}\.1\.transformer_blocks\.(\d+)\.")
        else:
            if not widths:
                raise section.misfit([f"input_blocks.{block}.0.in_layers.0.weight"], [])
            levels.append(_Level(widths[-1], len(widths), depth))
            widths = []
            if f"input_blocks.{block}.0.op.weight" not in section:
                return levels
        block += 1


def _widths(section: Section, levels: list[_Level]) -> dict[str, Any]:
    level, first = next(((n, level) for n, level in enumerate(levels) if level.depth), (0, levels[0]))
    if not first.depth:
        raise section.misfit(["input_blocks.1.1.transformer_blocks.0.norm1.weight"], [])
    attention = f"input_blocks.{level * (levels[0].resnets + 1) + 1}.1"
    linear = len(section.shape(f"{attention}.proj_in.weight")) == 2
    widths = [level.width for level in levels]
    heads = [section.heads(width, "UNet") for width in widths] if linear else _HEADS
    return {
        "in_channels": section.size("input_blocks.0.0.weight", 1),
        "out_channels": section.size("out.2.weight"),
        "block_out_channels": widths,
        "attention_head_dim": heads,  # diffusers' misnomer
        "cross_attention_dim": section.size(f"{attention}.transformer_blocks.0.attn2.to_k.weight", 1),
        "use_linear_projection": linear,
    }


def _names(levels: list[_Level], mid_depth: int, added: bool) -> Iterator[Names]:
    yield layers(_ENDS)
    if added:
        yield layers(_ADDED_CONDITION)
    resnets = levels[0].resnets
    last = len(levels) - 1
    width = levels[0].width
    for number, level in enumerate(levels):
        for layer in range(resnets):
            block = f"input_blocks.{number * (resnets + 1) + layer + 1}"
            yield _resnet(f"down_blocks.{number}.resnets.{layer}", f"{block}.0", shortcut=width != level.width)
            yield from _transformer(f"down_blocks.{number}.attentions.{layer}", f"{block}.1", level.depth)
            width = level.width
        if number != last:
            block = f"input_blocks.{(number + 1) * (resnets + 1)}"
            yield layers({f"down_blocks.{number}.downsamplers.0.conv": f"{block}.0.op"})
    yield _resnet("mid_block.resnets.0", "middle_block.0", shortcut=False)
    yield from _transformer("mid_block.attentions.0", "middle_block.1", mid_depth)
    yield _resnet("mid_block.resnets.1", "middle_block.2", shortcut=False)
    for number, level in enumerate(reversed(levels)):
        for layer in range(resnets + 1):
            block = f"output_blocks.{number * (resnets + 1) + layer}"
            yield _resnet(f"up_blocks.{number}.resnets.{layer}", f"{block}.0", shortcut=True)
            yield from _transformer(f"up_blocks.{number}.attentions.{layer}", f"{block}.1", level.depth)
        if number != last:
            yield layers({f"up_blocks.{number}.upsamplers.0.conv": f"{block}.{2 if level.depth else 1}.conv"})


def _resnet(ours: str, theirs: str, *, shortcut: bool) -> Names:
    names = layers({f"{ours}.{name}": f"{theirs}.{other}" for name, other in _RESNET.items()})
    if shortcut:
        names |= layers({f"{ours}.conv_shortcut": f"{theirs}.skip_connection"})
    return names


def _transformer(ours: str, theirs: str, depth: int) -> Iterator[Names]:
    """Attention's names are the same on both sides: diffusers began as this very code."""
    if depth:
        yield layers({f"{ours}.{name}": f"{theirs}.{name}" for name in ("norm", "proj_in", "proj_out")})
    for number in range(depth):
        block = f"transformer_blocks.{number}"
        yield layers({f"{ours}.{block}.{name}": f"{theirs}.{block}.{name}" for name in _BLOCK})
        matrices = [f"{block}.attn{which}.{name}" for which in (1, 2) for name in _ATTENTION]
        yield layers_without_bias({f"{ours}.{name}": f"{theirs}.{name}" for name in matrices})
