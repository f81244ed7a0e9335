"""The autoencoder's two halves, and a tiny decoder, with latents in the sampler's scale on their outside."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch
from torch import nn

from ...runtime.bundles.spec import TensorSpec
from ...runtime.errors import CheckpointError
from ..checkpoints.checkpoint import TINY_VAE, Checkpoint
from ..graphs.precision import PrecisionPlan, plan_for
from .components import SourceComponent, component, vae_scale


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
    """Mean and deviation of an autoencoder's latents, which the sampler sees with neither, as in diffusers' pipelines:
    ``[1, C, 1, 1]`` where the config has ``latents_mean`` and ``latents_std``, else its shift and its scale."""
    mean, deviation = getattr(config, "latents_mean", None), getattr(config, "latents_std", None)
    if mean is None or deviation is None:
        return getattr(config, "shift_factor", None) or 0.0, 1 / config.scaling_factor
    per_channel = (1, -1, 1, 1)
    return (
        nn.Buffer(torch.tensor(mean).view(per_channel)),
        nn.Buffer(torch.tensor(deviation).view(per_channel) / config.scaling_factor),
    )


def vae_decoder(checkpoint: Checkpoint, precision: str) -> SourceComponent:
    """Latents to a picture."""
    plan = _plan(checkpoint, "vae_decoder", precision)
    return _half(checkpoint, "vae_decoder", plan, _VaeDecoder, ["latents"], ["image"])


def vae_encoder(checkpoint: Checkpoint, precision: str) -> SourceComponent:
    """A picture to the distribution of its latents."""
    plan = _plan(checkpoint, "vae_encoder", precision)
    return _half(checkpoint, "vae_encoder", plan, _VaeEncoder, ["image"], ["latents_mean", "latents_std"])


def _plan(checkpoint: Checkpoint, name: str, precision: str) -> PrecisionPlan:
    return plan_for(name, precision, checkpoint.configs["vae"], force_upcast=checkpoint.family.vae_force_upcast)


def _half(
    checkpoint: Checkpoint,
    name: str,
    plan: PrecisionPlan,
    wrap: type[nn.Module],
    inputs: Sequence[str],
    outputs: Sequence[str],
    folder: str = "vae",
    kind: str = "diffusers.AutoencoderKL",
) -> SourceComponent:
    """The half of an autoencoder between a picture, called ``image``, and latents."""
    latents, image = _shapes(checkpoint)

    def specs(names: Sequence[str]) -> tuple[TensorSpec, ...]:
        return tuple(TensorSpec(name, plan.io, image if name == "image" else latents) for name in names)

    return component(checkpoint, name, folder, kind, wrap, plan=plan, inputs=specs(inputs), outputs=specs(outputs))


def _shapes(checkpoint: Checkpoint) -> tuple[tuple[int | str, ...], tuple[int | str, ...]]:
    """The shapes of latents and pictures.

    Raises:
        CheckpointError: the autoencoder is of another kind, whatever its config says of them.
    """
    kind = checkpoint.configs["vae"].get("_class_name")
    if kind != "AutoencoderKL":
        raise CheckpointError(checkpoint.setting("vae", "_class_name"), received=kind, expected="AutoencoderKL")
    factor, channels = vae_scale(checkpoint), checkpoint.number("vae", "latent_channels")
    return ("images", channels, "height", "width"), ("images", 3, f"{factor}*height", f"{factor}*width")


def tiny_decoder(checkpoint: Checkpoint, precision: str) -> SourceComponent:
    """Latents to an approximate picture, many times faster (TAESD). It takes the place of the decoder in previews.

    Raises:
        CheckpointError: a tiny autoencoder of other latents than the checkpoint's.
    """
    folder = TINY_VAE
    config = checkpoint.configs[folder]
    plan = plan_for("tiny_decoder", precision, config, force_upcast=False)
    blocks, factor = config.get("num_decoder_blocks", (3, 3, 3, 1)), config.get("upsampling_scaling_factor", 2)
    received = config.get("latent_channels", 4), factor ** (len(blocks) - 1)
    expected = checkpoint.number("vae", "latent_channels"), vae_scale(checkpoint)
    if received != expected:
        raise CheckpointError(
            f"{checkpoint.place(folder)}: a tiny autoencoder of another family",
            received=f"{received[0]} latent channels, {received[1]} pixels each",
            expected=f"{expected[0]} and {expected[1]}, as in {checkpoint.path}",
        )
    kind = "diffusers.AutoencoderTiny"
    return _half(checkpoint, "tiny_decoder", plan, _VaeDecoder, ["latents"], ["image"], folder, kind)
