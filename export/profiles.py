"""From ``--aspects`` and ``--batch`` to the axis ranges of every engine."""

from __future__ import annotations

import re
from dataclasses import dataclass

from ..runtime.errors import RequestError
from ..runtime.spec import TOKENS_PER_CHUNK, AxisRange, Profile
from .families import Family

MAX_CHUNKS = 4  # of 77 tokens each


@dataclass(frozen=True)
class Batch:
    """Images per call: the smallest, the one engines are tuned for, the largest.

    Raises:
        RequestError: not three positive integers in ascending order.
    """

    min: int
    opt: int
    max: int

    def __post_init__(self) -> None:
        if not 1 <= self.min <= self.opt <= self.max:
            raise _not_a_batch(f"{self.min}:{self.opt}:{self.max}")


def batch_from_text(text: str) -> Batch:
    """``"1:2:8"`` or ``"4"`` (exactly four).

    Raises:
        RequestError: not one or three positive integers in ascending order.
    """
    parts = text.split(":")
    if len(parts) not in (1, 3) or not all(part.isdecimal() for part in parts):
        raise _not_a_batch(text)
    return Batch(int(parts[0]), int(parts[len(parts) // 2]), int(parts[-1]))


def _not_a_batch(received: str) -> RequestError:
    expected = "MIN:OPT:MAX with 1 <= MIN <= OPT <= MAX, or one number"
    return RequestError("--batch", received=received, expected=expected)


def buckets_from_text(text: str | None, family: Family, native_side: int, stride: int) -> tuple[tuple[int, int], ...]:
    """The (width, height) buckets of ``--aspects``: a family's name, a list (``1024x1024,1152x896``), or None.

    The default, and a family's name, give the family's buckets scaled to the checkpoint's native size, each side
    rounded to the nearest multiple of the stride.

    Raises:
        RequestError: not a list of sizes, or a side that is not a multiple of the stride.
    """
    if text is None or text == family.name:
        scaled = [
            tuple(max(stride, round(side * native_side / family.native_side / stride) * stride) for side in bucket)
            for bucket in family.buckets
        ]
        return tuple(dict.fromkeys((width, height) for width, height in scaled))
    buckets = []
    for part in text.split(","):
        match = re.fullmatch(r"(\d+)x(\d+)", part.strip())
        if match is None:
            raise RequestError("--aspects", received=part, expected=f"WIDTHxHEIGHT,... or {family.name}")
        width, height = int(match[1]), int(match[2])
        if width < stride or height < stride or width % stride or height % stride:
            raise RequestError("--aspects", received=part.strip(), expected=f"sides that are multiples of {stride}")
        buckets.append((width, height))
    return tuple(dict.fromkeys(buckets))


def default_bucket(buckets: tuple[tuple[int, int], ...], native_side: int) -> tuple[int, int]:
    """The (width, height) that engines are tuned for and requests get by default: the native square, or the first."""
    native = (native_side, native_side)
    return native if native in buckets else buckets[0]


def profiles(buckets: tuple[tuple[int, int], ...], batch: Batch, scale: int, native_side: int) -> dict[str, AxisRange]:
    """The range of every symbolic axis that components use; sizes in latent pixels, ``scale`` image pixels each.

    ``rows`` of the denoiser span one row of the smallest batch to two (guidance) of the largest.
    """
    opt_width, opt_height = default_bucket(buckets, native_side)
    widths, heights = [width for width, _ in buckets], [height for _, height in buckets]
    return {
        "rows": AxisRange(batch.min, 2 * batch.opt, 2 * batch.max),
        "images": AxisRange(1, batch.opt, batch.max),
        "texts": AxisRange(1, 2 * batch.opt, 2 * batch.max),
        "width": AxisRange(min(widths) // scale, opt_width // scale, max(widths) // scale),
        "height": AxisRange(min(heights) // scale, opt_height // scale, max(heights) // scale),
        "tokens": AxisRange(TOKENS_PER_CHUNK, TOKENS_PER_CHUNK, MAX_CHUNKS * TOKENS_PER_CHUNK),
    }


def profile_for(axes: set[str], ranges: dict[str, AxisRange]) -> Profile:
    """The part of the ranges that a component's own axes need."""
    return {name: ranges[name] for name in ranges if name in axes}
