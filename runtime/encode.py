"""Pictures to latents."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from .engines import Engines
from .timing import Timings

Array = NDArray[np.float32]


def encode(engines: Engines, pixels: Array, timings: Timings) -> tuple[Array, Array]:
    """``pixels [images, 3, H, W]`` in -1..1 -> mean and standard deviation of their latents, ``[images, C, h, w]``.

    One by one, for the same reasons as in decoding; a picture that several images start from is encoded once.
    """
    means: list[Array] = []
    deviations: list[Array] = []
    for i in range(len(pixels)):
        if i > 0 and np.array_equal(pixels[i], pixels[i - 1]):
            means.append(means[-1])
            deviations.append(deviations[-1])
            continue
        with timings.stage("encode"):
            outputs = engines.run("vae_encoder", {"image": pixels[i : i + 1]}, timings)
        means.append(outputs["latents_mean"])
        deviations.append(outputs["latents_std"])
    return np.concatenate(means), np.concatenate(deviations)
