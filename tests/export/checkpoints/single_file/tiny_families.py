"""Untrained checkpoints of every family, small and by the rules that single files rely on: 32 channels in a group of
normalization, 64 in an attention head (8 heads in SD1). Each is saved twice: as a diffusers folder and as one file."""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import diffusers
import torch
import transformers
from safetensors.torch import save_file
from torch import nn

from . import original_layout as original

VOCABULARY = 120
_TEXT = {"max_position_embeddings": 77, "bos_token_id": 0, "eos_token_id": 2, "pad_token_id": 1}
_NOISE = {
    "beta_start": 0.00085, "beta_end": 0.012, "beta_schedule": "scaled_linear", "num_train_timesteps": 1000,
    "prediction_type": "epsilon", "steps_offset": 1, "timestep_spacing": "leading",
}  # fmt: skip


@dataclass(frozen=True)
class Tiny:
    """A family's networks by folder, what else a folder has, and how its tensors are named in one file."""

    pipeline: str
    networks: dict[str, nn.Module]
    scheduler: dict[str, Any]
    to_file: Callable[[Mapping[str, nn.Module]], original.State]

    def state(self) -> original.State:
        """The tensors of a single file."""
        return self.to_file(self.networks)

    def save(self, root: Path, metadata: dict[str, str] | None = None) -> tuple[Path, Path]:
        """Write ``folder`` and ``model.safetensors`` under ``root``."""
        folder, file = root / "folder", root / "model.safetensors"
        for name, network in self.networks.items():
            network.save_pretrained(folder / name)
        (folder / "scheduler").mkdir()
        (folder / "scheduler" / "scheduler_config.json").write_text(json.dumps(self.scheduler))
        index = {name: [type(network).__module__.partition(".")[0], type(network).__name__]
                 for name, network in self.networks.items()}  # fmt: skip
        (folder / "model_index.json").write_text(json.dumps({"_class_name": self.pipeline, **index}))
        save_file(self.state(), file, metadata)
        return folder, file


def make(family: str, vocabulary: int = VOCABULARY) -> Tiny:
    """An untrained checkpoint of ``family`` with a shape and a number format of its own."""
    torch.manual_seed(3)
    tiny = FAMILIES[family](vocabulary)
    for network in tiny.networks.values():
        with torch.no_grad():
            for parameter in network.parameters():  # nothing that is equal in two places by its initialization
                parameter.add_(torch.randn_like(parameter) * 0.02)
        network.to(DTYPES.get(family, torch.float32))
    if "transformer" in tiny.networks:  # SD3 uses CLIP ViT-L without its projection
        nn.init.eye_(tiny.networks["text_encoder"].text_projection.weight)
    return tiny


