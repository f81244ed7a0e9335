"""Pictures that go into a run, as arrays: what diffusers' image processor makes of them."""

from __future__ import annotations

import hashlib
from collections.abc import Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from ..checks import finite, shown
from ..errors import RequestError

Array = NDArray[np.float32]

_FORMS = "a PIL picture, uint8 or float32 in 0..1 [H, W, 3] or [n, H, W, 3], or a list of those"
_MASK_FORMS = "a PIL picture, bool, uint8 or float32 in 0..1 [H, W] or [n, H, W], or a list of those"
_DEPTH_FORMS = "a grey PIL picture or an array [H, W] or [n, H, W] of finite values that are not all the same"

_MORE_THAN_8_BITS = ("I", "F")  # how PIL's modes begin
_GREY_TOLERANCE = 8  # of 255: what JPEG leaves between the channels of a grey picture


def is_latents(image: Any, channels: int) -> bool:
    """Whether an ``image`` argument is latents ``[n, C, h, w]`` and not pictures ``[n, H, W, 3]``."""
    return isinstance(image, np.ndarray) and image.ndim == 4 and image.shape[1] == channels and image.shape[3] != 3


def picture_size(image: Any) -> tuple[int, int]:
    """(height, width) in pixels of the first picture.

    Raises:
        RequestError: nothing that holds pictures.
    """
    first = _listed("image", image, 3, _FORMS)[0]
    return (first.height, first.width) if isinstance(first, Image.Image) else (first.shape[0], first.shape[1])


def pictures_from(image: Any, height: int, width: int) -> NDArray[np.uint8] | Array:
    """Pictures as bytes ``[n, height, width, 3]``, or as ``[n, 3, height, width]`` in -1..1 if some are given so.

    PIL pictures and bytes are resized (Lanczos), floats are not.
    """
    sized = [_sized("image", one, "RGB", height, width) for one in _listed("image", image, 3, _FORMS)]
    if all(one.dtype == np.uint8 for one in sized):
        return np.stack(sized)
    values = np.stack([_in_floats(one) for one in sized])
    pixels: Array = values.transpose(0, 3, 1, 2) * np.float32(2) - np.float32(1)  # [n, 3, H, W]
    return np.ascontiguousarray(pixels)


def mask_from(mask: Any, height: int, width: int) -> Array:
    """Masks as ``[n, 1, height, width]``, 1 where the picture is drawn anew (0.5 and more) and 0 where it is kept."""
    pictures = _listed("mask_image", mask, 1, _MASK_FORMS)
    values = np.stack([_in_floats(_sized("mask_image", one, "L", height, width)) for one in pictures])
    redrawn: Array = (values[:, None] >= 0.5).astype(np.float32)  # [n, 1, H, W]
    return redrawn


def depth_from(depth: Any, height: int, width: int) -> Array:
    """Depth maps as ``[n, 1, height, width]`` in -1..1, each from its lowest to its highest value."""
    values = _depth_of_picture(depth) if isinstance(depth, Image.Image) else depth
    if (
        not isinstance(values, np.ndarray)
        or values.ndim not in (2, 3)
        or values.dtype.kind not in "uif"
        or 0 in values.shape
    ):
        raise RequestError("depth_map", received=shown(values), expected=_DEPTH_FORMS)
    if not np.isfinite(values).all():
        raise RequestError("depth_map", received="values that are not finite", expected=_DEPTH_FORMS)
    maps = np.stack([bicubic(one, height, width) for one in values.reshape(-1, *values.shape[-2:])])
    low, high = maps.min(axis=(1, 2), keepdims=True), maps.max(axis=(1, 2), keepdims=True)
    flat = high - low <= np.finfo(np.float32).eps * np.abs(maps).max()
    if flat.any():
        received = f"{float(low[flat][0]):g} everywhere at {width}x{height}"
        raise RequestError("depth_map", received=received, expected=_DEPTH_FORMS)
    scaled: Array = (2 * (maps - low) / (high - low) - 1).astype(np.float32)[:, None]  # [n, 1, h, w]
    return scaled


def _depth_of_picture(picture: Image.Image) -> NDArray[Any]:
    """The grey values ``[H, W]`` of a picture of 8, 16 or 32 bits, also of one that was saved with three channels."""
    picture = _loaded("depth_map", picture, _DEPTH_FORMS)
    if picture.mode.startswith(_MORE_THAN_8_BITS):
        return np.asarray(picture)
    channels = np.asarray(_converted("depth_map", picture, "RGB"), np.int16)
    if np.ptp(channels, axis=-1).max() > _GREY_TOLERANCE:
        received = f"a picture in colour (PIL's mode {picture.mode})"
        raise RequestError("depth_map", received=received, expected="a grey one, white where it is near")
    return np.asarray(_converted("depth_map", picture, "L"))


def bicubic(values: NDArray[Any], height: int, width: int) -> NDArray[np.float64]:
    """``[H, W]`` resized as ``torch.nn.functional.interpolate(mode="bicubic")`` does: Keys' kernel, no smoothing."""
    rows, columns = _bicubic_weights(values.shape[0], height), _bicubic_weights(values.shape[1], width)
    resized: NDArray[np.float64] = rows @ values.astype(np.float64) @ columns.T
    return resized


