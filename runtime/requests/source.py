"""The picture that a run starts from or that its denoiser looks at: the arguments about it, checked."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from ..bundles.manifest import Manifest
from ..checks import finite, fraction, numbers
from ..errors import RequestError
from ..images.per_image import PerImage, spread
from ..images.pictures import depth_from, is_latents, mask_from, pictures_from

Array = NDArray[np.float32]

IMAGE_GUIDANCE_SCALE = 1.5  # diffusers' default


@dataclass(frozen=True)
class Source:
    """What a run has beside its prompts, for each image; None is what was not given.

    ``pictures``, bytes ``[n, H, W, 3]`` or float32 ``[n, 3, H, W]`` in -1..1, or ``latents [n, C, h, w]`` in the
    sampler's scale; ``mask [n, 1, H, W]``, 1 where the picture is drawn anew; ``depth [n, 1, h, w]`` in -1..1.
    """

    pictures: PerImage | None = None
    latents: PerImage | None = None
    mask: PerImage | None = None
    depth: PerImage | None = None
    strength: float | None = None
    denoising_start: float | None = None
    image_guidance_scale: float | None = None

    @property
    def has_image(self) -> bool:
        """Whether there is a picture, as itself or as latents."""
        return self.pictures is not None or self.latents is not None


@dataclass(frozen=True)
class Frame:
    """The sizes that pictures have to fit: image pixels, and how many images there are for how many prompts."""

    height: int
    width: int
    prompts: int
    images: int


def source_from_arguments(
    manifest: Manifest,
    frame: Frame,
    *,
    image: Any,
    mask_image: Any,
    depth_map: Any,
    strength: float | None,
    denoising_start: float | None,
    image_guidance_scale: float | None,
) -> Source:
    """Check the arguments about pictures and bring them to the run's size and number of images.

    Raises:
        RequestError: one that is missing for what the denoiser was trained to do, that has no meaning there, or that
            is not what it should be.
    """
    given = {
        "image": image,
        "mask_image": mask_image,
        "depth_map": depth_map,
        "strength": strength,
        "denoising_start": denoising_start,
        "image_guidance_scale": image_guidance_scale,
    }
    _check_combination(manifest, {name for name, value in given.items() if value is not None})
    pictures = latents = mask = depth = None
    space = manifest.latent_space
    if image is not None:
        if is_latents(image, space.channels):
            shape = (len(image), space.channels, frame.height // space.scale, frame.width // space.scale)
            latents = _spread("image", numbers("image as latents", image, shape, np.float32), frame)
        else:
            pictures = _spread("image", pictures_from(image, frame.height, frame.width), frame)
    if mask_image is not None:
        mask = _spread("mask_image", mask_from(mask_image, frame.height, frame.width), frame)
    if depth_map is not None:
        values = depth_from(depth_map, frame.height // space.scale, frame.width // space.scale)
        depth = _spread("depth_map", values, frame)
    if manifest.task == "inpainting" and pictures is None:
        raise RequestError(
            "image", received="latents", expected="a picture: the denoiser sees it with the mask cut out"
        )
    if image is not None and manifest.task != "edit" and denoising_start is None and strength is None:
        strength = 1.0 if mask is not None else manifest.defaults.strength
    if manifest.task == "edit" and image_guidance_scale is None:
        image_guidance_scale = IMAGE_GUIDANCE_SCALE
    return Source(
        pictures=pictures,
        latents=latents,
        mask=mask,
        depth=depth,
        strength=None if strength is None else fraction("strength", strength),
        denoising_start=None if denoising_start is None else fraction("denoising_start", denoising_start),
        image_guidance_scale=None
        if image_guidance_scale is None
        else finite("image_guidance_scale", image_guidance_scale),
    )


#: What the denoiser was trained for -> the pictures it cannot do without, and all arguments it has a use for.
_NEEDED = {
    "text-to-image": set[str](),
    "inpainting": {"image", "mask_image"},
    "edit": {"image"},
    "depth": {"depth_map"},
}
_USED = {
    "text-to-image": {"image", "mask_image", "strength", "denoising_start"},
    "inpainting": {"image", "mask_image", "strength"},
    "edit": {"image", "image_guidance_scale"},
    "depth": {"image", "depth_map", "strength"},
}


def _check_combination(manifest: Manifest, given: set[str]) -> None:
    """Refuse arguments that the denoiser has no use for, and those that need or exclude one another."""
    task = manifest.task
    for name in sorted(_NEEDED[task] - given):
        raise RequestError(f"{name} is missing", expected=f"a picture: {manifest.name} was trained for {task}")
    for name in sorted(given - _USED[task]):
        expected = f"of pictures, {manifest.name} ({task}) takes {', '.join(sorted(_USED[task]))}"
        raise RequestError(f"{name} has no use here", expected=expected)
    for name in sorted(given & {"mask_image", "strength", "denoising_start"}):
        if "image" not in given:
            raise RequestError(f"{name} without an image", expected="image=, which the run starts from")
    for other in sorted(given & {"mask_image", "strength"}):
        if "denoising_start" in given:
            raise RequestError(f"denoising_start and {other} exclude each other", expected="one of them")


def _spread(name: str, values: NDArray[Any], frame: Frame) -> PerImage:
    return spread(name, values, frame.prompts, frame.images)
