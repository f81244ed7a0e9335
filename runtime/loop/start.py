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
from ..images.encode import as_pixels
from ..images.per_image import PerImage
from ..noise.torch_cpu import NoiseSource
from ..requests.request import Request
from ..samplers import SamplerTable

Array = NDArray[np.float32]

#: Mean and standard deviation of the latents ``[images, C, h, w]`` of pictures, in the sampler's scale.
EncodePictures = Callable[[PerImage], tuple[Array, Array]]


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
    request: Request, table: SamplerTable, manifest: Manifest, streams: Sequence[NoiseSource], encode: EncodePictures
) -> Start:
    """The start of a run; ``streams`` has one stream of noise per image."""
    source, space = request.source, manifest.latent_space
    shape = (space.channels, request.height // space.scale, request.width // space.scale)

    def sample(pictures: PerImage) -> Array:
        mean, deviation = encode(pictures)
        return mean + deviation * np.stack([stream.randn(shape) for stream in streams])

    def draw() -> Array:
        return request.latents if request.latents is not None else np.stack([stream.randn(shape) for stream in streams])

    clean: Array | None = None if source.latents is None else source.latents.of_images()
    depth = None if source.depth is None else source.depth.of_images()
    if manifest.task == "edit":
        assert clean is not None or source.pictures is not None  # the request was checked
        seen = clean if source.pictures is None else encode(source.pictures)[0]
        return Start(from_noise(table, draw()), image_latents=seen)
    if not source.has_image:
        return Start(from_noise(table, draw()), extra_channels=depth)

    whole = source.mask is not None and source.strength == 1  # nothing of the picture is left where it is drawn anew
    if source.pictures is not None and not (whole and manifest.task == "inpainting"):
        clean = sample(source.pictures)
    if source.denoising_start is not None:
        assert clean is not None
        return Start(clean, extra_channels=depth)
    noise = draw()
    if whole or clean is None:
        state = from_noise(table, noise)
    else:
        state = np.float32(table.start_signal) * clean + np.float32(table.start_noise) * noise
    if source.mask is None:
        return Start(state, extra_channels=depth)
    of_latents = source.mask.values[:, :, :: space.scale, :: space.scale]
    mask = of_latents[source.mask.index]  # [images, 1, h, w]
    if manifest.task == "inpainting":
        assert source.pictures is not None
        masked = sample(_cut_out(source.pictures, source.mask))
        return Start(state, extra_channels=np.concatenate([mask, masked], axis=1))
    if source.pictures is not None and table.stochastic:
        for stream in streams:  # diffusers encodes the masked picture also where no denoiser sees it
            stream.randn(shape)
    assert clean is not None
    return Start(state, kept=Kept(clean, noise, mask, to_the_end=request.denoising_end is None))


def _cut_out(pictures: PerImage, mask: PerImage) -> PerImage:
    """The pictures, grey where the mask is 1: float32 ``[n, 3, H, W]`` in -1..1."""
    both = np.stack([pictures.index, mask.index], axis=1)
    pairs, index = np.unique(both, axis=0, return_inverse=True)
    cut = as_pixels(pictures.values[pairs[:, 0]]) * (1 - mask.values[pairs[:, 1]])
    return PerImage(cut, index.reshape(-1))


def from_noise(table: SamplerTable, noise: Array) -> Array:
    """The first state of a run from noise: unit variance scaled to the table's first noise level, a new array."""
    return np.multiply(noise, float(table.initial_noise_scale), dtype=np.float32)
