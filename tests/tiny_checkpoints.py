"""Untrained checkpoints of every family, small and with dimensions that no real one has, from diffusers' classes."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import diffusers
import torch
import transformers

EMOJI = Path(__file__).parents[1] / "examples" / "emoji"

BETAS: dict[str, Any] = {"beta_start": 0.00085, "beta_end": 0.012, "beta_schedule": "scaled_linear"}


def save_sd1(path: Path, *, in_channels: int = 4, guidance_embedding: bool = False) -> None:
    """Stable Diffusion 1: one CLIP encoder, whose last hidden state is used."""
    unet = _unet(
        cross_attention_dim=20, attention_head_dim=2, in_channels=in_channels,
        time_cond_proj_dim=10 if guidance_embedding else None,
    )  # fmt: skip
    _save_sd(path, unet, _clip(20, 4, layers=2), "tokenizer", _euler())


def save_sd2(path: Path, *, in_channels: int = 4) -> None:
    """Stable Diffusion 2: linear projections, a padding token of its own, and predictions of velocity."""
    unet = _unet(
        cross_attention_dim=28, attention_head_dim=[2, 4], in_channels=in_channels, use_linear_projection=True,
        upcast_attention=True,
    )  # fmt: skip
    scheduler = diffusers.DDIMScheduler(
        **BETAS, prediction_type="v_prediction", timestep_spacing="trailing", rescale_betas_zero_snr=True,
        clip_sample=False, set_alpha_to_one=False, steps_offset=1,
    )  # fmt: skip
    _save_sd(path, unet, _clip(28, 2, layers=3, hidden_act="gelu"), "tokenizer_2", scheduler)


def save_sdxl(path: Path) -> None:
    """SDXL as nobody has made it: for inpainting, and distilled so that it takes its guidance scale as an input."""
    unet = _unet(
        cross_attention_dim=38, attention_head_dim=2, in_channels=9, use_linear_projection=True, time_cond_proj_dim=14,
        addition_embed_type="text_time", addition_time_embed_dim=6, projection_class_embeddings_input_dim=26 + 6 * 6,
    )  # fmt: skip
    pipe = diffusers.StableDiffusionXLPipeline(
        vae=_vae(), text_encoder=_clip(18, 3, layers=2), text_encoder_2=_clip(20, 4, layers=2, projection=26),
        unet=unet, tokenizer=_clip_tokenizer("tokenizer"), tokenizer_2=_clip_tokenizer("tokenizer_2"),
        scheduler=diffusers.LCMScheduler(**BETAS), add_watermarker=False,
    )  # fmt: skip
    pipe.save_pretrained(path)


def save_refiner(path: Path) -> None:
    """SDXL's refiner: one encoder, and a score among the numbers of its size conditioning."""
    unet = _unet(
        cross_attention_dim=40, attention_head_dim=2, use_linear_projection=True, addition_embed_type="text_time",
        addition_time_embed_dim=6, projection_class_embeddings_input_dim=28 + 5 * 6,
    )  # fmt: skip
    pipe = diffusers.StableDiffusionXLImg2ImgPipeline(
        vae=_vae(), text_encoder=None, text_encoder_2=_clip(40, 4, layers=2, projection=28), unet=unet,
        tokenizer=None, tokenizer_2=_clip_tokenizer("tokenizer_2"), scheduler=_euler(),
        requires_aesthetics_score=True, force_zeros_for_empty_prompt=False, add_watermarker=False,
    )  # fmt: skip
    pipe.save_pretrained(path)


def save_sd3(path: Path, *, t5: bool = True) -> None:
    """Stable Diffusion 3: three encoders, 16 channels with a shift, normalized queries and a dual attention block."""
    torch.manual_seed(16)
    transformer = diffusers.SD3Transformer2DModel(
        sample_size=12, patch_size=2, in_channels=16, out_channels=16, num_layers=3, attention_head_dim=8,
        num_attention_heads=3, joint_attention_dim=36, caption_projection_dim=24, pooled_projection_dim=26,
        pos_embed_max_size=11, dual_attention_layers=(0,), qk_norm="rms_norm",
    )  # fmt: skip
    vae = _vae(
        latent_channels=16, scaling_factor=1.5, shift_factor=0.06, use_quant_conv=False, use_post_quant_conv=False
    )
    pipe = diffusers.StableDiffusion3Pipeline(
        transformer=transformer, vae=vae,
        scheduler=diffusers.FlowMatchEulerDiscreteScheduler(shift=3.0),
        text_encoder=_clip(16, 2, layers=2, projection=12), tokenizer=_clip_tokenizer("tokenizer"),
        text_encoder_2=_clip(18, 3, layers=3, projection=14, hidden_act="gelu"),
        tokenizer_2=_clip_tokenizer("tokenizer_2"),
        text_encoder_3=_t5() if t5 else None, tokenizer_3=t5_tokenizer() if t5 else None,
    )  # fmt: skip
    pipe.save_pretrained(path)


