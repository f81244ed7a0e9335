"""The denoising networks, UNet and MMDiT, with every input on the batch axis."""

from __future__ import annotations

from typing import Any

import torch
from torch import nn

from ...runtime.bundles.spec import TensorSpec
from ...runtime.errors import CheckpointError, RequestError
from ..checkpoints.checkpoint import Checkpoint
from ..graphs.precision import plan_for
from .components import SourceComponent, component, task_of, vae_scaling


class _Unet(nn.Module):
    """A UNet.

    ``latents`` is how many of the sample's channels are noisy latents; those behind them come in the sampler's scale
    and are multiplied by ``image_scale``.
    """

    def __init__(self, unet: nn.Module, latents: int, image_scale: float):
        super().__init__()
        self.unet = unet
        self.latents = latents
        self.image_scale = image_scale

    def forward(
        self,
        sample: torch.Tensor,  # [rows, C, h, w]
        timestep: torch.Tensor,  # [rows]
        encoder_hidden_states: torch.Tensor,  # [rows, S, D]
        text_embeds: torch.Tensor | None = None,  # [rows, P]
        time_ids: torch.Tensor | None = None,  # [rows, 6 or 5]
        timestep_cond: torch.Tensor | None = None,  # [rows, W]
    ) -> torch.Tensor:
        if self.image_scale != 1:
            noisy, image = sample[:, : self.latents], sample[:, self.latents :]
            sample = torch.cat([noisy, image * self.image_scale], dim=1)
        return self.unet(
            sample,
            timestep,
            encoder_hidden_states,
            timestep_cond=timestep_cond,
            added_cond_kwargs=None if text_embeds is None else {"text_embeds": text_embeds, "time_ids": time_ids},
            return_dict=False,
        )[0]


class _DistilledUnet(_Unet):
    """A UNet without size conditioning that takes an embedding of the guidance scale."""

    def forward(  # type: ignore[override]
        self,
        sample: torch.Tensor,  # [rows, C, h, w]
        timestep: torch.Tensor,  # [rows]
        encoder_hidden_states: torch.Tensor,  # [rows, S, D]
        timestep_cond: torch.Tensor,  # [rows, W]
    ) -> torch.Tensor:
        return super().forward(sample, timestep, encoder_hidden_states, timestep_cond=timestep_cond)


class _Mmdit(nn.Module):
    """Stable Diffusion 3's transformer."""

    def __init__(self, transformer: nn.Module):
        super().__init__()
        self.transformer = transformer

    def forward(
        self,
        sample: torch.Tensor,  # [rows, C, h, w]
        timestep: torch.Tensor,  # [rows]
        encoder_hidden_states: torch.Tensor,  # [rows, S, D]
        pooled_projections: torch.Tensor,  # [rows, P]
    ) -> torch.Tensor:
        return self.transformer(
            hidden_states=sample,
            timestep=timestep,
            encoder_hidden_states=encoder_hidden_states,
            pooled_projections=pooled_projections,
            return_dict=False,
        )[0]


class _SkippingMmdit(_Mmdit):
    """The same transformer, some of whose blocks let the rows pass unchanged that ``skip_layers`` marks."""

    def __init__(self, transformer: nn.Module, layers: tuple[int, ...]):
        super().__init__(transformer)
        self._skipped: list[torch.Tensor] = []  # during a call, for the hooks, which see only their block
        for layer in layers:
            transformer.transformer_blocks[layer].register_forward_hook(self._pass, with_kwargs=True)

    def forward(  # type: ignore[override]
        self,
        sample: torch.Tensor,  # [rows, C, h, w]
        timestep: torch.Tensor,  # [rows]
        encoder_hidden_states: torch.Tensor,  # [rows, S, D]
        pooled_projections: torch.Tensor,  # [rows, P]
        skip_layers: torch.Tensor,  # [rows], 0 or 1
    ) -> torch.Tensor:
        self._skipped[:] = [skip_layers[:, None, None] > 0.5]
        return super().forward(sample, timestep, encoder_hidden_states, pooled_projections)

    def _pass(self, block: nn.Module, args: Any, given: dict[str, torch.Tensor], outputs: Any) -> Any:
        (skipped,) = self._skipped
        text, image = outputs
        return (
            torch.where(skipped, given["encoder_hidden_states"], text),
            torch.where(skipped, given["hidden_states"], image),
        )


def denoiser(checkpoint: Checkpoint, precision: str, skip_layers: tuple[int, ...] | None = None) -> SourceComponent:
    """The denoiser of a checkpoint, by the class that its config names.

    ``skip_layers`` are those that it can leave out for some rows; by default those that its family's record names, if
    it is one of the models that are guided so.

    Raises:
        CheckpointError: a config that lacks a number, or asks for an input that nothing here gives.
        RequestError: layers that the denoiser does not have.
    """
    if checkpoint.family.denoiser_class == "SD3Transformer2DModel":
        return _mmdit(checkpoint, precision, _skip_layers(checkpoint, skip_layers))
    if skip_layers:
        raise RequestError("--skip-layers", received=checkpoint.family.name, expected="a checkpoint of sd3")
    return _unet(checkpoint, precision)


