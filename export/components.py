"""The PyTorch reference of every component, wrapped so that its inputs and outputs are the engine's contract.

The networks are diffusers' and transformers' own. A wrapper only fixes names, folds constants that would otherwise be
applied in the loop, and pins dtypes.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from torch import nn

from ..runtime.spec import TOKENS_PER_CHUNK, TensorSpec
from .checkpoint import Checkpoint
from .families import TextEncoderRecord
from .precision import TORCH_DTYPES, component_precision


@dataclass(frozen=True)
class Component:
    """A component before export: what it is called, where its weights are, and its contract.

    ``load()`` gives the fp32 reference with the contract's inputs as positional arguments, in order.
    """

    name: str
    folder: str
    precision: str
    inputs: tuple[TensorSpec, ...]
    outputs: tuple[TensorSpec, ...]
    load: Callable[[], nn.Module]

    @property
    def axes(self) -> set[str]:
        """The symbolic axes of the inputs, without factors."""
        dimensions = (size for tensor in self.inputs for size in tensor.shape if isinstance(size, str))
        return {dimension.rpartition("*")[2] for dimension in dimensions}


def vae_scale(checkpoint: Checkpoint) -> int:
    """Image pixels per latent pixel."""
    return int(2 ** (len(checkpoint.configs["vae"]["block_out_channels"]) - 1))


def stride(checkpoint: Checkpoint) -> int:
    """The multiple, in image pixels, of which a side must be: every down-sampling must divide evenly."""
    levels = len(checkpoint.configs[checkpoint.family.denoiser_folder]["block_out_channels"])
    return vae_scale(checkpoint) * int(2 ** (levels - 1))


def native_side(checkpoint: Checkpoint) -> int:
    """The side, in image pixels, that the denoiser was trained at."""
    sample_size = checkpoint.configs[checkpoint.family.denoiser_folder].get("sample_size")
    return int(sample_size) * vae_scale(checkpoint) if sample_size else checkpoint.family.native_side


def components(checkpoint: Checkpoint, precision: str) -> list[Component]:
    """Every component of a checkpoint, in the order data flows."""
    return [
        *(_text_encoder(checkpoint, record, precision) for record in checkpoint.family.text_encoders),
        _denoiser(checkpoint, precision),
        _vae_decoder(checkpoint, precision),
        _vae_encoder(checkpoint, precision),
    ]


# --- text encoders ----------------------------------------------------------------------------------------------------


class _TextEncoder(nn.Module):
    """``input_ids [texts, 77]`` -> ``hidden_states [texts, 77, D]`` of the layer before the last; the pooled text."""

    def __init__(self, model: nn.Module, pooled: bool):
        super().__init__()
        self.model = model
        self.pooled = pooled

    def forward(self, input_ids: torch.Tensor) -> tuple[torch.Tensor, ...]:
        output = self.model(input_ids, output_hidden_states=True)
        hidden = output.hidden_states[-2]
        return (hidden, output.text_embeds) if self.pooled else (hidden,)


def _text_encoder(checkpoint: Checkpoint, record: TextEncoderRecord, precision: str) -> Component:
    config = checkpoint.configs[record.component]
    dtype = component_precision(record.component, precision, config)

    def load() -> nn.Module:
        import transformers

        kind = transformers.CLIPTextModelWithProjection if record.pooled else transformers.CLIPTextModel
        return _reference(_TextEncoder(_from_pretrained(kind, checkpoint.path / record.component), record.pooled))

    outputs = [TensorSpec("hidden_states", _numpy_name(dtype), ("texts", TOKENS_PER_CHUNK, config["hidden_size"]))]
    if record.pooled:
        outputs.append(TensorSpec("text_embeds", _numpy_name(dtype), ("texts", config["projection_dim"])))
    return Component(
        name=record.component,
        folder=record.component,
        precision=dtype,
        inputs=(TensorSpec("input_ids", "int64", ("texts", TOKENS_PER_CHUNK)),),
        outputs=tuple(outputs),
        load=load,
    )


# --- denoiser ---------------------------------------------------------------------------------------------------------


class _CastTo(nn.Module):
    """A module whose output has the dtype of the weights: SDXL's size embedding is computed in fp32 and joined to text
    embeddings, and a graph with a Concat of two dtypes is refused by TensorRT."""

    def __init__(self, module: nn.Module, dtype: torch.dtype):
        super().__init__()
        self.module = module
        self.dtype = dtype

    def forward(self, values: torch.Tensor) -> torch.Tensor:
        return self.module(values).to(self.dtype)


class _SdxlDenoiser(nn.Module):
    """SDXL's UNet with every input on the batch axis."""

    def __init__(self, unet: nn.Module):
        super().__init__()
        self.unet = unet

    def forward(
        self,
        sample: torch.Tensor,  # [rows, C, h, w]
        timestep: torch.Tensor,  # [rows]
        encoder_hidden_states: torch.Tensor,  # [rows, S, D]
        text_embeds: torch.Tensor,  # [rows, P]
        time_ids: torch.Tensor,  # [rows, 6]
    ) -> torch.Tensor:
        conditions = {"text_embeds": text_embeds, "time_ids": time_ids}
        return self.unet(sample, timestep, encoder_hidden_states, added_cond_kwargs=conditions, return_dict=False)[0]

    def pin_dtype(self, dtype: torch.dtype) -> None:
        """Make the graph of a module already cast to ``dtype`` hold no implicit promotion."""
        self.unet.add_time_proj = _CastTo(self.unet.add_time_proj, dtype)


