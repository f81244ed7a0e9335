"""Latents to pictures: which decoder, and in which tiles."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager

import numpy as np
from numpy.typing import NDArray

from ...kernels.reference import bytes_from_image, image_from_decoded
from ..bundles.manifest import Manifest
from ..device.interface import Buffer
from ..engines import Engines
from ..errors import RequestError
from ..requests.decoding import Decoding
from ..timing import Timings
from .picture_plan import PicturePlan
from .tiles import in_tiles, tile_side

Array = NDArray[np.float32]


def decode(engines: Engines, latents: Array, decoding: Decoding, timings: Timings) -> Array:
    """``latents [images, C, h, w]`` as pictures ``[images, H, W, 3]`` in 0..1.

    One by one: decoding is compute-bound, and its memory grows with the batch. What is larger than the decoder's
    profile is decoded in tiles of the size that the engine is tuned for.
    """
    tile = _tile(engines.bundle.manifest, latents, decoding)
    scale = engines.bundle.manifest.latent_space.scale

    def run(part: Array) -> Array:
        image: Array = engines.run(decoding.component, {"latents": part}, timings)["image"]
        return image

    pictures = []
    for i in range(len(latents)):
        one = latents[i : i + 1]
        with timings.stage("decode"):
            if tile == one.shape[2:]:
                with _plan(engines, decoding.component, *tile) as plan:
                    decoded = plan.decoded(one, timings)
            else:
                decoded = in_tiles(run, one, tile, decoding.tile_overlap, scale)
        with timings.stage("postprocess"):
            pictures.append(image_from_decoded(decoded))
    return np.concatenate(pictures) if len(pictures) > 1 else pictures[0]


def decode_bytes(engines: Engines, latents: Array, decoding: Decoding, timings: Timings) -> Iterator[NDArray[np.uint8]]:
    """Each of ``latents [images, C, h, w]`` as a picture in bytes ``[1, H, W, 3]``."""
    whole = _tile(engines.bundle.manifest, latents, decoding) == latents.shape[2:]
    for i in range(len(latents)):
        one = latents[i : i + 1]
        if not whole:
            yield bytes_from_image(decode(engines, one, decoding, timings))
            continue
        with timings.stage("decode"), _plan(engines, decoding.component, one.shape[2], one.shape[3]) as plan:
            picture = plan.picture(one, timings)
        yield picture


def decode_on_device(engines: Engines, latents: Array, decoding: Decoding, timings: Timings) -> Buffer:
    """``latents [images, C, h, w]`` as pictures in bytes ``[images, H, W, 3]`` on the device, in their own memory."""
    manifest, device = engines.bundle.manifest, engines.runner.device
    height, width = latents.shape[2:]
    scale = manifest.latent_space.scale
    whole = _tile(manifest, latents, decoding) == (height, width)
    with engines.runner.turn(), timings.stage("decode"):
        shape = (len(latents), scale * height, scale * width, 3)
        pictures = engines.runner.with_room(lambda: device.allocate(shape, np.uint8))
        for i in range(len(latents)):
            if whole:
                with _plan(engines, decoding.component, height, width) as plan:
                    plan.enqueue(latents[i : i + 1], timings)
                    device.stream.copy(pictures[i : i + 1], plan.pixels)
                    device.stream.synchronize()
            else:
                tiled = bytes_from_image(decode(engines, latents[i : i + 1], decoding, timings))
                device.stream.upload(pictures[i : i + 1], tiled)
        device.stream.synchronize()
    return pictures


def warm_decoder(engines: Engines, component: str, height: int, width: int) -> None:
    """Prepare the decoding of latents of a size, unless they are decoded in tiles."""
    profile = engines.bundle.manifest.components[component].profile
    if height in profile["height"] and width in profile["width"]:
        with _plan(engines, component, height, width) as plan:
            plan.warm()


@contextmanager
def _plan(engines: Engines, component: str, height: int, width: int) -> Iterator[PicturePlan]:
    runner, engine, manifest = engines.runner, engines[component], engines.bundle.manifest
    contract = manifest.components[component]
    with (
        runner.turn(),
        runner.plan(
            (engine, "picture", height, width),
            lambda: PicturePlan(runner, engine, contract, height, width),
        ) as plan,
    ):
        yield plan


def _tile(manifest: Manifest, latents: Array, decoding: Decoding) -> tuple[int, int]:
    """Height and width of the tiles, those of the latents where they need none.

    Raises:
        RequestError: latents that the decoder does not take even in tiles.
    """
    scale, profile = manifest.latent_space.scale, manifest.components[decoding.component].profile
    smallest = [manifest.latent_space.channels, profile["height"].min, profile["width"].min]
    if latents.ndim != 4 or latents.shape[1] != smallest[0] or np.less(latents.shape, [1, *smallest]).any():
        expected = f"[n, C, h, w] with n of at least 1, C, h and w of at least {smallest}"
        raise RequestError("latents to decode", received=list(latents.shape), expected=expected)
    sides = [
        min(side, decoding.tile_size // scale) if decoding.tile_size is not None else tile_side(side, profile[axis])
        for side, axis in zip(latents.shape[2:], ("height", "width"), strict=True)
    ]
    return sides[0], sides[1]
