"""What a kernel is compiled from."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Protocol


class Tensor(Protocol):
    """What Triton takes for a pointer: a contiguous tensor of some library, here only looked at for its shape."""

    @property
    def shape(self) -> Any: ...
    def data_ptr(self) -> int: ...


@dataclass(frozen=True)
class KernelSource:
    """A Triton function and the types of its arguments.

    ``types`` has the arguments that are left at run time, in their order, as Triton names types (``"*fp32"``,
    ``"i32"``); ``"*io"`` stands for each of ``dtypes``, of which there is one compiled kernel each. ``divisible`` has
    the whole numbers that are multiples of something, which lets neighbouring elements be moved together; pointers are
    multiples of 16 bytes. ``tile`` is how many elements one program does: the constant ``TILE``.
    """

    function: Any
    types: Mapping[str, str]
    tile: int
    dtypes: tuple[str, ...] = ()
    divisible: Mapping[str, int] | None = None
    num_warps: int = 4

    def grid(self, elements: int, outer: int) -> tuple[int, int]:
        """Programs of a launch: over the elements of one image, slot or row, and over those."""
        return -(-elements // self.tile), outer
