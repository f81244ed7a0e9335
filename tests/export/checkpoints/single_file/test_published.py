"""Files of the published sizes, without their content: configs and weights are the published ones'."""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import diffusers
import pytest
import torch
import transformers

from latentrt.export.checkpoints.checkpoint import read_checkpoint
from latentrt.export.networks.components_from_checkpoint import components_from_checkpoint
from latentrt.export.networks.skeleton import fitting_weights, skeleton
from latentrt.runtime.errors import CheckpointError

from . import original_layout as original
from .sparse_file import write_sparse

UNET = {
    "in_channels": 4, "out_channels": 4, "layers_per_block": 2, "norm_num_groups": 32, "norm_eps": 1e-5,
    "down_block_types": ["CrossAttnDownBlock2D"] * 3 + ["DownBlock2D"],
    "up_block_types": ["UpBlock2D"] + ["CrossAttnUpBlock2D"] * 3,
    "block_out_channels": [320, 640, 1280, 1280], "transformer_layers_per_block": 1,
    "flip_sin_to_cos": True, "freq_shift": 0, "act_fn": "silu",
}  # fmt: skip
SD1_UNET = {
    **UNET,
    "attention_head_dim": 8,
    "cross_attention_dim": 768,
    "sample_size": 64,
    "use_linear_projection": False,
}
SD2_UNET = {
    **UNET, "attention_head_dim": [5, 10, 20, 20], "cross_attention_dim": 1024, "use_linear_projection": True,
}  # fmt: skip
SDXL_UNET = {
    **UNET, "block_out_channels": [320, 640, 1280], "attention_head_dim": [5, 10, 20], "cross_attention_dim": 2048,
    "down_block_types": ["DownBlock2D", "CrossAttnDownBlock2D", "CrossAttnDownBlock2D"],
    "up_block_types": ["CrossAttnUpBlock2D", "CrossAttnUpBlock2D", "UpBlock2D"],
    "transformer_layers_per_block": [1, 2, 10], "use_linear_projection": True, "addition_embed_type": "text_time",
    "addition_time_embed_dim": 256, "projection_class_embeddings_input_dim": 2816, "sample_size": 128,
}  # fmt: skip
REFINER_UNET = {
    **SDXL_UNET, "block_out_channels": [384, 768, 1536, 1536], "attention_head_dim": [6, 12, 24, 24],
    "cross_attention_dim": 1280, "transformer_layers_per_block": 4, "projection_class_embeddings_input_dim": 2560,
    "down_block_types": ["DownBlock2D", "CrossAttnDownBlock2D", "CrossAttnDownBlock2D", "DownBlock2D"],
    "up_block_types": ["UpBlock2D", "CrossAttnUpBlock2D", "CrossAttnUpBlock2D", "UpBlock2D"],
}  # fmt: skip
SD3_TRANSFORMER = {
    "attention_head_dim": 64, "caption_projection_dim": 1536, "in_channels": 16, "joint_attention_dim": 4096,
    "num_attention_heads": 24, "num_layers": 24, "out_channels": 16, "patch_size": 2, "pooled_projection_dim": 2048,
    "pos_embed_max_size": 192, "sample_size": 128, "dual_attention_layers": [], "qk_norm": None,
}  # fmt: skip
SD35_MEDIUM = {
    **SD3_TRANSFORMER, "pos_embed_max_size": 384, "dual_attention_layers": list(range(13)), "qk_norm": "rms_norm",
}  # fmt: skip
SD35_LARGE = {
    **SD3_TRANSFORMER, "num_layers": 38, "num_attention_heads": 38, "caption_projection_dim": 2432,
    "qk_norm": "rms_norm",
}  # fmt: skip
VAE = {
    "in_channels": 3, "out_channels": 3, "latent_channels": 4, "layers_per_block": 2, "norm_num_groups": 32,
    "block_out_channels": [128, 256, 512, 512], "down_block_types": ["DownEncoderBlock2D"] * 4,
    "up_block_types": ["UpDecoderBlock2D"] * 4, "act_fn": "silu",
}  # fmt: skip
SD3_VAE = {**VAE, "latent_channels": 16, "use_quant_conv": False, "use_post_quant_conv": False,
           "scaling_factor": 1.5305, "shift_factor": 0.0609}  # fmt: skip
CLIP = {"vocab_size": 49408, "max_position_embeddings": 77, "bos_token_id": 0, "eos_token_id": 2, "pad_token_id": 1}
VIT_L = {**CLIP, "hidden_size": 768, "intermediate_size": 3072, "num_hidden_layers": 12, "num_attention_heads": 12,
         "hidden_act": "quick_gelu", "projection_dim": 768}  # fmt: skip
