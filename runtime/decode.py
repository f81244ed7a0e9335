"""Latents to pictures: which decoder, and in which tiles."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from ..kernels.reference import image_from_decoded
from .checks import fraction, integer
from .engines import Engines
from .errors import BundleError, RequestError
from .manifest import Manifest
from .spec import AxisRange, Profile
from .tiles import in_tiles
from .timing import Timings

Array = NDArray[np.float32]

DECODERS = {"vae": "vae_decoder", "tiny": "tiny_decoder"}
MAX_TILE_OVERLAP = 0.5


@dataclass(frozen=True)
class Decoding:
    """How latents become pictures: by which component, in tiles of how many pixels (None: as needed), overlapping."""

    component: str
    tile_size: int | None
    tile_overlap: float


def decoding_from(decoder: str, tile_size: int | None, tile_overlap: float, manifest: Manifest) -> Decoding:
    """Check the arguments about decoding.

    Raises:
        RequestError: an unknown decoder, a tile that the decoder's profile does not allow, or a bad overlap.
        BundleError: the bundle has no such decoder.
    """
    if decoder not in DECODERS:
        raise RequestError("decoder", received=repr(decoder), expected=" or ".join(map(repr, DECODERS)))
    component = DECODERS[decoder]
    if component not in manifest.components:
        raise BundleError(
            f"{manifest.name}: no {component}",
            received="components " + ", ".join(manifest.components),
            remedy=f"build it: latentrt build-engines CHECKPOINT --out BUNDLE --component {component}"
            + (" --tiny-vae FOLDER" if decoder == "tiny" else ""),
        )
    if tile_size is not None:
        scale = manifest.latent_space.scale
        allowed = _square(manifest.components[component].profile)
        size = integer("tile_size", tile_size, 1, None)
        if size % scale or size // scale not in allowed:
            expected = f"a multiple of {scale} from {allowed.min * scale} to {allowed.max * scale}"
            raise RequestError("tile_size", received=size, expected=expected)
    return Decoding(component, tile_size, fraction("tile_overlap", tile_overlap, MAX_TILE_OVERLAP))


def decode(engines: Engines, latents: Array, decoding: Decoding, timings: Timings) -> Array:
    """``latents [images, C, h, w]`` as pictures ``[images, H, W, 3]`` in 0..1.

    One by one: decoding is compute-bound, and its memory grows with the batch. What is larger than the decoder's
    profile is decoded in tiles of the size that the engine is tuned for.
    """
    manifest = engines.bundle.manifest
    scale, profile = manifest.latent_space.scale, manifest.components[decoding.component].profile
    smallest = [manifest.latent_space.channels, profile["height"].min, profile["width"].min]
    if latents.ndim != 4 or latents.shape[1] != smallest[0] or any(np.less(latents.shape[2:], smallest[1:])):
        expected = f"[n, C, h, w] with C, h and w of at least {smallest}"
        raise RequestError("latents to decode", received=list(latents.shape), expected=expected)
    tile = [
        decoding.tile_size // scale
        if decoding.tile_size is not None
        else (side if side <= profile[axis].max else profile[axis].opt)
        for side, axis in zip(latents.shape[2:], ("height", "width"), strict=True)
    ]

    def run(part: Array) -> Array:
        image: Array = engines.run(decoding.component, {"latents": part}, timings)["image"]
        return image

    pictures = []
    for i in range(len(latents)):
        with timings.stage("decode"):
            decoded = in_tiles(run, latents[i : i + 1], (tile[0], tile[1]), decoding.tile_overlap, scale)
        with timings.stage("postprocess"):
            pictures.append(image_from_decoded(decoded))
    return np.concatenate(pictures) if len(pictures) > 1 else pictures[0]


def _square(profile: Profile) -> AxisRange:
    """The sides that a square may have."""
    height, width = profile["height"], profile["width"]
    low, high = max(height.min, width.min), min(height.max, width.max)
    return AxisRange(low, min(max(height.opt, low), high), high)
