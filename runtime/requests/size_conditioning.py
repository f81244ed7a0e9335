"""What a denoiser is told of the sizes of its pictures (SDXL, arXiv:2307.01952, section 2.2), and how good they are."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from ..bundles.manifest import Manifest
from ..checks import finite, pair
from .arguments import Size


@dataclass(frozen=True)
class SizeConditioning:
    """SDXL's micro-conditioning of one row: (height, width) or (top, left) pairs in image pixels, and a score."""

    original_size: Size
    crops_coords_top_left: Size
    target_size: Size
    aesthetic_score: float


def size_conditioning_from_arguments(
    manifest: Manifest,
    size: Size,
    *,
    original_size: Any,
    crops_coords_top_left: Any,
    target_size: Any,
    negative_original_size: Any,
    negative_crops_coords_top_left: Any,
    negative_target_size: Any,
    aesthetic_score: Any,
    negative_aesthetic_score: Any,
) -> tuple[SizeConditioning, SizeConditioning]:
    """That of the conditional and that of the unconditional rows of pictures of ``size``.

    Raises:
        RequestError: something that is no pair, or no score.
    """
    positive = SizeConditioning(
        _pair_or("original_size", original_size, size),
        pair("crops_coords_top_left", crops_coords_top_left),
        _pair_or("target_size", target_size, size),
        finite("aesthetic_score", aesthetic_score),
    )
    negative = SizeConditioning(
        _pair_or("negative_original_size", negative_original_size, positive.original_size),
        pair("negative_crops_coords_top_left", negative_crops_coords_top_left),
        _pair_or("negative_target_size", negative_target_size, positive.target_size),
        finite("negative_aesthetic_score", negative_aesthetic_score),
    )
    # diffusers' text-to-image pipeline needs both sizes; that of the refiner fills in what is not given.
    scored = "aesthetic_score" in manifest.conditioning.time_ids
    given = negative_original_size is not None and negative_target_size is not None
    return positive, negative if scored or given else positive


def _pair_or(name: str, value: Any, default: Size) -> Size:
    return default if value is None else pair(name, value)
