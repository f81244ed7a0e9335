"""What a bundle's manifest says of the checkpoint that it was built from."""

from __future__ import annotations

from collections.abc import Mapping
from importlib.metadata import version

from ..runtime.bundles.manifest import (
    SCHEMA_VERSION,
    Conditioning,
    LatentSpace,
    Manifest,
    SkipLayerGuidance,
    TextEncoding,
)
from ..runtime.bundles.spec import TensorSpec
from ..runtime.version import __version__
from .buckets import Bucket
from .build_graph import TOOLS
from .checkpoints.checkpoint import Checkpoint
from .checkpoints.defaults import defaults_of
from .networks.components import SourceComponent, latent_stride, native_side, task_of, vae_scale
from .profiles import default_bucket


def manifest_from_checkpoint(
    checkpoint: Checkpoint,
    denoiser: SourceComponent,
    buckets: tuple[Bucket, ...],
    encodings: tuple[TextEncoding, ...],
) -> Manifest:
    """The whole record, but for the components, engines and files that the bundle will hold. ``denoiser`` gives its
    contract, whether it is among them or not."""
    family, scale, task = checkpoint.family, vae_scale(checkpoint), task_of(checkpoint)
    channels, stride = checkpoint.number("vae", "latent_channels"), latent_stride(checkpoint) * scale
    inputs = {spec.name: spec for spec in denoiser.inputs}
    force_zeros = checkpoint.model_index.get("force_zeros_for_empty_prompt", family.force_zeros)
    return Manifest(
        schema_version=SCHEMA_VERSION,
        latentrt=__version__,
        name=checkpoint.name,
        family=family.name,
        task=task.name,
        latent_space=LatentSpace(channels, scale, stride),
        extra_channels=task.extra_channels(channels),
        text_encodings=encodings,
        text_width=int(inputs["encoder_hidden_states"].shape[-1]),
        conditioning=_conditioning(checkpoint, inputs),
        skip_layer_guidance=_skip_layer_guidance(denoiser),
        force_zeros_for_empty_prompt=bool(force_zeros),
        scheduler=checkpoint.scheduler_config,
        defaults=defaults_of(checkpoint, default_bucket(buckets, native_side(checkpoint))),
        buckets=buckets,
        components={},
        engines=(),
        files={},
        tools={name: version(name) for name in TOOLS},
    )


def _conditioning(checkpoint: Checkpoint, inputs: Mapping[str, TensorSpec]) -> Conditioning:
    """What the denoiser's inputs are made of, by their names."""
    pooled = [name for name in ("text_embeds", "pooled_projections") if name in inputs]
    return Conditioning(
        pooled=pooled[0] if pooled else None,
        time_ids=checkpoint.family.time_ids if "time_ids" in inputs else (),
        guidance_embedding="timestep_cond" in inputs,
    )


def _skip_layer_guidance(denoiser: SourceComponent) -> SkipLayerGuidance | None:
    """The layers that the denoiser can leave out, with the defaults of diffusers' ``StableDiffusion3Pipeline``."""
    if not denoiser.skip_layers:
        return None
    return SkipLayerGuidance(layers=denoiser.skip_layers, scale=2.8, start=0.01, stop=0.2)
