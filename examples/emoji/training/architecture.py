"""The four networks and the scheduler: SDXL's structure, very small. The names of the options are diffusers'."""

from __future__ import annotations

from typing import Any

import torch
from diffusers import UNet2DConditionModel
from transformers import CLIPTextConfig, CLIPTextModel, CLIPTextModelWithProjection

VAE: dict[str, Any] = {
    "in_channels": 3,
    "out_channels": 3,
    "latent_channels": 4,
    "block_out_channels": (32, 48, 64, 96),
    "layers_per_block": 1,
    "down_block_types": ("DownEncoderBlock2D",) * 4,
    "up_block_types": ("UpDecoderBlock2D",) * 4,
    "norm_num_groups": 16,
    "sample_size": 128,
}
SCALING_FACTOR = 0.13025
"""SDXL's. The latents are scaled so that it is one over their standard deviation."""

TEXT_ENCODER: dict[str, Any] = {
    "hidden_size": 32,
    "intermediate_size": 128,
    "num_hidden_layers": 2,
    "num_attention_heads": 2,
    "hidden_act": "quick_gelu",
    "projection_dim": 32,
}
TEXT_ENCODER_2: dict[str, Any] = {
    "hidden_size": 48,
    "intermediate_size": 192,
    "num_hidden_layers": 3,
    "num_attention_heads": 3,
    "hidden_act": "gelu",
    "projection_dim": 48,
}
# These ids are those of the published configurations. eos_token_id 2 makes transformers pool at the largest id of a
# prompt, which is <|endoftext|> in CLIP's vocabulary and in the compact one.
_TEXT_COMMON: dict[str, Any] = {
    "max_position_embeddings": 77,
    "layer_norm_eps": 1e-5,
    "bos_token_id": 0,
    "eos_token_id": 2,
    "pad_token_id": 1,
}
UNET: dict[str, Any] = {
    "sample_size": 16,
    "in_channels": 4,
    "out_channels": 4,
    "block_out_channels": (64, 96, 128),
    "layers_per_block": 1,
    "down_block_types": ("DownBlock2D", "CrossAttnDownBlock2D", "CrossAttnDownBlock2D"),
    "up_block_types": ("CrossAttnUpBlock2D", "CrossAttnUpBlock2D", "UpBlock2D"),
    "transformer_layers_per_block": [1, 1, 1],
    "attention_head_dim": [2, 3, 4],
    "norm_num_groups": 32,
    "use_linear_projection": True,
    "cross_attention_dim": TEXT_ENCODER["hidden_size"] + TEXT_ENCODER_2["hidden_size"],
    "addition_embed_type": "text_time",
    "addition_time_embed_dim": 32,
    "projection_class_embeddings_input_dim": TEXT_ENCODER_2["projection_dim"] + 6 * 32,
}
SCHEDULER: dict[str, Any] = {
    "num_train_timesteps": 1000,
    "beta_start": 0.00085,
    "beta_end": 0.012,
    "beta_schedule": "scaled_linear",
    "prediction_type": "epsilon",
    "timestep_spacing": "leading",
    "steps_offset": 1,
    "interpolation_type": "linear",
    "use_karras_sigmas": False,
}


def text_encoder(vocabulary_size: int) -> CLIPTextModel:
    """The first text encoder, with random weights."""
    return CLIPTextModel(CLIPTextConfig(vocab_size=vocabulary_size, **TEXT_ENCODER, **_TEXT_COMMON))


def text_encoder_2(vocabulary_size: int) -> CLIPTextModelWithProjection:
    """The second text encoder, with random weights."""
    return CLIPTextModelWithProjection(CLIPTextConfig(vocab_size=vocabulary_size, **TEXT_ENCODER_2, **_TEXT_COMMON))


def diffusion_models(vocabulary_size: int) -> torch.nn.ModuleDict:
    """`unet`, `text_encoder` and `text_encoder_2`, with random weights."""
    first, second = text_encoder(vocabulary_size), text_encoder_2(vocabulary_size)
    for encoder in (first, second):
        encoder.get_input_embeddings().weight.data.mul_(5)  # wider than CLIP's 0.02: few rows and little time
    return torch.nn.ModuleDict({"unet": UNet2DConditionModel(**UNET), "text_encoder": first, "text_encoder_2": second})


def encode_text(models: torch.nn.ModuleDict, ids: list[torch.Tensor]) -> tuple[torch.Tensor, torch.Tensor]:
    """Token ids of both encoders, [rows, 77] each -> context [rows, 77, 80] and pooled projection [rows, 48]."""
    first = models["text_encoder"](ids[0], output_hidden_states=True)
    second = models["text_encoder_2"](ids[1], output_hidden_states=True)
    return torch.cat([first.hidden_states[-2], second.hidden_states[-2]], -1), second.text_embeds