def _unet(checkpoint: Checkpoint, precision: str) -> SourceComponent:
    folder = checkpoint.family.denoiser_folder
    config = checkpoint.configs[folder]
    for name in ("class_embed_type", "num_class_embeds", "encoder_hid_dim_type", "encoder_hid_dim"):
        if config.get(name) is not None:
            raise CheckpointError(
                checkpoint.setting(folder, name), received=config[name], expected="a UNet conditioned on text alone"
            )
    plan = plan_for("denoiser", precision, config, force_upcast=False)
    conditions = _unet_conditions(checkpoint, plan.io)
    wrapper = _DistilledUnet if [spec.name for spec in conditions] == ["timestep_cond"] else _Unet
    latents, scale = checkpoint.number(folder, "out_channels"), _image_scale(checkpoint)
    return component(
        checkpoint,
        "denoiser",
        folder,
        "diffusers.UNet2DConditionModel",
        lambda network: wrapper(network, latents, scale),
        plan=plan,
        inputs=(*_inputs(checkpoint, plan.io, "cross_attention_dim"), *conditions),
        outputs=(_model_output(checkpoint, plan.io),),
        settings={"image scale": str(scale)} if scale != 1 else {},
    )


def _mmdit(checkpoint: Checkpoint, precision: str, skip_layers: tuple[int, ...]) -> SourceComponent:
    folder = checkpoint.family.denoiser_folder
    plan = plan_for("denoiser", precision, checkpoint.configs[folder], force_upcast=False)
    pooled = TensorSpec("pooled_projections", plan.io, ("rows", checkpoint.number(folder, "pooled_projection_dim")))
    skip = (TensorSpec("skip_layers", "float32", ("rows",)),) if skip_layers else ()
    return component(
        checkpoint,
        "denoiser",
        folder,
        "diffusers.SD3Transformer2DModel",
        (lambda network: _SkippingMmdit(network, skip_layers)) if skip_layers else _Mmdit,
        plan=plan,
        inputs=(*_inputs(checkpoint, plan.io, "joint_attention_dim"), pooled, *skip),
        outputs=(_model_output(checkpoint, plan.io),),
        skip_layers=skip_layers,
        settings={"skip layers": ",".join(map(str, skip_layers))} if skip_layers else {},
    )


def _skip_layers(checkpoint: Checkpoint, asked: tuple[int, ...] | None) -> tuple[int, ...]:
    """The layers of skip-layer guidance. Only models with dual attention (3.5 Medium) are published to use it."""
    config = checkpoint.configs[checkpoint.family.denoiser_folder]
    layers = checkpoint.number(checkpoint.family.denoiser_folder, "num_layers")
    if asked is None:
        recommended = checkpoint.family.skip_layers if config.get("dual_attention_layers") else ()
        return recommended if max(recommended, default=0) < layers - 1 else ()
    for layer in asked:
        if not 0 <= layer < layers - 1:  # the last gives no text states that could be passed on
            raise RequestError("--skip-layers", received=layer, expected=f"layers from 0 to {layers - 2}")
    return asked


def _inputs(checkpoint: Checkpoint, dtype: str, text_width: str) -> tuple[TensorSpec, ...]:
    """The inputs that every denoiser has. ``text_width`` is what the config calls the width of the text states."""
    folder = checkpoint.family.denoiser_folder
    return (
        TensorSpec("sample", dtype, ("rows", checkpoint.number(folder, "in_channels"), "height", "width")),
        TensorSpec("timestep", "float32", ("rows",)),
        TensorSpec("encoder_hidden_states", dtype, ("rows", "tokens", checkpoint.number(folder, text_width))),
    )


def _model_output(checkpoint: Checkpoint, dtype: str) -> TensorSpec:
    channels = checkpoint.number(checkpoint.family.denoiser_folder, "out_channels")
    return TensorSpec("model_output", dtype, ("rows", channels, "height", "width"))


def _unet_conditions(checkpoint: Checkpoint, dtype: str) -> tuple[TensorSpec, ...]:
    """The inputs of a UNet beside those that every denoiser has: SDXL's pooled text and sizes, LCM's guidance scale."""
    folder = checkpoint.family.denoiser_folder
    conditions = []
    if checkpoint.family.time_ids:
        values = checkpoint.family.time_ids_width
        sizes = values * checkpoint.number(folder, "addition_time_embed_dim")
        pooled = checkpoint.number(folder, "projection_class_embeddings_input_dim") - sizes
        conditions.append(TensorSpec("text_embeds", dtype, ("rows", pooled)))
        conditions.append(TensorSpec("time_ids", "float32", ("rows", values)))
    if checkpoint.configs[folder].get("time_cond_proj_dim") is not None:
        conditions.append(TensorSpec("timestep_cond", dtype, ("rows", checkpoint.number(folder, "time_cond_proj_dim"))))
    return tuple(conditions)


def _image_scale(checkpoint: Checkpoint) -> float:
    """What the channels behind the noisy latents are multiplied by: pictures come in the sampler's scale."""
    return 1 / vae_scaling(checkpoint.configs["vae"]) if task_of(checkpoint).unscaled else 1.0
