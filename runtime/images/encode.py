"""Pictures to latents."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from ..engines import Engines
from ..timing import Timings
from .tiles import in_tiles

Array = NDArray[np.float32]


#: The share of a tile that it has in common with the next one, as in decoding.
TILE_OVERLAP = 0.25


def encode(engines: Engines, pixels: Array, timings: Timings) -> tuple[Array, Array]:
    """``pixels [images, 3, H, W]`` in -1..1 -> mean and standard deviation of their latents, ``[images, C, h, w]``.

    One by one, for the same reasons as in decoding; a picture that several images start from is encoded once. What is
    larger than the encoder's profile is encoded in tiles of the size that the engine is tuned for.
    """
    manifest = engines.bundle.manifest
    scale, profile = manifest.latent_space.scale, manifest.components["vae_encoder"].profile
    height, width = (
        side if side <= profile[axis].max else profile[axis].opt
        for side, axis in ((pixels.shape[2] // scale, "height"), (pixels.shape[3] // scale, "width"))
    )

    def run(part: Array) -> Array:
        outputs = engines.run("vae_encoder", {"image": part}, timings)
        return np.concatenate([outputs["latents_mean"], outputs["latents_std"]], axis=1)  # [1, 2C, h, w]

    encoded: list[Array] = []
    for i in range(len(pixels)):
        if i > 0 and np.array_equal(pixels[i], pixels[i - 1]):
            encoded.append(encoded[-1])
            continue
        with timings.stage("encode"):
            encoded.append(in_tiles(run, pixels[i : i + 1], (height, width), TILE_OVERLAP, scale=1, stride=scale))
    means, deviations = np.split(np.concatenate(encoded), 2, axis=1)
    return means, deviations