def _denoiser(checkpoint: Checkpoint, precision: str) -> Component:
    family = checkpoint.family
    config = checkpoint.configs[family.denoiser_folder]
    dtype = component_precision("denoiser", precision, config)
    name = _numpy_name(dtype)
    pooled = (
        config["projection_class_embeddings_input_dim"] - family.conditioning_width * config["addition_time_embed_dim"]
    )

    def load() -> nn.Module:
        import diffusers

        unet = _from_pretrained(diffusers.UNet2DConditionModel, checkpoint.path / family.denoiser_folder)
        return _reference(_SdxlDenoiser(unet))

    return Component(
        name="denoiser",
        folder=family.denoiser_folder,
        precision=dtype,
        inputs=(
            TensorSpec("sample", name, ("rows", config["in_channels"], "height", "width")),
            TensorSpec("timestep", "float32", ("rows",)),
            TensorSpec("encoder_hidden_states", name, ("rows", "tokens", config["cross_attention_dim"])),
            TensorSpec("text_embeds", name, ("rows", pooled)),
            TensorSpec("time_ids", "float32", ("rows", family.conditioning_width)),
        ),
        outputs=(TensorSpec("model_output", name, ("rows", config["out_channels"], "height", "width")),),
        load=load,
    )


# --- autoencoder ------------------------------------------------------------------------------------------------------


class _VaeDecoder(nn.Module):
    """``latents [images, C, h, w]`` as the sampler leaves them -> ``image [images, 3, H, W]`` in -1..1."""

    def __init__(self, vae: nn.Module):
        super().__init__()
        self.vae = vae

    def forward(self, latents: torch.Tensor) -> torch.Tensor:
        config = self.vae.config
        return self.vae.decode(latents / config.scaling_factor, return_dict=False)[0]


class _VaeEncoder(nn.Module):
    """``image [images, 3, H, W]`` in -1..1 -> mean and standard deviation of its latents, in the sampler's scale."""

    def __init__(self, vae: nn.Module):
        super().__init__()
        self.vae = vae

    def forward(self, image: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
        factor = self.vae.config.scaling_factor
        posterior = self.vae.encode(image).latent_dist
        return posterior.mean * factor, posterior.std * factor


def _load_vae(checkpoint: Checkpoint, wrapper: Callable[[nn.Module], nn.Module]) -> Callable[[], nn.Module]:
    def load() -> nn.Module:
        import diffusers

        return _reference(wrapper(_from_pretrained(diffusers.AutoencoderKL, checkpoint.path / "vae")))

    return load


def _vae_decoder(checkpoint: Checkpoint, precision: str) -> Component:
    config = checkpoint.configs["vae"]
    dtype = component_precision("vae_decoder", precision, config)
    name, factor = _numpy_name(dtype), vae_scale(checkpoint)
    return Component(
        name="vae_decoder",
        folder="vae",
        precision=dtype,
        inputs=(TensorSpec("latents", name, ("images", config["latent_channels"], "height", "width")),),
        outputs=(TensorSpec("image", name, ("images", 3, f"{factor}*height", f"{factor}*width")),),
        load=_load_vae(checkpoint, _VaeDecoder),
    )


def _vae_encoder(checkpoint: Checkpoint, precision: str) -> Component:
    config = checkpoint.configs["vae"]
    dtype = component_precision("vae_encoder", precision, config)
    name, factor = _numpy_name(dtype), vae_scale(checkpoint)
    latents = ("images", config["latent_channels"], "height", "width")
    return Component(
        name="vae_encoder",
        folder="vae",
        precision=dtype,
        inputs=(TensorSpec("image", name, ("images", 3, f"{factor}*height", f"{factor}*width")),),
        outputs=(TensorSpec("latents_mean", name, latents), TensorSpec("latents_std", name, latents)),
        load=_load_vae(checkpoint, _VaeEncoder),
    )


# --- loading ----------------------------------------------------------------------------------------------------------


def _from_pretrained(kind: Any, folder: Path) -> nn.Module:
    """Load weights from safetensors only, never from a hub, and without progress bars of their own."""
    import diffusers
    import transformers

    diffusers.utils.logging.disable_progress_bar()
    transformers.utils.logging.disable_progress_bar()
    model: nn.Module = kind.from_pretrained(str(folder), use_safetensors=True, local_files_only=True)
    return model


def _reference(module: nn.Module) -> nn.Module:
    return module.float().eval().requires_grad_(False)


def _numpy_name(precision: str) -> str:
    return str(TORCH_DTYPES[precision]).removeprefix("torch.")
