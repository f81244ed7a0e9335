"""From diffusers' layout to the original one: the way back, written after the published scripts' rules, not after ours.

State dicts in, state dicts out; meta tensors are welcome.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping
from typing import Any

import torch

State = dict[str, torch.Tensor]

_UNET_RESNET = [
    ("norm1", "in_layers.0"), ("conv1", "in_layers.2"), ("norm2", "out_layers.0"), ("conv2", "out_layers.3"),
    ("time_emb_proj", "emb_layers.1"), ("conv_shortcut", "skip_connection"),
]  # fmt: skip
_UNET_ENDS = [
    ("time_embedding.linear_1", "time_embed.0"), ("time_embedding.linear_2", "time_embed.2"),
    ("add_embedding.linear_1", "label_emb.0.0"), ("add_embedding.linear_2", "label_emb.0.2"),
    ("conv_in", "input_blocks.0.0"), ("conv_norm_out", "out.0"), ("conv_out", "out.2"),
]  # fmt: skip


def unet(state: Mapping[str, torch.Tensor], config: Mapping[str, Any]) -> State:
    """A UNet with the names of LDM's ``openaimodel``."""
    step = config["layers_per_block"] + 1
    attentive = ["CrossAttn" in kind for kind in config["up_block_types"]]

    def block(match: re.Match[str]) -> str:
        side, level, kind, layer, rest = match[1], int(match[2]), match[3], int(match[4]), match[5]
        if side == "down":
            index, slot = level * step + layer + 1, {"resnets": "0.", "attentions": "1.", "downsamplers": "0."}[kind]
            if kind == "downsamplers":
                return f"input_blocks.{(level + 1) * step}.0.{rest.replace('conv', 'op')}"
            return f"input_blocks.{index}.{slot}{rest}"
        if kind == "upsamplers":
            return f"output_blocks.{(level + 1) * step - 1}.{1 + attentive[level]}.{rest}"
        return f"output_blocks.{level * step + layer}.{0 if kind == 'resnets' else 1}.{rest}"

    out = {}
    for name, tensor in state.items():
        new = name
        if ".resnets." in name:
            for ours, theirs in _UNET_RESNET:
                new = new.replace(f".{ours}.", f".{theirs}.")
        elif "blocks." not in name:
            for ours, theirs in _UNET_ENDS:
                new = re.sub(rf"^{re.escape(ours)}\.", f"{theirs}.", new)
        new = re.sub(r"^(down|up)_blocks\.(\d+)\.(\w+)\.(\d+)\.(.*)$", block, new)
        new = new.replace("mid_block.attentions.0.", "middle_block.1.")
        new = re.sub(r"^mid_block\.resnets\.(\d)\.", lambda match: f"middle_block.{2 * int(match[1])}.", new)
        out[new] = tensor
    return out


def vae(state: Mapping[str, torch.Tensor], levels: int) -> State:
    """An autoencoder with the names of LDM's; attention's projections become 1x1 convolutions."""
    out = {}
    for name, tensor in state.items():
        new = name.replace("conv_norm_out", "norm_out").replace("conv_shortcut", "nin_shortcut")
        new = re.sub(r"down_blocks\.(\d+)\.resnets", r"down.\1.block", new)
        new = re.sub(r"down_blocks\.(\d+)\.downsamplers\.0", r"down.\1.downsample", new)
        new = re.sub(r"up_blocks\.(\d+)\.resnets", lambda match: f"up.{levels - 1 - int(match[1])}.block", new)
        new = re.sub(r"up_blocks\.(\d+)\.upsamplers\.0", lambda match: f"up.{levels - 1 - int(match[1])}.upsample", new)
        new = re.sub(r"mid_block\.resnets\.(\d)", lambda match: f"mid.block_{int(match[1]) + 1}", new)
        if "mid_block.attentions.0." in new:
            new = new.replace("mid_block.attentions.0.", "mid.attn_1.").replace("group_norm", "norm")
            new = new.replace("to_out.0", "proj_out")
            new = re.sub(r"to_([qkv])", r"\1", new)
            tensor = tensor[:, :, None, None] if tensor.ndim == 2 else tensor
        out[new] = tensor
    return out


def open_clip(state: Mapping[str, torch.Tensor]) -> State:
    """A CLIP text model with OpenCLIP's names: one matrix for queries, keys and values, the projection transposed."""
    state = {name.removeprefix("text_model."): tensor for name, tensor in state.items()}
    out = {
        "positional_embedding": state.pop("embeddings.position_embedding.weight"),
        "token_embedding.weight": state.pop("embeddings.token_embedding.weight"),
        "logit_scale": torch.tensor(4.6),
    }
    if "text_projection.weight" in state:
        out["text_projection"] = state.pop("text_projection.weight").T.contiguous()
    for name, tensor in state.items():
        parts = re.fullmatch(r"encoder\.layers\.(\d+)\.self_attn\.([qkv])_proj\.(\w+)", name)
        if parts is None:
            new = name.replace("encoder.layers.", "transformer.resblocks.").replace("final_layer_norm", "ln_final")
            for ours, theirs in (("layer_norm", "ln_"), ("fc1", "c_fc"), ("fc2", "c_proj"), ("self_attn.", "attn.")):
                new = new.replace(ours, theirs)
            out[new] = tensor
        elif parts[2] == "q":
            joined = [state[name.replace("q_proj", f"{kind}_proj")] for kind in "qkv"]
            out[f"transformer.resblocks.{parts[1]}.attn.in_proj_{parts[3]}"] = torch.cat(joined)
    return out


