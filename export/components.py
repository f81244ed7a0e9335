"""The PyTorch reference of every component, wrapped so that its inputs and outputs are the engine's contract.

The networks are diffusers' and transformers' own. A wrapper only fixes names, folds constants that would otherwise be
applied in the loop, and pins dtypes.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import torch
from torch import nn

from ..runtime.spec import TOKENS_PER_CHUNK, TensorSpec, axis_and_factor
from .checkpoint import Checkpoint
from .families import TextEncoderRecord
from .precision import TORCH_DTYPES, component_precision
from .pretrained import from_pretrained


@dataclass(frozen=True)
class Component:
    """A component before export: what it is called, where its weights are, and its contract.

    ``load()`` gives the fp32 reference with the contract's inputs as positional arguments, in order. ``vocabulary`` is
    how many token ids a text encoder knows.
    """

    name: str
    folder: str
    precision: str
    inputs: tuple[TensorSpec, ...]
    outputs: tuple[TensorSpec, ...]
    load: Callable[[], nn.Module]
    vocabulary: int = 0

    @property
    def axes(self) -> set[str]:
        """The symbolic axes of the inputs, without factors."""
        dimensions = (size for tensor in self.inputs for size in tensor.shape if isinstance(size, str))
        return {axis_and_factor(dimension)[0] for dimension in dimensions}


def vae_scale(checkpoint: Checkpoint) -> int:
    """Image pixels per latent pixel."""
    return int(2 ** (checkpoint.levels("vae") - 1))


def latent_stride(checkpoint: Checkpoint) -> int:
    """The multiple, in latent pixels, of which a side must be: every down-sampling must divide evenly."""
    return int(2 ** (checkpoint.levels(checkpoint.family.denoiser_folder) - 1))


def native_side(checkpoint: Checkpoint) -> int:
    """The side, in image pixels, that the denoiser was trained at."""
    if checkpoint.configs[checkpoint.family.denoiser_folder].get("sample_size") is None:
        return checkpoint.family.native_side
    return checkpoint.number(checkpoint.family.denoiser_folder, "sample_size") * vae_scale(checkpoint)


def components(checkpoint: Checkpoint, precision: str) -> list[Component]:
    """Every component of a checkpoint, in the order data flows.

    Raises:
        CheckpointError: a config lacks a number that the contract needs.
    """
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
    folder = record.component
    dtype = component_precision(record.component, precision, checkpoint.configs[folder])
    name = _numpy_name(dtype)

    def load() -> nn.Module:
        import transformers

        kind = transformers.CLIPTextModelWithProjection if record.pooled else transformers.CLIPTextModel
        return _reference(_TextEncoder(from_pretrained(kind, checkpoint.path / folder), record.pooled))

    hidden_size = checkpoint.number(folder, "hidden_size")
    outputs = [TensorSpec("hidden_states", name, ("texts", TOKENS_PER_CHUNK, hidden_size))]
    if record.pooled:
        outputs.append(TensorSpec("text_embeds", name, ("texts", checkpoint.number(folder, "projection_dim"))))
    return Component(
        name=record.component,
        folder=folder,
        precision=dtype,
        inputs=(TensorSpec("input_ids", "int64", ("texts", TOKENS_PER_CHUNK)),),
        outputs=tuple(outputs),
        load=load,
        vocabulary=checkpoint.number(folder, "vocab_size"),
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
    folder, width = checkpoint.family.denoiser_folder, checkpoint.family.conditioning_width
    dtype = component_precision("denoiser", precision, checkpoint.configs[folder])
    name = _numpy_name(dtype)
    channels, out_channels = checkpoint.number(folder, "in_channels"), checkpoint.number(folder, "out_channels")
    text_width = checkpoint.number(folder, "cross_attention_dim")
    time_width = width * checkpoint.number(folder, "addition_time_embed_dim")
    pooled_width = checkpoint.number(folder, "projection_class_embeddings_input_dim") - time_width

    def load() -> nn.Module:
        import diffusers

        return _reference(_SdxlDenoiser(from_pretrained(diffusers.UNet2DConditionModel, checkpoint.path / folder)))

    return Component(
        name="denoiser",
        folder=folder,
        precision=dtype,
        inputs=(
            TensorSpec("sample", name, ("rows", channels, "height", "width")),
            TensorSpec("timestep", "float32", ("rows",)),
            TensorSpec("encoder_hidden_states", name, ("rows", "tokens", text_width)),
            TensorSpec("text_embeds", name, ("rows", pooled_width)),
            TensorSpec("time_ids", "float32", ("rows", width)),
        ),
        outputs=(TensorSpec("model_output", name, ("rows", out_channels, "height", "width")),),
        load=load,
    )


# --- autoencoder ------------------------------------------------------------------------------------------------------


class _VaeDecoder(nn.Module):
    """``latents [images, C, h, w]`` as the sampler leaves them -> ``image [images, 3, H, W]`` in -1..1."""

    def __init__(self, vae: nn.Module):
        super().__init__()
        self.vae = vae
        self.mean, self.deviation = _latent_statistics(vae.config)

    def forward(self, latents: torch.Tensor) -> torch.Tensor:
        return self.vae.decode(latents * self.deviation + self.mean, return_dict=False)[0]


class _VaeEncoder(nn.Module):
    """``image [images, 3, H, W]`` in -1..1 -> mean and standard deviation of its latents, in the sampler's scale."""

    def __init__(self, vae: nn.Module):
        super().__init__()
        self.vae = vae
        self.mean, self.deviation = _latent_statistics(vae.config)

    def forward(self, image: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
        posterior = self.vae.encode(image).latent_dist
        return (posterior.mean - self.mean) / self.deviation, posterior.std / self.deviation


def _latent_statistics(config: Any) -> tuple[Any, Any]:
    """Mean and deviation of an autoencoder's latents, which the sampler sees with neither, as in diffusers' SDXL
    pipelines: numbers, or ``[1, C, 1, 1]`` where the config has ``latents_mean`` and ``latents_std``."""
    mean, deviation = getattr(config, "latents_mean", None), getattr(config, "latents_std", None)
    if mean is None or deviation is None:
        return 0.0, 1 / config.scaling_factor
    per_channel = (1, -1, 1, 1)
    return (
        nn.Buffer(torch.tensor(mean).view(per_channel)),
        nn.Buffer(torch.tensor(deviation).view(per_channel) / config.scaling_factor),
    )


def _load_vae(checkpoint: Checkpoint, wrapper: Callable[[nn.Module], nn.Module]) -> Callable[[], nn.Module]:
    def load() -> nn.Module:
        import diffusers

        return _reference(wrapper(from_pretrained(diffusers.AutoencoderKL, checkpoint.path / "vae")))

    return load


def _vae_decoder(checkpoint: Checkpoint, precision: str) -> Component:
    dtype = component_precision("vae_decoder", precision, checkpoint.configs["vae"])
    name, factor, channels = _numpy_name(dtype), vae_scale(checkpoint), checkpoint.number("vae", "latent_channels")
    return Component(
        name="vae_decoder",
        folder="vae",
        precision=dtype,
        inputs=(TensorSpec("latents", name, ("images", channels, "height", "width")),),
        outputs=(TensorSpec("image", name, ("images", 3, f"{factor}*height", f"{factor}*width")),),
        load=_load_vae(checkpoint, _VaeDecoder),
    )


def _vae_encoder(checkpoint: Checkpoint, precision: str) -> Component:
    dtype = component_precision("vae_encoder", precision, checkpoint.configs["vae"])
    name, factor, channels = _numpy_name(dtype), vae_scale(checkpoint), checkpoint.number("vae", "latent_channels")
    latents = ("images", channels, "height", "width")
    return Component(
        name="vae_encoder",
        folder="vae",
        precision=dtype,
        inputs=(TensorSpec("image", name, ("images", 3, f"{factor}*height", f"{factor}*width")),),
        outputs=(TensorSpec("latents_mean", name, latents), TensorSpec("latents_std", name, latents)),
        load=_load_vae(checkpoint, _VaeEncoder),
    )


# --- common -----------------------------------------------------------------------------------------------------------


def _reference(module: nn.Module) -> nn.Module:
    return module.float().eval().requires_grad_(False)


def _numpy_name(precision: str) -> str:
    return str(TORCH_DTYPES[precision]).removeprefix("torch.")