VIT_H = {**CLIP, "hidden_size": 1024, "intermediate_size": 4096, "num_hidden_layers": 23, "num_attention_heads": 16,
         "hidden_act": "gelu", "projection_dim": 512}  # fmt: skip
VIT_BIG_G = {**CLIP, "hidden_size": 1280, "intermediate_size": 5120, "num_hidden_layers": 32, "num_attention_heads": 20,
             "hidden_act": "gelu", "projection_dim": 1280}  # fmt: skip
T5_XXL = {"vocab_size": 32128, "d_model": 4096, "d_kv": 64, "d_ff": 10240, "num_layers": 24, "num_heads": 64,
          "feed_forward_proj": "gated-gelu", "relative_attention_num_buckets": 32}  # fmt: skip


@dataclass(frozen=True)
class Published:
    """A published checkpoint: the config of every network by folder, and parameters where their number is known."""

    configs: dict[str, dict[str, Any]]
    text: dict[str, str]  # text encoder -> prefix in the file
    family: str
    parameters: dict[str, int] = field(default_factory=dict)
    tensors: int | None = None
    metadata: dict[str, str] = field(default_factory=dict)


SD3_TEXT = {
    "text_encoder": "text_encoders.clip_l.transformer.",
    "text_encoder_2": "text_encoders.clip_g.transformer.",
    "text_encoder_3": "text_encoders.t5xxl.transformer.",
}
SD3_ENCODERS = {"text_encoder": VIT_L, "text_encoder_2": VIT_BIG_G, "text_encoder_3": T5_XXL}
VAE_PARAMETERS, VIT_L_PARAMETERS = 83_653_863, 123_060_480

PUBLISHED = {
    "SD 1.5": Published(
        {"unet": SD1_UNET, "vae": {**VAE, "scaling_factor": 0.18215}, "text_encoder": VIT_L},
        {"text_encoder": "cond_stage_model.transformer."},
        "sd1",
        {"unet": 859_520_964, "vae": VAE_PARAMETERS, "text_encoder": VIT_L_PARAMETERS},
    ),
    "SD 1.5 inpainting": Published(
        {"unet": {**SD1_UNET, "in_channels": 9}, "vae": VAE, "text_encoder": VIT_L},
        {"text_encoder": "cond_stage_model.transformer."},
        "sd1",
    ),
    "SD 2.1 base": Published(
        {"unet": {**SD2_UNET, "sample_size": 64}, "vae": {**VAE, "scaling_factor": 0.18215}, "text_encoder": VIT_H},
        {"text_encoder": "cond_stage_model.model."},
        "sd2",
        {"unet": 865_910_724},
    ),
    "SD 2.1": Published(
        {"unet": {**SD2_UNET, "sample_size": 96}, "vae": VAE, "text_encoder": VIT_H},
        {"text_encoder": "cond_stage_model.model."},
        "sd2",
        metadata={"modelspec.prediction_type": "v"},
    ),
    "SDXL": Published(
        {
            "unet": SDXL_UNET,
            "vae": {**VAE, "scaling_factor": 0.13025, "force_upcast": True},
            "text_encoder": VIT_L,
            "text_encoder_2": VIT_BIG_G,
        },
        {"text_encoder": "conditioner.embedders.0.transformer.", "text_encoder_2": "conditioner.embedders.1.model."},
        "sdxl",
        {"unet": 2_567_463_684, "text_encoder_2": 694_659_840},
        tensors=2515,
    ),
    "SDXL refiner": Published(
        {"unet": REFINER_UNET, "vae": {**VAE, "scaling_factor": 0.13025}, "text_encoder_2": VIT_BIG_G},
        {"text_encoder_2": "conditioner.embedders.0.model."},
        "sdxl-refiner",
    ),
    "SD 3 medium": Published({"transformer": SD3_TRANSFORMER, "vae": SD3_VAE, **SD3_ENCODERS}, SD3_TEXT, "sd3"),
    "SD 3.5 medium": Published({"transformer": SD35_MEDIUM, "vae": SD3_VAE, **SD3_ENCODERS}, SD3_TEXT, "sd3"),
    "SD 3.5 large": Published({"transformer": SD35_LARGE, "vae": SD3_VAE, **SD3_ENCODERS}, SD3_TEXT, "sd3"),
}


SLOW = {"SD 3.5 medium": pytest.mark.slow, "SD 3.5 large": pytest.mark.slow}


def network(folder: str, config: Mapping[str, Any], family: str) -> Any:
    """A network of the published size, on the meta device."""
    if folder == "text_encoder_3":
        kind = transformers.T5EncoderModel
    elif folder == "text_encoder_2" or (folder == "text_encoder" and family == "sd3"):
        kind = transformers.CLIPTextModelWithProjection
    else:
        kinds = {"unet": diffusers.UNet2DConditionModel, "transformer": diffusers.SD3Transformer2DModel,
                 "vae": diffusers.AutoencoderKL, "text_encoder": transformers.CLIPTextModel}  # fmt: skip
        kind = kinds[folder]
    return skeleton(kind, dict(config))


