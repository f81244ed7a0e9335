"""The published models that GPUs are measured with: what their configs say, and the call that figures are known for.

The templates of ``export.single_file`` hold what weights do not tell; the sizes here are what they would.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from ..export.checkpoints.single_file.templates import read_template

Config = dict[str, Any]


@dataclass(frozen=True)
class Published:
    """A model: a template of its family, the sizes of its networks by folder, CLIP's tokenizers and the token that each
    fills up prompts with, and the call: pictures of ``side`` by ``side`` pixels, steps, guidance. One that
    has a ``variant`` is measured only if it is named."""

    family: str
    title: str
    sizes: dict[str, Config]
    tokenizers: dict[str, str]
    side: int
    steps: int
    guidance_scale: float
    variant: str = ""

    @property
    def name(self) -> str:
        """The name that it is asked for by, and that of its folders."""
        return f"{self.family}-{self.variant}" if self.variant else self.family

    def model_index(self) -> Config:
        """``model_index.json`` without its components."""
        return read_template(self.family)["model_index"]

    def scheduler(self) -> Config:
        """The scheduler's config."""
        return read_template(self.family)["scheduler"]

    def config(self, folder: str) -> Config:
        """The whole config of a network."""
        return {**read_template(self.family)[folder], **self.sizes[folder]}


_CROSS_DOWN, _CROSS_UP = "CrossAttnDownBlock2D", "CrossAttnUpBlock2D"
_UNET = {"in_channels": 4, "out_channels": 4, "layers_per_block": 2}
_SD1_UNET = {
    **_UNET, "cross_attention_dim": 768, "attention_head_dim": 8, "block_out_channels": [320, 640, 1280, 1280],
    "down_block_types": [*[_CROSS_DOWN] * 3, "DownBlock2D"], "up_block_types": ["UpBlock2D", *[_CROSS_UP] * 3],
}  # fmt: skip
_SDXL_UNET = {
    **_UNET, "cross_attention_dim": 2048, "attention_head_dim": [5, 10, 20], "block_out_channels": [320, 640, 1280],
    "down_block_types": ["DownBlock2D", *[_CROSS_DOWN] * 2], "up_block_types": [*[_CROSS_UP] * 2, "UpBlock2D"],
    "transformer_layers_per_block": [1, 2, 10], "use_linear_projection": True, "addition_embed_type": "text_time",
    "projection_class_embeddings_input_dim": 2816,
}  # fmt: skip
_SD3_TRANSFORMER = {
    "in_channels": 16, "out_channels": 16, "patch_size": 2, "num_layers": 24, "num_attention_heads": 24,
    "attention_head_dim": 64, "caption_projection_dim": 1536, "joint_attention_dim": 4096,
    "pooled_projection_dim": 2048, "pos_embed_max_size": 192,
}  # fmt: skip
_VAE = {
    "in_channels": 3, "out_channels": 3, "latent_channels": 4, "layers_per_block": 2,
    "block_out_channels": [128, 256, 512, 512], "down_block_types": ["DownEncoderBlock2D"] * 4,
    "up_block_types": ["UpDecoderBlock2D"] * 4,
}  # fmt: skip
_SD3_VAE = {**_VAE, "latent_channels": 16, "use_quant_conv": False, "use_post_quant_conv": False}
_CLIP = {"vocab_size": 49408, "max_position_embeddings": 77}
_VIT_L = {
    **_CLIP, "hidden_size": 768, "intermediate_size": 3072, "num_hidden_layers": 12, "num_attention_heads": 12,
    "projection_dim": 768,
}  # fmt: skip
_VIT_BIG_G = {
    **_CLIP, "hidden_size": 1280, "intermediate_size": 5120, "num_hidden_layers": 32, "num_attention_heads": 20,
    "projection_dim": 1280,
}  # fmt: skip
_BOTH_TOKENIZERS = {"tokenizer": "<|endoftext|>", "tokenizer_2": "!"}

_SD3: dict[str, Config] = {
    "transformer": _SD3_TRANSFORMER,
    "vae": _SD3_VAE,
    "text_encoder": _VIT_L,
    "text_encoder_2": _VIT_BIG_G,
}
_T5_XXL: Config = {
    "vocab_size": 32128, "d_model": 4096, "d_kv": 64, "d_ff": 10240, "num_layers": 24, "num_heads": 64,
    "relative_attention_num_buckets": 32, "is_encoder_decoder": False, "use_cache": False,
}  # fmt: skip

_ALL = (
    Published(
        "sd1", "Stable Diffusion 1.5", {"unet": _SD1_UNET, "vae": _VAE, "text_encoder": _VIT_L},
        {"tokenizer": "<|endoftext|>"}, side=512, steps=50, guidance_scale=7.5,
    ),
    Published(
        "sdxl", "SDXL",
        {"unet": _SDXL_UNET, "vae": _VAE, "text_encoder": _VIT_L, "text_encoder_2": _VIT_BIG_G},
        _BOTH_TOKENIZERS, side=1024, steps=30, guidance_scale=5.0,
    ),
    # As it is used where memory is short.
    Published("sd3", "Stable Diffusion 3 medium without T5", _SD3, _BOTH_TOKENIZERS, 1024, 28, 7.0),
    # Only if named: T5's 9.5 GB, once in the checkpoint, once in the graphs and once for each provider, take longer to
    # build than all else, and more disk than some machines have.
    Published(
        "sd3", "Stable Diffusion 3 medium", _SD3 | {"text_encoder_3": _T5_XXL}, _BOTH_TOKENIZERS, 1024, 28, 7.0, "t5"
    ),
)  # fmt: skip
MODELS = {model.name: model for model in _ALL}
