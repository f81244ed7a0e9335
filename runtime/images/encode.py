"""Pictures to latents."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager

import numpy as np
from numpy.typing import NDArray

from ...kernels.inputs import pixels_from_image
from ..engines import Engines
from ..timing import Timings
from .encoding_plan import OUTPUTS, EncodingPlan
from .per_image import PerImage
from .tiles import TILE_OVERLAP, in_tiles, tile_side

Array = NDArray[np.float32]

_COMPONENT = "vae_encoder"


def encode(engines: Engines, pictures: PerImage, timings: Timings) -> tuple[Array, Array]:
    """Pictures as mean and standard deviation of their latents, ``[images, C, h, w]``.

    One by one, for the same reasons as in decoding. What is larger than the encoder's profile is encoded in tiles of
    the size that the engine is tuned for.

    Args:
        engines: with a ``vae_encoder``.
        pictures: bytes ``[n, H, W, 3]``, or float32 ``[n, 3, H, W]`` in -1..1.
        timings: of the call.
    """
    encoded = []
    for picture in pictures.values:
        with timings.stage("encode"):
            encoded.append(_encode(engines, picture, timings))
    means, deviations = np.split(np.concatenate(encoded), 2, axis=1)
    return means[pictures.index], deviations[pictures.index]


def warm_encoder(engines: Engines, height: int, width: int) -> None:
    """Prepare the encoding of pictures of a size in pixels, of bytes and of floats, unless they take tiles."""
    if _tile(engines, height, width) != (height, width):
        return
    with _plan(engines, height, width) as plan:
        plan.warm()
    engines.run(_COMPONENT, {"image": np.zeros((1, 3, height, width), np.float32)}, Timings())


def _encode(engines: Engines, picture: NDArray[np.generic], timings: Timings) -> Array:
    """One picture, ``[H, W, 3]`` or ``[3, H, W]``, as ``[1, 2 * C, h, w]``."""
    in_bytes = picture.dtype == np.uint8
    height, width = picture.shape[:2] if in_bytes else picture.shape[1:]
    tile = _tile(engines, height, width)
    if in_bytes and tile == (height, width):
        with _plan(engines, height, width) as plan:
            return plan.encode(picture.astype(np.uint8, copy=False), timings)

    def run(part: Array) -> Array:
        outputs = engines.run(_COMPONENT, {"image": part}, timings)
        return np.concatenate([outputs[name] for name in OUTPUTS], axis=1)  # [1, 2C, h, w]

    pixels = as_pixels(picture[None])
    scale = engines.bundle.manifest.latent_space.scale
    return in_tiles(run, pixels, (tile[0] // scale, tile[1] // scale), TILE_OVERLAP, scale=1, stride=scale)


def as_pixels(pictures: NDArray[np.generic]) -> Array:
    """Bytes ``[n, H, W, 3]``, or what is float32 already, as float32 ``[n, 3, H, W]`` in -1..1."""
    if pictures.dtype == np.uint8:
        return pixels_from_image(pictures.astype(np.uint8, copy=False))
    return pictures.astype(np.float32, copy=False)


@contextmanager
def _plan(engines: Engines, height: int, width: int) -> Iterator[EncodingPlan]:
    with engines.runner.turn():
        runner, engine = engines.runner, engines[_COMPONENT]
        contract = engines.bundle.manifest.components[_COMPONENT]
        with runner.plan(
            (engine, "encoding", height, width), lambda: EncodingPlan(runner, engine, contract, height, width)
        ) as plan:
            yield plan


def _tile(engines: Engines, height: int, width: int) -> tuple[int, int]:
    """Height and width of the tiles in pixels, those of the picture where it needs none."""
    manifest = engines.bundle.manifest
    scale, profile = manifest.latent_space.scale, manifest.components[_COMPONENT].profile
    return (
        scale * tile_side(height // scale, profile["height"]),
        scale * tile_side(width // scale, profile["width"]),
    )
