"""A component before export: one network of a checkpoint with its contract, and the sizes that its config implies."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Any

from torch import nn

from ...runtime.bundles.spec import TensorSpec, axis_and_factor
from ...runtime.errors import CheckpointError
from ..checkpoints.checkpoint import Checkpoint
from ..checkpoints.families import SD1
from ..checkpoints.lazy_weights import Weights
from ..checkpoints.pretrained import network_weights
from ..checkpoints.tasks import TASKS, Task
from ..graphs.precision import PrecisionPlan
from .skeleton import fitting_weights, materialize, network_class, skeleton


@dataclass(frozen=True)
class SourceComponent:
    """A component before export.

    ``network()`` is the network without its weights, ``weights()`` has those by the network's own names, and ``wrap``
    makes of the network a module with the contract's inputs as positional arguments, in order. ``where`` names the
    component's place in errors. ``vocabulary`` is how many token ids a text encoder knows, ``skip_layers`` those that
    a denoiser can leave out row by row. ``settings`` are what else shaped the graph, beside the component's own config
    and weights: a rebuild compares them.
    """

    name: str
    folder: str
    where: str
    plan: PrecisionPlan
    inputs: tuple[TensorSpec, ...]
    outputs: tuple[TensorSpec, ...]
    network: Callable[[], nn.Module]
    wrap: Callable[[nn.Module], nn.Module]
    weights: Callable[[], Weights]
    vocabulary: int = 0
    skip_layers: tuple[int, ...] = ()
    settings: Mapping[str, str] = field(default_factory=dict)

    @property
    def precision(self) -> str:
        """What the component computes in: ``fp32``, ``fp16`` or ``bf16``."""
        return self.plan.compute

    @property
    def axes(self) -> set[str]:
        """The symbolic axes of the inputs, without factors."""
        dimensions = (size for tensor in self.inputs for size in tensor.shape if isinstance(size, str))
        return {axis_and_factor(dimension)[0] for dimension in dimensions}

    @property
    def weight_bytes(self) -> int:
        """Bytes that the weights take in the component's precision, each counted once whatever names it has."""
        distinct = {id(weight): weight for weight in self.weights().values()}
        return sum(math.prod(weight.shape) for weight in distinct.values()) * (4 if self.precision == "fp32" else 2)

    def check_weights(self) -> None:
        """Compare the names and shapes of the weights with the network's; their content is not read.

        Raises:
            CheckpointError: the weights do not fit the config.
        """
        fitting_weights(self.network(), self.weights(), self.where)

    def load(self) -> nn.Module:
        """The reference in fp32.

        Raises:
            CheckpointError: the weights do not fit the config.
        """
        return self.wrap(materialize(self.network(), self.weights(), self.where)).eval().requires_grad_(False)


def component(
    checkpoint: Checkpoint,
    name: str,
    folder: str,
    kind: str,
    wrap: Callable[[nn.Module], nn.Module],
    *,
    plan: PrecisionPlan,
    inputs: tuple[TensorSpec, ...],
    outputs: tuple[TensorSpec, ...],
    vocabulary: int = 0,
    skip_layers: tuple[int, ...] = (),
    settings: Mapping[str, str] | None = None,
) -> SourceComponent:
    """A component whose network is of the class named ``kind``, with the config and weights of a folder."""
    return SourceComponent(
        name=name,
        folder=folder,
        where=str(checkpoint.place(folder)),
        plan=plan,
        inputs=inputs,
        outputs=outputs,
        network=lambda: skeleton(network_class(kind), checkpoint.configs[folder]),
        wrap=wrap,
        weights=lambda: network_weights(checkpoint, folder),
        vocabulary=vocabulary,
        skip_layers=skip_layers,
        settings=settings or {},
    )


def vae_scale(checkpoint: Checkpoint) -> int:
    """Image pixels per latent pixel."""
    return int(2 ** (checkpoint.levels("vae") - 1))


def vae_scaling(config: Mapping[str, Any]) -> float:
    """What an autoencoder's latents are multiplied by for the sampler. Configs of the first checkpoints lack it."""
    return float(config.get("scaling_factor", SD1.vae_scaling))


def latent_stride(checkpoint: Checkpoint) -> int:
    """The multiple, in latent pixels, of which a side must be: a transformer's patch, or what a UNet halves evenly."""
    folder = checkpoint.family.denoiser_folder
    if "patch_size" in checkpoint.configs[folder]:
        return checkpoint.number(folder, "patch_size")
    return int(2 ** (checkpoint.levels(folder) - 1))


def native_side(checkpoint: Checkpoint) -> int:
    """The side, in image pixels, that the denoiser was trained at."""
    if checkpoint.configs[checkpoint.family.denoiser_folder].get("sample_size") is None:
        return checkpoint.family.native_side
    return checkpoint.number(checkpoint.family.denoiser_folder, "sample_size") * vae_scale(checkpoint)


def max_side(checkpoint: Checkpoint) -> int | None:
    """The longest side, in image pixels, that the denoiser has positions for, if it is limited."""
    folder = checkpoint.family.denoiser_folder
    if checkpoint.configs[folder].get("pos_embed_max_size") is None:
        return None
    return checkpoint.number(folder, "pos_embed_max_size") * latent_stride(checkpoint) * vae_scale(checkpoint)


def task_of(checkpoint: Checkpoint) -> Task:
    """What the denoiser was trained for, from its number of channels.

    Raises:
        CheckpointError: a number that no known task has.
    """
    folder = checkpoint.family.denoiser_folder
    received, latents = checkpoint.number(folder, "in_channels"), checkpoint.number(folder, "out_channels")
    channels = {task.name: latents + sum(extra.channels for extra in task.extra_channels(latents)) for task in TASKS}
    for task in TASKS:
        if channels[task.name] == received:
            return task
    raise CheckpointError(
        checkpoint.setting(folder, "in_channels"),
        received=received,
        expected=" or ".join(f"{count} ({name})" for name, count in channels.items()),
    )
