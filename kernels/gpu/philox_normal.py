"""The noise of ``torch.randn`` for each slot's seed and draw, made on the device: ``kernels.philox.philox_normal``.

One position of a launch is one call of one thread's generator in torch: it gives four values, a launch's width apart,
of which all but the first lie behind the end of a tensor that the GPU holds at once.

Bytes: 4 written per value; 0.26 MB for an SDXL image of 1024 x 1024, which is 0.07 us at 4 TB/s.
"""

from __future__ import annotations

import triton
import triton.language as tl

from ..philox import PER_CALL, calls_for, threads_for
from .source import KernelSource, Tensor

_PER_CALL = tl.constexpr(PER_CALL)
_UNIT = tl.constexpr(2.3283064e-10)  # 2**-32
_ANGLE = tl.constexpr(1.46291807e-9)  # 2 pi times that
_TILE = 512


@triton.jit
def philox_normal_kernel(
    noise: tl.tensor,
    seeds: tl.tensor,
    draws: tl.tensor,
    count: tl.tensor,
    threads: tl.tensor,
    calls: tl.tensor,
    ring: tl.tensor,
    TILE: tl.constexpr,
) -> None:
    slot = tl.program_id(1).to(tl.int64)
    draw = tl.load(draws + slot)
    if draw < 0:
        return
    at = tl.program_id(0) * TILE + tl.arange(0, TILE)  # [TILE], calls of threads
    thread = at % threads
    call = at // threads
    number = draw.to(tl.int64) * calls + call
    low, high = (number & 0xFFFFFFFF).to(tl.uint32), (number >> 32).to(tl.uint32)
    w0, w1, w2, w3 = tl.philox(tl.load(seeds + slot), low, high, thread.to(tl.uint32), high * 0)
    target = noise + (slot * ring + draw % ring) * count
    inside = call < calls
    first = call * _PER_CALL * threads + thread
    _store_pair(target, first, w0, w1, inside, count, threads)
    _store_pair(target, first + 2 * threads, w2, w3, inside, count, threads)


@triton.jit
def _store_pair(
    target: tl.tensor,
    index: tl.tensor,
    first: tl.tensor,
    second: tl.tensor,
    inside: tl.tensor,
    count: tl.tensor,
    threads: tl.tensor,
) -> None:
    """Box and Muller's two values of two words, as cuRAND makes them: see ``kernels.philox.normal_pair``."""
    uniform = first.to(tl.float32) * _UNIT + _UNIT / 2
    angle = tl.fma(second.to(tl.float32), tl.full(second.shape, _ANGLE, tl.float32), _ANGLE / 2)
    radius = tl.sqrt_rn(-2.0 * tl.log(uniform))
    tl.store(target + index, radius * tl.sin(angle), mask=inside & (index < count))
    index += threads
    tl.store(target + index, radius * tl.cos(angle), mask=inside & (index < count))


SOURCE = KernelSource(
    function=philox_normal_kernel,
    types={
        "noise": "*fp32",
        "seeds": "*i64",
        "draws": "*i32",
        "count": "i32",
        "threads": "i32",
        "calls": "i32",
        "ring": "i32",
    },
    tile=_TILE,
    divisible={"threads": 16},
)


def philox_normal(noise: Tensor, seeds: Tensor, draws: Tensor, gpu_threads: int | None = None) -> None:
    """Write one draw of each slot's stream.

    Args:
        noise: float32 ``[slots, ring, count]``: draw i of a slot goes to i % ring.
        seeds: int64 ``[slots]``, the 64 bits of torch's seed.
        draws: int32 ``[slots]``: the number of the draw, counted in tensors of ``count`` values; -1 makes none.
        gpu_threads: see ``kernels.philox``.
    """
    slots, ring, count = noise.shape
    threads = threads_for(count, gpu_threads)
    calls = calls_for(count, threads)
    philox_normal_kernel[SOURCE.grid(threads * calls, slots)](
        noise, seeds, draws, count, threads, calls, ring, TILE=SOURCE.tile, num_warps=SOURCE.num_warps,
        enable_fp_fusion=False,
    )  # fmt: skip