#: Family, or a variant of one -> what saves its checkpoint.
CHECKPOINTS: dict[str, Callable[[Path], None]] = {
    "sd1": save_sd1,
    "sd1-inpainting": lambda path: save_sd1(path, in_channels=9),
    "sd1-edit": lambda path: save_sd1(path, in_channels=8),
    "sd1-lcm": lambda path: save_sd1(path, guidance_embedding=True),
    "sd2": save_sd2,
    "sd2-depth": lambda path: save_sd2(path, in_channels=5),
    "sdxl-lcm-inpainting": save_sdxl,
    "sdxl-refiner": save_refiner,
    "sd3": save_sd3,
    "sd3-without-t5": lambda path: save_sd3(path, t5=False),
}


# --- parts ------------------------------------------------------------------------------------------------------------


def save_vae(path: Path, **settings: Any) -> None:
    """Another autoencoder for ``sd1``, or with other settings for no family."""
    _vae(seed=15, **settings).save_pretrained(path)


def save_tiny_vae(path: Path, **settings: Any) -> None:
    """A tiny autoencoder for ``sd1``, or with other settings for no family."""
    torch.manual_seed(17)
    defaults: dict[str, Any] = {
        "encoder_block_out_channels": (6, 6), "decoder_block_out_channels": (6, 6), "num_encoder_blocks": (1, 1),
        "num_decoder_blocks": (1, 1), "scaling_factor": 1.25,
    }  # fmt: skip
    diffusers.AutoencoderTiny(**{**defaults, **settings}).save_pretrained(path)


def t5_tokenizer() -> Any:
    """Unigrams over a few words, letters and the space mark, in T5's order of ids."""
    words = ["a", "rocket", "red", "fox", "on", "blue", "background", "house", "owl"]
    letters = list("abcdefghijklmnopqrstuvwxyz0123456789,.!?-")
    pieces: list[tuple[str, float]] = [("<pad>", 0.0), ("</s>", 0.0), ("<unk>", 0.0), ("▁", -2.0)]
    pieces += [(f"▁{word}", -3.0 - index / 8) for index, word in enumerate(words)]
    pieces += [(letter, -6.0 - index / 8) for index, letter in enumerate(letters)]
    pieces += [(f"<extra_id_{index}>", 0.0) for index in reversed(range(100))]
    return transformers.T5TokenizerFast(vocab=pieces)


# Each part has a seed of its own, so that checkpoints which differ in one part have all others in common, and their
# bundles are built from one another's.


def _t5() -> Any:
    torch.manual_seed(11)
    config = transformers.T5Config(
        vocab_size=160, d_model=36, d_kv=6, d_ff=20, num_layers=2, num_heads=3, feed_forward_proj="gated-gelu",
        relative_attention_num_buckets=8, is_encoder_decoder=False, use_cache=False,
    )  # fmt: skip
    return transformers.T5EncoderModel(config).eval()


def _clip(width: int, heads: int, *, layers: int, projection: int | None = None, hidden_act: str = "quick_gelu") -> Any:
    config = transformers.CLIPTextConfig(
        vocab_size=49408, max_position_embeddings=77, hidden_size=width, intermediate_size=2 * width + 2,
        num_hidden_layers=layers, num_attention_heads=heads, projection_dim=projection or width, hidden_act=hidden_act,
        bos_token_id=0, eos_token_id=2, pad_token_id=1,
    )  # fmt: skip
    torch.manual_seed(12)
    kind = transformers.CLIPTextModel if projection is None else transformers.CLIPTextModelWithProjection
    return kind(config).eval()


def _clip_tokenizer(folder: str) -> Any:
    return transformers.CLIPTokenizer.from_pretrained(EMOJI / folder)


def _unet(**settings: Any) -> Any:
    """One level with attention and one without: the least that has every kind of block."""
    defaults: dict[str, Any] = {
        "sample_size": 12, "out_channels": 4, "block_out_channels": (8, 16), "layers_per_block": 1,
        "down_block_types": ("CrossAttnDownBlock2D", "DownBlock2D"), "norm_num_groups": 4,
        "up_block_types": ("UpBlock2D", "CrossAttnUpBlock2D"),
    }  # fmt: skip
    torch.manual_seed(13)
    return diffusers.UNet2DConditionModel(**defaults, **{"in_channels": 4, **settings})


def _vae(*, seed: int = 14, **settings: Any) -> Any:
    defaults: dict[str, Any] = {
        "block_out_channels": (8, 12), "down_block_types": ("DownEncoderBlock2D",) * 2, "norm_num_groups": 4,
        "up_block_types": ("UpDecoderBlock2D",) * 2, "latent_channels": 4, "scaling_factor": 0.2, "sample_size": 24,
    }  # fmt: skip
    torch.manual_seed(seed)
    return diffusers.AutoencoderKL(**{**defaults, **settings})


def _euler() -> Any:
    """Linear spacing starts at the highest noise level, so that unit noise is the start in every pipeline."""
    return diffusers.EulerDiscreteScheduler(**BETAS, timestep_spacing="linspace", steps_offset=1)


def _save_sd(path: Path, unet: Any, text_encoder: Any, tokenizer: str, scheduler: Any) -> None:
    pipe = diffusers.StableDiffusionPipeline(
        vae=_vae(), text_encoder=text_encoder, tokenizer=_clip_tokenizer(tokenizer), unet=unet, scheduler=scheduler,
        safety_checker=None, feature_extractor=None, requires_safety_checker=False,
    )  # fmt: skip
    pipe.save_pretrained(path)
