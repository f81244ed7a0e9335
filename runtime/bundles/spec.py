"""What an engine takes and gives: tensors, axes and the ranges an axis may have. Shared by export and runtime."""

from __future__ import annotations

import re

import msgspec

TOKENS_PER_CHUNK = 77  # CLIP's context: begin of text, at most 75 tokens, end of text, padding

#: A symbolic axis: a name, or ``factor*name`` for one that is always a multiple of another (image pixels of latents).
_AXIS = re.compile(r"(?:(?P<factor>\d+)\*)?(?P<name>[a-z_]+)")


class AxisRange(msgspec.Struct, frozen=True):
    """The sizes of one symbolic axis: the smallest and largest allowed, and the one engines are tuned for."""

    min: int
    opt: int
    max: int

    def __str__(self) -> str:
        return str(self.min) if self.min == self.max else f"{self.min}..{self.opt}..{self.max}"

    def __contains__(self, size: int) -> bool:
        return self.min <= size <= self.max


class TensorSpec(msgspec.Struct, frozen=True):
    """Name, dtype (numpy's name) and shape of a tensor; a dimension is a number or the name of a symbolic axis."""

    name: str
    dtype: str
    shape: tuple[int | str, ...]

    def __str__(self) -> str:
        return f"{self.name} {self.dtype}[{', '.join(str(size) for size in self.shape)}]"


#: Axis name to its range, for every symbolic axis of a component.
Profile = dict[str, AxisRange]


def axis_and_factor(dimension: str) -> tuple[str, int]:
    """``"8*height"`` -> ``("height", 8)``; ``"rows"`` -> ``("rows", 1)``."""
    match = _AXIS.fullmatch(dimension)
    if match is None:
        raise ValueError(f"not a symbolic dimension: {dimension!r}")
    return match["name"], int(match["factor"] or 1)


def resolve_shape(spec: TensorSpec, sizes: dict[str, int]) -> tuple[int, ...]:
    """The concrete shape of a tensor for the given sizes of its axes."""
    shape = []
    for dimension in spec.shape:
        if isinstance(dimension, int):
            shape.append(dimension)
        else:
            name, factor = axis_and_factor(dimension)
            shape.append(sizes[name] * factor)
    return tuple(shape)