def _unet(widths: tuple[int, ...], depths: tuple[int, ...], **config: Any) -> nn.Module:
    down = tuple("CrossAttnDownBlock2D" if depth else "DownBlock2D" for depth in depths)
    up = tuple("CrossAttnUpBlock2D" if depth else "UpBlock2D" for depth in reversed(depths))
    layers = max(depths) if len({depth for depth in depths if depth}) == 1 else tuple(max(depth, 1) for depth in depths)
    config.setdefault("attention_head_dim", [width // 64 for width in widths])
    config.setdefault("transformer_layers_per_block", layers)
    return diffusers.UNet2DConditionModel(
        block_out_channels=widths, down_block_types=down, up_block_types=up, norm_num_groups=32, **config
    )


def _vae(widths: tuple[int, ...], **config: Any) -> nn.Module:
    levels = len(widths)
    return diffusers.AutoencoderKL(
        block_out_channels=widths, down_block_types=("DownEncoderBlock2D",) * levels,
        up_block_types=("UpDecoderBlock2D",) * levels, norm_num_groups=32, **config,
    )  # fmt: skip


def _text(kind: Any, width: int, layers: int, vocabulary: int, **config: Any) -> nn.Module:
    return kind(
        transformers.CLIPTextConfig(
            vocab_size=vocabulary, hidden_size=width, num_hidden_layers=layers, num_attention_heads=width // 64,
            **{"intermediate_size": 2 * width, "hidden_act": "gelu", **_TEXT, **config},
        )
    )  # fmt: skip


def _first_clip(vocabulary: int) -> nn.Module:
    return _text(transformers.CLIPTextModel, 64, 2, vocabulary, hidden_act="quick_gelu", projection_dim=768)


def _big_clip(vocabulary: int) -> nn.Module:
    return _text(transformers.CLIPTextModelWithProjection, 128, 3, vocabulary, projection_dim=96)


def _file_of(
    *, unet: str = "model.diffusion_model.", vae: str = "first_stage_model.", **text: tuple[str, str]
) -> Callable[[Mapping[str, nn.Module]], original.State]:
    """What puts a UNet, an autoencoder and text encoders, each with ``(prefix, layout)``, in one file."""
    layouts: dict[str, Callable[[Any], original.State]] = {"clip": original.clip, "open_clip": original.open_clip}

    def to_file(networks: Mapping[str, nn.Module]) -> original.State:
        states = {name: network.state_dict() for name, network in networks.items()}
        return original.joined(
            [
                original.prefixed(unet, original.unet(states["unet"], networks["unet"].config)),
                original.prefixed(vae, original.vae(states["vae"], len(networks["vae"].config.block_out_channels))),
                *(original.prefixed(prefix, layouts[kind](states[name])) for name, (prefix, kind) in text.items()),
                {"alphas_cumprod": torch.ones(4), "model_ema.decay": torch.tensor(0.9)},
            ]
        )

    return to_file


def _sd1(vocabulary: int) -> Tiny:
    unet = _unet((32, 64), (1, 0), layers_per_block=2, cross_attention_dim=64, attention_head_dim=8, sample_size=64)
    return Tiny(
        "StableDiffusionPipeline",
        {"unet": unet, "vae": _vae((32, 64), scaling_factor=0.18215, sample_size=512),
         "text_encoder": _first_clip(vocabulary)},
        {"_class_name": "PNDMScheduler", **_NOISE, "skip_prk_steps": True, "set_alpha_to_one": False},
        _file_of(text_encoder=("cond_stage_model.transformer.", "clip")),
    )  # fmt: skip


def _sd2(vocabulary: int) -> Tiny:
    unet = _unet((64, 128), (1, 1), layers_per_block=1, cross_attention_dim=128, use_linear_projection=True,
                 upcast_attention=True, sample_size=64)  # fmt: skip
    text = _text(transformers.CLIPTextModel, 128, 2, vocabulary, projection_dim=512)
    whole = _file_of(text_encoder=("cond_stage_model.model.", "open_clip"))

    def to_file(networks: Mapping[str, nn.Module]) -> original.State:
        """With OpenCLIP's last layer and its projection, which SD2 does not use."""
        state, layers = whole(networks), "cond_stage_model.model.transformer.resblocks"
        last = {name: tensor for name, tensor in state.items() if name.startswith(f"{layers}.1.")}
        state |= {name.replace(f"{layers}.1.", f"{layers}.2."): tensor + 1 for name, tensor in last.items()}
        return state | {"cond_stage_model.model.text_projection": torch.ones(128, 128)}

    return Tiny(
        "StableDiffusionPipeline",
        {"unet": unet, "vae": _vae((32, 64), scaling_factor=0.18215, sample_size=512), "text_encoder": text},
        {"_class_name": "PNDMScheduler", **_NOISE, "skip_prk_steps": True, "set_alpha_to_one": False},
        to_file,
    )


def _sdxl(vocabulary: int) -> Tiny:
    unet = _unet((64, 64, 128), (0, 1, 2), layers_per_block=1, cross_attention_dim=192, use_linear_projection=True,
                 addition_embed_type="text_time", addition_time_embed_dim=8,
                 projection_class_embeddings_input_dim=96 + 6 * 8, sample_size=128)  # fmt: skip
    return Tiny(
        "StableDiffusionXLPipeline",
        {"unet": unet, "vae": _vae((32, 64, 64), scaling_factor=0.13025, sample_size=1024, force_upcast=True),
         "text_encoder": _first_clip(vocabulary), "text_encoder_2": _big_clip(vocabulary)},
        {"_class_name": "EulerDiscreteScheduler", **_NOISE},
        _file_of(text_encoder=("conditioner.embedders.0.transformer.", "clip"),
                 text_encoder_2=("conditioner.embedders.1.model.", "open_clip")),
    )  # fmt: skip


def _refiner(vocabulary: int) -> Tiny:
    unet = _unet((64, 64, 128, 128), (0, 2, 2, 0), layers_per_block=1, cross_attention_dim=128,
                 transformer_layers_per_block=2, use_linear_projection=True, addition_embed_type="text_time",
                 addition_time_embed_dim=8, projection_class_embeddings_input_dim=96 + 5 * 8,
                 sample_size=128)  # fmt: skip
    return Tiny(
        "StableDiffusionXLImg2ImgPipeline",
        {"unet": unet, "vae": _vae((32, 64), scaling_factor=0.13025, sample_size=1024, force_upcast=True),
         "text_encoder_2": _big_clip(vocabulary)},
        {"_class_name": "EulerDiscreteScheduler", **_NOISE},
        _file_of(text_encoder_2=("conditioner.embedders.0.model.", "open_clip")),
    )  # fmt: skip


def _sd3(vocabulary: int, **config: Any) -> Tiny:
    transformer = diffusers.SD3Transformer2DModel(
        sample_size=128, patch_size=2, in_channels=8, out_channels=8, num_layers=3, attention_head_dim=64,
        num_attention_heads=2, caption_projection_dim=128, joint_attention_dim=192, pooled_projection_dim=64 + 96,
        pos_embed_max_size=12, **config,
    )  # fmt: skip
    first = _text(
        transformers.CLIPTextModelWithProjection, 64, 2, vocabulary, hidden_act="quick_gelu", projection_dim=64
    )
    t5 = transformers.T5EncoderModel(
        transformers.T5Config(
            vocab_size=vocabulary, d_model=192, d_kv=64, d_ff=256, num_layers=2, num_heads=2,
            feed_forward_proj="gated-gelu", tie_word_embeddings=False, is_encoder_decoder=True,
            decoder_start_token_id=0,
        )
    )  # fmt: skip

    def to_file(networks: Mapping[str, nn.Module]) -> original.State:
        states = {name: network.state_dict() for name, network in networks.items()}
        clip_l = original.clip(states["text_encoder"])
        del clip_l["text_projection.weight"]  # the identity, which files do not hold
        return original.joined(
            [
                original.prefixed("model.diffusion_model.", original.mmdit(states["transformer"], 3)),
                original.prefixed("first_stage_model.", original.vae(states["vae"], 2)),
                original.prefixed("text_encoders.clip_l.transformer.", clip_l),
                original.prefixed("text_encoders.clip_g.transformer.", original.clip(states["text_encoder_2"])),
                {"text_encoders.clip_l.logit_scale": torch.tensor(4.6)},
                *(
                    original.prefixed("text_encoders.t5xxl.transformer.", {name: tensor})
                    for name, tensor in states.get("text_encoder_3", {}).items()
                    if name != "encoder.embed_tokens.weight"  # the same as shared.weight
                ),
            ]
        )

    vae = _vae((32, 64), latent_channels=8, scaling_factor=1.5305, shift_factor=0.0609, sample_size=1024,
               force_upcast=True, use_quant_conv=False, use_post_quant_conv=False)  # fmt: skip
    networks = {"transformer": transformer, "vae": vae, "text_encoder": first,
                "text_encoder_2": _big_clip(vocabulary), "text_encoder_3": t5}  # fmt: skip
    scheduler = {"_class_name": "FlowMatchEulerDiscreteScheduler", "num_train_timesteps": 1000, "shift": 3.0}
    return Tiny("StableDiffusion3Pipeline", networks, scheduler, to_file)


FAMILIES: dict[str, Callable[[int], Tiny]] = {
    "sd1": _sd1,
    "sd2": _sd2,
    "sdxl": _sdxl,
    "sdxl-refiner": _refiner,
    "sd3": _sd3,
    "sd3.5": lambda vocabulary: _sd3(vocabulary, qk_norm="rms_norm", dual_attention_layers=(0, 1)),
}

DTYPES = {"sdxl": torch.float16, "sd3": torch.bfloat16}