def clip(state: Mapping[str, torch.Tensor]) -> State:
    """A CLIP text model as transformers had it when the files were made, with its constant position ids."""
    named = {
        name if name.startswith(("text_model.", "text_projection.")) else f"text_model.{name}": tensor
        for name, tensor in state.items()
    }
    return {**named, "text_model.embeddings.position_ids": torch.arange(77)[None]}


def mmdit(state: Mapping[str, torch.Tensor], layers: int) -> State:
    """SD3's transformer with the names of the reference implementation."""
    ends = [
        ("pos_embed.proj", "x_embedder.proj"), ("pos_embed.pos_embed", "pos_embed"), ("proj_out", "final_layer.linear"),
        ("time_text_embed.timestep_embedder.linear_1", "t_embedder.mlp.0"),
        ("time_text_embed.timestep_embedder.linear_2", "t_embedder.mlp.2"),
        ("time_text_embed.text_embedder.linear_1", "y_embedder.mlp.0"),
        ("time_text_embed.text_embedder.linear_2", "y_embedder.mlp.2"),
        ("context_embedder", "context_embedder"), ("norm_out.linear", "final_layer.adaLN_modulation.1"),
    ]  # fmt: skip
    inside = [
        ("attn.to_out.0", "x_block.attn.proj"), ("attn2.to_out.0", "x_block.attn2.proj"),
        ("attn.to_add_out", "context_block.attn.proj"),
        ("attn.norm_q", "x_block.attn.ln_q"), ("attn.norm_k", "x_block.attn.ln_k"),
        ("attn2.norm_q", "x_block.attn2.ln_q"), ("attn2.norm_k", "x_block.attn2.ln_k"),
        ("attn.norm_added_q", "context_block.attn.ln_q"), ("attn.norm_added_k", "context_block.attn.ln_k"),
        ("norm1.linear", "x_block.adaLN_modulation.1"), ("norm1_context.linear", "context_block.adaLN_modulation.1"),
        ("ff.net.0.proj", "x_block.mlp.fc1"), ("ff.net.2", "x_block.mlp.fc2"),
        ("ff_context.net.0.proj", "context_block.mlp.fc1"), ("ff_context.net.2", "context_block.mlp.fc2"),
    ]  # fmt: skip
    joined = {
        "attn.to_q": ("x_block.attn.qkv", ("attn.to_q", "attn.to_k", "attn.to_v")),
        "attn2.to_q": ("x_block.attn2.qkv", ("attn2.to_q", "attn2.to_k", "attn2.to_v")),
        "attn.add_q_proj": ("context_block.attn.qkv", ("attn.add_q_proj", "attn.add_k_proj", "attn.add_v_proj")),
    }
    out = {}
    for ours, theirs in ends:
        for name in _with_ending(state, ours):
            swap = ours == "norm_out.linear"
            out[name.replace(ours, theirs)] = _swapped(state[name]) if swap else state[name]
    for layer in range(layers):
        ours_in, theirs_in = f"transformer_blocks.{layer}.", f"joint_blocks.{layer}."
        for ours, theirs in inside:
            for name in _with_ending(state, ours_in + ours):
                swap = ours == "norm1_context.linear" and layer == layers - 1
                new = name.replace(ours_in + ours, theirs_in + theirs)
                out[new] = _swapped(state[name]) if swap else state[name]
        for first, (theirs, parts) in joined.items():
            for name in _with_ending(state, ours_in + first):
                kind = name.rpartition(".")[2]
                whole = torch.cat([state[f"{ours_in}{part}.{kind}"] for part in parts])
                out[f"{theirs_in}{theirs}.{kind}"] = whole
    return out


def _with_ending(state: Mapping[str, torch.Tensor], layer: str) -> list[str]:
    return [name for name in (layer, f"{layer}.weight", f"{layer}.bias") if name in state]


def _swapped(tensor: torch.Tensor) -> torch.Tensor:
    scale, shift = tensor.chunk(2)
    return torch.cat([shift, scale])


def prefixed(prefix: str, state: Mapping[str, torch.Tensor]) -> State:
    """The same under longer names."""
    return {prefix + name: tensor for name, tensor in state.items()}


def joined(parts: Iterable[Mapping[str, torch.Tensor]]) -> State:
    """One state dict of several, whose tensors a safetensors file can hold."""
    return {name: tensor.contiguous() for part in parts for name, tensor in part.items()}
