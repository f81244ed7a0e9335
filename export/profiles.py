"""From ``--aspects`` and ``--batch`` to the axis ranges of every engine."""

from __future__ import annotations

import re
from collections.abc import Iterable, Sequence
from dataclasses import dataclass

from ..runtime.bundles.spec import AxisRange, Profile
from ..runtime.errors import RequestError
from .buckets import Bucket
from .checkpoints.families import Family

#: How many times its native side a denoiser of no known limit may see at most.
_MAX_NATIVE_SIDES = 8


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
            raise _not_a_batch(str(self))

    def __str__(self) -> str:
        return str(self.min) if self.min == self.opt == self.max else f"{self.min}:{self.opt}:{self.max}"


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


def buckets_from_text(
    text: str | None, family: Family, native_side: int, stride: int, max_side: int | None = None
) -> tuple[Bucket, ...]:
    """The (width, height) buckets of ``--aspects``: a family's name, a list (``1024x1024,1152x896``), or None.

    The default is what the family's users work with; the family's name stands for all that it was trained on, where
    that was published. Both are scaled to the checkpoint's native size, each side rounded to the nearest multiple of
    the stride. ``max_side`` is the longest side that the denoiser can see; without that, it is where nothing but a slip
    of the pen can be meant.

    Raises:
        RequestError: not a list of sizes, or a side that is not a multiple of the stride, or too long.
    """
    highest = max_side or _MAX_NATIVE_SIDES * native_side
    if text is None or text == family.name:
        listed = family.buckets if text is None else family.training_buckets or family.buckets
        scaled = [
            tuple(max(stride, round(side * native_side / family.native_side / stride) * stride) for side in bucket)
            for bucket in listed
        ]
        return tuple(dict.fromkeys((width, height) for width, height in scaled if max(width, height) <= highest))
    buckets = []
    for part in text.split(","):
        match = re.fullmatch(r"(\d+)x(\d+)", part.strip())
        if match is None:
            raise RequestError("--aspects", received=text, expected=f"WIDTHxHEIGHT,... or {family.name}")
        width, height = int(match[1]), int(match[2])
        if width < stride or height < stride or width % stride or height % stride or max(width, height) > highest:
            expected = f"sides that are multiples of {stride}, up to {highest}"
            raise RequestError("--aspects", received=part.strip(), expected=expected)
        buckets.append((width, height))
    return tuple(dict.fromkeys(buckets))


def default_bucket(buckets: tuple[Bucket, ...], native_side: int) -> Bucket:
    """The (width, height) that engines are tuned for and requests get by default: the native square, or the first."""
    native = (native_side, native_side)
    return native if native in buckets else buckets[0]


def profiles(
    buckets: tuple[Bucket, ...], batch: Batch, scale: int, native_side: int, family: Family
) -> dict[str, AxisRange]:
    """The range of every symbolic axis that components use; sizes in latent pixels, ``scale`` image pixels each.

    ``rows`` of the denoiser span one row of the smallest batch to two (guidance) of the largest. ``prompt_tokens`` are
    the ids of an encoder that reads prompts of several lengths.
    """
    opt_width, opt_height = default_bucket(buckets, native_side)
    widths, heights = [width for width, _ in buckets], [height for _, height in buckets]
    ranges = {
        "rows": AxisRange(batch.min, 2 * batch.opt, 2 * batch.max),
        "images": AxisRange(1, batch.opt, batch.max),
        "texts": AxisRange(1, 2 * batch.opt, 2 * batch.max),
        "width": AxisRange(min(widths) // scale, opt_width // scale, max(widths) // scale),
        "height": AxisRange(min(heights) // scale, opt_height // scale, max(heights) // scale),
        "tokens": family.tokens,
    }
    for record in family.text_encoders:
        if record.tokens.min < record.tokens.max:
            ranges["prompt_tokens"] = record.tokens
    return ranges


def profile_for(axes: set[str], ranges: dict[str, AxisRange]) -> Profile:
    """The part of the ranges that a component's own axes need."""
    return {name: ranges[name] for name in ranges if name in axes}


@dataclass(frozen=True)
class Tuning:
    """What engines are tuned for: the usual one of the ``buckets`` (image pixels), or each of them in a profile of its
    own. ``scale`` is how many image pixels a latent pixel is."""

    buckets: tuple[Bucket, ...]
    scale: int
    each: bool = False

    def profiles(self, profile: Profile) -> tuple[Profile, ...]:
        """The profiles of a component's engine, which together span (or, with ``each``, lie in) the component's one."""
        if not self.each or "width" not in profile:
            return (profile,)
        return tuple({**profile, **self._sides(bucket)} for bucket in dict.fromkeys(self.buckets))

    def key(self, profiles: Sequence[Profile]) -> dict[str, str]:
        """Profiles by parts that a person would change: the smallest, usual and largest size in image pixels, and every
        other axis. A part has a value for each profile, or one if it is the same in all."""
        parts = {}
        axes = profiles[0] if profiles else {}
        if "width" in axes:
            for pick in ("min", "opt", "max"):
                parts[f"profile.{pick}"] = _joined(self._size(profile, pick) for profile in profiles)
        for axis in axes:
            if axis not in ("width", "height"):
                parts[f"profile.{axis}"] = _joined(str(profile[axis]) for profile in profiles)
        return parts

    def text(self, ranges: Profile) -> str:
        """The profiles for people, a line each: sizes in image pixels, axes as ``min..opt..max``."""
        lines = []
        for number, profile in enumerate(self.profiles(ranges)):
            axes = [f"{axis} {allowed}" for axis, allowed in profile.items() if axis not in ("width", "height")]
            if "width" in profile:
                sizes = [self._size(profile, pick) for pick in ("min", "opt", "max")]
                axes.insert(0, sizes[0] if sizes[0] == sizes[2] else "..".join(sizes))
            lines.append(f"profile {number}: {', '.join(axes)}")
        return "\n".join(lines)

    def _sides(self, bucket: Bucket) -> Profile:
        width, height = (side // self.scale for side in bucket)
        return {"width": AxisRange(width, width, width), "height": AxisRange(height, height, height)}

    def _size(self, profile: Profile, pick: str) -> str:
        width, height = (getattr(profile[axis], pick) * self.scale for axis in ("width", "height"))
        return f"{width}x{height}"


def _joined(values: Iterable[str]) -> str:
    listed = list(values)
    return listed[0] if len(set(listed)) == 1 else ", ".join(listed)
