"""Every component of a checkpoint, and whether they belong together."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Mapping

from ...runtime.bundles.spec import TensorSpec
from ...runtime.errors import CheckpointError
from ..checkpoints.checkpoint import TINY_VAE, Checkpoint
from .autoencoders import tiny_decoder, vae_decoder, vae_encoder
from .components import SourceComponent
from .denoisers import denoiser
from .text_encoders import text_encoder


def components_from_checkpoint(
    checkpoint: Checkpoint, precision: str, skip_layers: tuple[int, ...] | None = None
) -> list[SourceComponent]:
    """Every component of a checkpoint, in the order data flows. ``skip_layers`` are those of ``denoiser``.

    Raises:
        CheckpointError: a config lacks a number that the contract needs, or the components are not of one model.
        RequestError: layers to skip that there are not.
    """
    records = [record for record in checkpoint.family.text_encoders if record.component in checkpoint.configs]
    found = [
        *(text_encoder(checkpoint, record, precision) for record in records),
        vae_encoder(checkpoint, precision),
        denoiser(checkpoint, precision, skip_layers),
        vae_decoder(checkpoint, precision),
        *([tiny_decoder(checkpoint, precision)] if TINY_VAE in checkpoint.configs else []),
    ]
    _check_that_they_fit(checkpoint, {component.name: component for component in found})
    return found


def _check_that_they_fit(checkpoint: Checkpoint, found: Mapping[str, SourceComponent]) -> None:
    """Compare what components give with what the next one takes: a folder may be put together of several models."""
    inputs = {spec.name: spec for spec in found["denoiser"].inputs}
    latents = _channels(found["denoiser"].outputs[0])
    received = _channels(found["vae_decoder"].inputs[0])
    if received != latents:
        raise CheckpointError(
            f"{checkpoint.path}: the autoencoder is not this denoiser's",
            received=f"{received} latent channels",
            expected=f"{latents}, those of the denoiser",
            remedy=f"use an autoencoder of {checkpoint.family.name}",
        )
    segments: dict[int, int] = defaultdict(int)
    pooled = 0
    for record in checkpoint.family.text_encoders:
        if record.component in found:
            outputs = {spec.name: spec for spec in found[record.component].outputs}
            segments[record.segment] += _width(outputs["hidden_states"])
            pooled += _width(outputs["text_embeds"]) if record.pooled else 0
    width = _width(inputs["encoder_hidden_states"])
    wide = max(segments.values())
    if wide > width or (len({record.segment for record in checkpoint.family.text_encoders}) == 1 and wide < width):
        raise _other_text_encoders(checkpoint, f"text states of width {wide}", width)
    for name in ("text_embeds", "pooled_projections"):
        if name in inputs and _width(inputs[name]) != pooled:
            raise _other_text_encoders(checkpoint, f"a pooled text of width {pooled}", _width(inputs[name]))


def _other_text_encoders(checkpoint: Checkpoint, received: str, expected: int) -> CheckpointError:
    return CheckpointError(
        f"{checkpoint.path}: the text encoders are not this denoiser's",
        received=received,
        expected=f"{expected}, what the denoiser takes",
        remedy=f"use the text encoders of {checkpoint.family.name}",
    )


def _channels(spec: TensorSpec) -> int | str:
    return spec.shape[1]


def _width(spec: TensorSpec) -> int:
    return int(spec.shape[-1])
