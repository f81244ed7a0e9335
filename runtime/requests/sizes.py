"""The size of a run: what was asked for, a picture's own, or the bundle's default."""

from __future__ import annotations

from typing import Any

from ..bundles.manifest import Manifest
from ..checks import integer, shown
from ..errors import RequestError
from ..images.pictures import is_latents, picture_size
from .arguments import Size


def size_of_run(height: int | None, width: int | None, image: Any, manifest: Manifest) -> Size:
    """The (height, width) in pixels that a run has, with ``image`` the picture it starts from, if any.

    Raises:
        RequestError: a side that the model's stride or the bundle's profile does not allow.
    """
    own, of = (manifest.defaults.height, manifest.defaults.width), ""
    if image is not None and (height is None or width is None):
        space = manifest.latent_space
        of = " of the picture"
        if is_latents(image, space.channels):
            own = (image.shape[2] * space.scale, image.shape[3] * space.scale)
        else:
            own = picture_size(image)
    wide = _side("width", of, own[1], manifest) if width is None else _side("width", "", width, manifest)
    return _side("height", of, own[0], manifest) if height is None else _side("height", "", height, manifest), wide


def sizes_of_runs(sizes: Any, manifest: Manifest) -> list[Size]:
    """The (height, width) of runs whose ``sizes`` are given as (width, height).

    Raises:
        RequestError: something else than a list of pairs, or a side that a run cannot have.
    """
    try:
        pairs = [(width, height) for width, height in sizes]
    except (TypeError, ValueError):
        expected = "a list of (width, height) in pixels, for example [(1024, 1024)]"
        raise RequestError("sizes", received=shown(sizes), expected=expected) from None
    return [size_of_run(height, width, None, manifest) for width, height in pairs]


def _side(name: str, of: str, value: int, manifest: Manifest) -> int:
    space, denoiser = manifest.latent_space, manifest.components.get("denoiser")
    subject, pixels = name + of, integer(name, value, 1, None)
    low, high = space.stride, None
    if denoiser is not None:
        axis = denoiser.profile[name]
        low, high = axis.min * space.scale, axis.max * space.scale
    expected = f"a multiple of {space.stride} from {low}" + (f" to {high}" if high else "")
    resize = f"; a picture is resized to the {name} you give" if of else ""
    if pixels % space.stride:
        near = max(low, round(pixels / space.stride) * space.stride)
        remedy = f"the nearest is {min(near, high or near)}{resize}"
        raise RequestError(subject, received=pixels, expected=expected, remedy=remedy)
    if pixels < low or (high is not None and pixels > high):
        remedy = f"build the bundle with larger or smaller --aspects to allow other sizes{resize}"
        raise RequestError(subject, received=pixels, expected=expected, remedy=remedy)
    return pixels
