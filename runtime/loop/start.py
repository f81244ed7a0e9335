"""How a run begins: the first state, from noise or from a picture, and what the denoiser sees beside it.

Noise comes from the stream of each image in the order in which diffusers' pipelines draw it: a sample of what the
encoder says about the picture, the noise, a sample for the masked picture.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from ..bundles.manifest import Manifest
from ..noise.torch_cpu import NoiseSource
from ..requests.request import Request
from ..samplers import SamplerTable

Array = NDArray[np.float32]

#: Mean and standard deviation of the latents of ``[images, 3, H, W]``, in the sampler's scale.
EncodePixels = Callable[[Array], tuple[Array, Array]]


@dataclass(frozen=True)
class Kept:
    """What a masked run keeps of its picture: clean ``latents`` and their ``noise`` where ``mask`` is 0."""

    latents: Array
    noise: Array
    mask: Array  # [images, 1, h, w]
    to_the_end: bool  # the run's last state is a picture, not a hand-over


@dataclass(frozen=True)
class Start:
    """The first ``state [images, C, h, w]``; channels for every row; the latents that an edit is guided by."""

    state: Array
    kept: Kept | None = None
    extra_channels: Array | None = None
    image_latents: Array | None = None


def start_of(
    request: Request, table: SamplerTable, manifest: Manifest, streams: Sequence[NoiseSource], encode: EncodePixels
) -> Start:
    """The start of a run; ``streams`` has one stream of noise per image."""
    source, space = request.source, manifest.latent_space
    shape = (space.channels, request.height // space.scale, request.width // space.scale)

    def sample(pixels: Array) -> Array:
        mean, deviation = encode(pixels)
        return mean + deviation * np.stack([stream.randn(shape) for stream in streams])

    def draw() -> Array:
        return request.latents if request.latents is not None else np.stack([stream.randn(shape) for stream in streams])

    if manifest.task == "edit":
        assert source.pixels is not None or source.latents is not None  # the request was checked
        seen = source.latents if source.pixels is None else encode(source.pixels)[0]
        return Start(from_noise(table, draw()), image_latents=seen)
    if not source.has_image:
        return Start(from_noise(table, draw()), extra_channels=source.depth)

    clean: Array | None = source.latents
    whole = source.mask is not None and source.strength == 1  # nothing of the picture is left where it is drawn anew
    if source.pixels is not None and not (whole and manifest.task == "inpainting"):
        clean = sample(source.pixels)
    if source.denoising_start is not None:
        assert clean is not None
        return Start(clean.astype(np.float32), extra_channels=source.depth)
    noise = draw()
    if whole or clean is None:
        state = from_noise(table, noise)
    else:
        state = np.float32(table.start_signal) * clean + np.float32(table.start_noise) * noise
    if source.mask is None:
        return Start(state, extra_channels=source.depth)
    mask = np.ascontiguousarray(source.mask[:, :, :: space.scale, :: space.scale])  # [images, 1, h, w]
    if manifest.task == "inpainting":
        assert source.pixels is not None
        masked = sample(source.pixels * (1 - source.mask))
        return Start(state, extra_channels=np.concatenate([mask, masked], axis=1))
    if source.pixels is not None and table.stochastic:
        for stream in streams:  # diffusers encodes the masked picture also where no denoiser sees it
            stream.randn(shape)
    assert clean is not None
    return Start(state, kept=Kept(clean, noise, mask, to_the_end=request.denoising_end is None))


def from_noise(table: SamplerTable, noise: Array) -> Array:
    """The first state of a run from noise: unit variance scaled to the table's first noise level, a new array."""
    return np.multiply(noise, float(table.initial_noise_scale), dtype=np.float32)
