"""How latents become pictures: the arguments about it, checked."""

from __future__ import annotations

from dataclasses import dataclass

from ..bundles.manifest import Manifest
from ..bundles.spec import AxisRange, Profile
from ..checks import fraction, integer, one_of
from ..errors import BundleError, RequestError

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
    component = DECODERS[one_of("decoder", decoder, DECODERS)]
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


def _square(profile: Profile) -> AxisRange:
    """The sides that a square may have."""
    height, width = profile["height"], profile["width"]
    low, high = max(height.min, width.min), min(height.max, width.max)
    return AxisRange(low, min(max(height.opt, low), high), high)
