"""What denoisers were trained for: their number of input channels tells it."""

from __future__ import annotations

from dataclasses import dataclass

from ...runtime.bundles.manifest import ExtraChannels


@dataclass(frozen=True)
class Task:
    """What a denoiser does, which its number of input channels tells.

    ``extra`` names what its input holds behind the noisy latents, in order. ``unscaled`` says that pictures among it
    were trained on without the autoencoder's scale.
    """

    name: str
    extra: tuple[str, ...] = ()
    unscaled: bool = False

    def extra_channels(self, latent_channels: int) -> tuple[ExtraChannels, ...]:
        """What is behind the noisy latents: a picture's latents, or one channel."""
        return tuple(ExtraChannels(name, latent_channels if name.endswith("_latents") else 1) for name in self.extra)


TASKS: tuple[Task, ...] = (
    Task("text-to-image"),
    Task("inpainting", ("mask", "masked_latents")),
    Task("edit", ("image_latents",), unscaled=True),  # arXiv:2211.09800
    Task("depth", ("depth",)),
)