def _bicubic_weights(size: int, target: int) -> NDArray[np.float64]:
    """``[target, size]``: cubic convolution with a = -3/4 (Keys 1981), pixel centres aligned, the border repeated."""
    a = -0.75
    centre = (np.arange(target) + 0.5) * size / target - 0.5
    weights = np.zeros((target, size))
    for tap in range(-1, 3):
        index = np.floor(centre).astype(int) + tap
        t = np.abs(centre - index)
        near = ((a + 2) * t - (a + 3)) * t * t + 1
        far = a * (((t - 5) * t + 8) * t - 4)
        np.add.at(weights, (np.arange(target), np.clip(index, 0, size - 1)), np.where(t <= 1, near, far))
    return weights


def hash_of(values: NDArray[Any]) -> str:
    """The SHA-256 of what the run saw of a picture, in C order: bytes ``[H, W, 3]``, or float32 ``[C, H, W]``."""
    return hashlib.sha256(np.ascontiguousarray(values).data).hexdigest()


def _listed(name: str, given: Any, channels: int, expected: str) -> list[Any]:
    """The pictures of an argument, each PIL or an array ``[H, W]`` (one channel) or ``[H, W, 3]``."""
    dimensions = 2 if channels == 1 else 3
    if isinstance(given, np.ndarray) and given.ndim == dimensions + 1:
        given = list(given)
    pictures = list(given) if isinstance(given, Sequence) and not isinstance(given, str | bytes) else [given]
    for picture in pictures:
        if isinstance(picture, Image.Image):
            _loaded(name, picture, expected)
            continue
        if not isinstance(picture, np.ndarray):
            raise RequestError(name, received=type(picture).__name__, expected=expected)
        if picture.ndim != dimensions or (channels == 3 and picture.shape[2] != 3) or 0 in picture.shape:
            raise RequestError(name, received=f"{picture.dtype} {list(picture.shape)}", expected=expected)
    if not pictures:
        raise RequestError(name, received="an empty list", expected=expected)
    return pictures


def _in_floats(picture: NDArray[Any]) -> Array:
    return picture.astype(np.float32) / np.float32(255) if picture.dtype == np.uint8 else picture


def _sized(name: str, picture: Any, mode: str, height: int, width: int) -> NDArray[Any]:
    """One picture of the given size, ``[H, W]`` or ``[H, W, 3]``: uint8, or float32 in 0..1 if it was given so."""
    if isinstance(picture, np.ndarray) and picture.dtype == np.bool_:
        picture = picture.astype(np.uint8) * np.uint8(255)
    if isinstance(picture, np.ndarray) and picture.dtype == np.uint8:
        picture = Image.fromarray(picture)
    if isinstance(picture, Image.Image):
        # Resized first and converted then, in diffusers' order; a palette cannot be interpolated.
        if mode == "RGB" or picture.mode not in ("L", "RGB"):
            picture = _converted(name, picture, mode)
        if picture.size != (width, height):
            picture = picture.resize((width, height), Image.Resampling.LANCZOS)
        return np.asarray(picture.convert(mode))
    if picture.dtype.kind != "f":
        raise RequestError(name, received=f"an array of {picture.dtype}", expected="uint8, or float32 in 0..1")
    if picture.shape[:2] != (height, width):
        received = f"{picture.shape[1]}x{picture.shape[0]}"
        remedy = "resize it, or give a PIL picture or bytes, which are resized"
        raise RequestError(f"{name} in floating point", received=received, expected=f"{width}x{height}", remedy=remedy)
    low, high = finite(f"{name}'s lowest value", picture.min()), finite(f"{name}'s highest value", picture.max())
    if low < 0 or high > 1:
        raise RequestError(f"{name} in floating point", received=f"{low:g} to {high:g}", expected="values in 0..1")
    return np.asarray(picture, np.float32)


def _loaded(name: str, picture: Image.Image, expected: str) -> Image.Image:
    """A PIL picture whose pixels are there: PIL reads a file when they are first asked for."""
    if 0 in picture.size:
        raise RequestError(name, received=f"a picture of {picture.width}x{picture.height}", expected=expected)
    try:
        picture.load()
    except (OSError, SyntaxError, ValueError) as error:
        raise RequestError(name, received=f"a picture that cannot be read: {error}", expected=expected) from None
    return picture


def _converted(name: str, picture: Image.Image, mode: str) -> Image.Image:
    """``picture`` in 8-bit grey (``L``) or ``RGB``, transparency left out."""
    if picture.mode.startswith("I;16"):  # scaled, which PIL does not: everything above 255 would be white
        values = np.asarray(picture).astype(np.uint32)
        picture = Image.fromarray(((values * 255 + 32767) // 65535).astype(np.uint8))
    try:
        if picture.mode.startswith(_MORE_THAN_8_BITS):
            raise ValueError("its range is not known")
        # A palette's transparency can be left out after it has become a channel, and not before.
        return (picture.convert("RGBA") if "transparency" in picture.info else picture).convert(mode)
    except ValueError as error:
        received = f"a PIL picture of mode {picture.mode}: {error}"
        raise RequestError(name, received=received, expected="8 or 16 bits, such as L, RGB or I;16") from None