def file_of(published: Published) -> original.State:
    """The tensors of its single file, on the meta device."""
    layouts: dict[str, Callable[[Any], original.State]] = {
        "unet": lambda made: original.prefixed("model.diffusion_model.", original.unet(made.state_dict(), made.config)),
        "transformer": lambda made: original.prefixed(
            "model.diffusion_model.", original.mmdit(made.state_dict(), made.config.num_layers)
        ),
        "vae": lambda made: original.prefixed("first_stage_model.", original.vae(made.state_dict(), 4)),
    }
    parts = []
    for folder, config in published.configs.items():
        made = network(folder, config, published.family)
        if folder not in published.text:
            parts.append(layouts[folder](made))
            continue
        prefix, state = published.text[folder], made.state_dict()
        if prefix.endswith(".model."):
            state = original.open_clip(state)
            if published.family == "sd2":  # the layer that diffusers leaves out
                copies = {name.replace("resblocks.22.", "resblocks.23."): state[name] for name in state}
                state |= copies
        elif folder != "text_encoder_3":
            state = original.clip(state)
        parts.append(original.prefixed(prefix, state))
    return original.joined(parts)


@pytest.mark.parametrize("name", [pytest.param(name, marks=SLOW.get(name, ())) for name in PUBLISHED])
def test_a_file_of_the_published_size(name: str, tmp_path: Path) -> None:
    published = PUBLISHED[name]
    state = file_of(published)
    checkpoint = read_checkpoint(write_sparse(tmp_path / "model.safetensors", state, published.metadata))
    assert checkpoint.family.name == published.family
    assert published.tensors in (None, len(state))
    for folder, config in published.configs.items():
        found = checkpoint.configs[folder]
        assert {key: found.get(key) for key in config} == config, folder
    for component in components_from_checkpoint(checkpoint, "fp32"):
        weights = fitting_weights(component.network(), component.weights(), component.where)
        counted = {id(weight): weight for weight in weights.values()}  # T5's embedding has two names
        parameters = sum(torch.Size(weight.shape).numel() for weight in counted.values())
        assert parameters == published.parameters.get(component.folder, parameters), component.name


def test_schedulers_are_the_published_ones(tmp_path: Path) -> None:
    """What diffusers makes of a config that says nothing more than the published ones."""
    schedule = {"beta_start": 0.00085, "beta_end": 0.012, "beta_schedule": "scaled_linear", "steps_offset": 1}
    expected = {
        "SD 1.5": diffusers.PNDMScheduler(**schedule, skip_prk_steps=True),
        "SD 2.1 base": diffusers.PNDMScheduler(**schedule, skip_prk_steps=True),
        "SD 2.1": diffusers.DDIMScheduler(
            **schedule, prediction_type="v_prediction", clip_sample=False, set_alpha_to_one=False
        ),
        "SDXL": diffusers.EulerDiscreteScheduler(**schedule, timestep_spacing="leading"),
        "SDXL refiner": diffusers.EulerDiscreteScheduler(**schedule, timestep_spacing="leading"),
        "SD 3 medium": diffusers.FlowMatchEulerDiscreteScheduler(shift=3.0),
    }  # fmt: skip
    for name, scheduler in expected.items():
        published = PUBLISHED[name]
        path = write_sparse(tmp_path / "model.safetensors", file_of(published), published.metadata)
        config = read_checkpoint(path).scheduler_config
        made, known = (json.loads(it.to_json_string()) for it in (type(scheduler).from_config(dict(config)), scheduler))
        assert config["_class_name"] == type(scheduler).__name__
        assert {key: made[key] for key in known} == known, name


@pytest.mark.parametrize("prefix", ["model.diffusion_model.", ""])
def test_a_denoiser_alone_asks_for_the_rest(prefix: str, tmp_path: Path) -> None:
    state = file_of(PUBLISHED["SDXL"])
    whole = write_sparse(tmp_path / "whole.safetensors", state)
    start = "model.diffusion_model."
    unet = {name.replace(start, prefix): tensor for name, tensor in state.items() if name.startswith(start)}
    alone = write_sparse(tmp_path / "alone.safetensors", unet)
    with pytest.raises(CheckpointError, match="received: no text_encoder and no text_encoder_2 and no vae"):
        read_checkpoint(alone)
    parts = dict.fromkeys(("vae", "text_encoder", "text_encoder_2"), whole)
    assert read_checkpoint(alone, parts).configs == read_checkpoint(whole).configs
