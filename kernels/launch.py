"""How a compiled kernel is launched where there is no Triton: the record beside the code, and the arguments made of it.

A launch is ``grid(...)`` blocks of ``threads`` threads with ``shared_bytes`` of dynamic shared memory and the arguments
of ``kernel_arguments(...)``, which ``cuda.core.launch`` and ``cuLaunchKernel`` take as they are.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import msgspec
import numpy as np

#: What the folder of compiled kernels says of itself.
INDEX_NAME = "kernels.json"
#: The target that is no GPU, and the oldest compute capability that its code is for.
PTX = "ptx"
PTX_CAPABILITY = 80
SCHEMA_VERSION = 3

THREADS_PER_WARP = 32

_ADDRESS = np.dtype(np.uint64)
_NUMBERS: dict[str, np.dtype[Any]] = {"i32": np.dtype(np.int32), "i64": np.dtype(np.int64)}


class Argument(msgspec.Struct, frozen=True):
    """One argument: its type as Triton names it (``"*fp16"`` is a pointer to fp16), and what it is a multiple of.

    The code relies on that: a pointer (bytes) or a number that is not gives wrong results or a fault.
    """

    name: str
    type: str
    multiple_of: int = 1

    @property
    def dtype(self) -> np.dtype[Any]:
        """What holds its value; a pointer is an address."""
        return _ADDRESS if self.type.startswith("*") else _NUMBERS[self.type]


class CompiledKernel(msgspec.Struct, frozen=True, kw_only=True):
    """One kernel compiled for one target and, where it has such a choice, for one dtype of the engine's tensors.

    ``target`` is a compute capability (``"sm90"``), whose file is a cubin, or ``"ptx"``, which the driver compiles for
    whatever newer GPU it finds. ``hidden_pointers`` follow the arguments: Triton's scratch buffers, which these kernels
    do not use, so null.
    """

    name: str
    dtype: str | None
    target: str
    file: str
    symbol: str
    tile: int
    num_warps: int
    shared_bytes: int
    arguments: tuple[Argument, ...]
    hidden_pointers: int

    @property
    def threads(self) -> int:
        """Threads of a block."""
        return THREADS_PER_WARP * self.num_warps


class KernelIndex(msgspec.Struct, frozen=True, kw_only=True):
    """The contents of ``kernels.json``. ``key`` has what the kernels were compiled from and for, by name.

    ``layout`` is ``kernels.layout.LAYOUT`` as it was then: what the code and those who launch it must agree on.
    """

    schema_version: int
    layout: str
    key: dict[str, str]
    kernels: tuple[CompiledKernel, ...]


@dataclass(frozen=True)
class KernelSet:
    """Compiled kernels; ``read`` gives the content of one of their files."""

    index: KernelIndex
    read: Callable[[str], bytes]

    def select(self, name: str, dtype: str | None, target: str) -> CompiledKernel:
        """The code of a kernel for a GPU: its own cubin, else one that it runs too, else PTX.

        ``dtype`` is that of the engine's tensors; kernels that have no such choice do not look at it. A cubin of
        compute capability 8.x runs on GPUs of 8.y with y >= x; those of newer ones are made for one alone.

        Raises:
            LookupError: there is none; the message says which there are.
        """
        of_kernel = [kernel for kernel in self.index.kernels if kernel.name == name and kernel.dtype in (dtype, None)]
        fitting = [kernel for kernel in of_kernel if _runs_on(kernel.target, target)]
        if not fitting:
            held = ", ".join(f"{k.dtype or 'any dtype'} for {k.target}" for k in self.index.kernels if k.name == name)
            raise LookupError(f"{name} of {dtype} for {target} is not among {held or 'the kernels'}")
        return max(fitting, key=lambda kernel: -1 if kernel.target == PTX else int(kernel.target.removeprefix("sm")))


def joined(sets: Sequence[KernelSet]) -> KernelSet:
    """Several sets as one; what more than one of them has is taken from the first."""
    found = {kernel.file: (kernel, one.read) for one in reversed(sets) for kernel in one.index.kernels}
    index = msgspec.structs.replace(sets[0].index, kernels=tuple(kernel for kernel, _ in found.values()))
    return KernelSet(index, lambda file: found[file][1](file))


def _runs_on(code: str, gpu: str) -> bool:
    capability = int(gpu.removeprefix("sm"))
    if code == PTX:
        return capability >= PTX_CAPABILITY
    compiled_for = int(code.removeprefix("sm"))
    return compiled_for == capability or (compiled_for // 10 == capability // 10 == 8 and compiled_for < capability)


def grid(kernel: CompiledKernel, elements: int, outer: int) -> tuple[int, int, int]:
    """Blocks of a launch: over the elements of one slot, image or row, and over those::

    denoise_step, guidance_statistics       elements (C * h * w)    entries of routes
    philox_normal                           threads * calls         slots
    image_from_decoded, pixels_from_image   3 * area (H * W)        images
    pack_rows                               elements (E * h * w)    rows
    """
    return -(-elements // kernel.tile), outer, 1


def kernel_arguments(kernel: CompiledKernel, values: Mapping[str, int]) -> list[Any]:
    """The values of a launch as numpy scalars in the kernel's order and types, the hidden ones included.

    Args:
        kernel: the kernel.
        values: all of its arguments by name: addresses and numbers.

    Raises:
        ValueError: names other than the kernel's, or a value that is not the multiple which the code relies on.
    """
    expected = [argument.name for argument in kernel.arguments]
    if set(values) != set(expected):
        raise ValueError(f"{kernel.symbol}: received arguments {sorted(values)}, expected {sorted(expected)}")
    for argument in kernel.arguments:
        if values[argument.name] % argument.multiple_of:
            raise ValueError(
                f"{kernel.symbol}: {argument.name}: received {values[argument.name]}, "
                f"expected a multiple of {argument.multiple_of}"
            )
    given = [argument.dtype.type(values[argument.name]) for argument in kernel.arguments]
    return [*given, *[_ADDRESS.type(0)] * kernel.hidden_pointers]
