"""Gaussian noise equal to ``torch.randn`` on an NVIDIA GPU, without one.

torch gives each thread of a launch its own stream of cuRAND's Philox4x32-10: the key is the seed, the upper half of the
counter the number of the thread, the lower half how many calls its generator has made. A call gives four values, of
which a thread writes the first to its own index, the others one, two and three launches' widths behind it
(ATen/native/cuda/DistributionTemplates.h, unchanged up to torch 2.13).

A launch has one thread per value, rounded up to blocks of 256, *but no more than fit on the GPU at once*. So a seed
gives the same noise on every GPU that has at least as many threads as the tensor has values, and other noise on smaller
ones from the first value that does not fit (pytorch/pytorch#62467, #194676). Threads of a GPU: its multiprocessors
times the threads that fit on one, rounded down to blocks: 43008 on an RTX 3060, 196608 on an RTX 4090, 221184 on an
A100, 270336 on an H100 or H200. An image of SD 1.5 (512 x 512) takes 16384, of SDXL (1024 x 1024) 65536, of SD3 262144.
"""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

Array = NDArray[np.float32]
Words = NDArray[np.uint32]

BLOCK = 256  # threads of a block
PER_CALL = 4  # values that one call of a thread's generator gives

_KEY_STEPS = 0x9E3779B9, 0xBB67AE85
_FACTORS = np.uint64(0xD2511F53), np.uint64(0xCD9E8D57)
_HALF = np.uint64(32)
#: cuRAND's constants: 2**-32, and 2 pi times that in float32
_UNIT = np.float32(2.3283064e-10)
_ANGLE = np.float32(1.46291807e-9)


def philox4x32(counter: Words, key: tuple[int, int], rounds: int = 10) -> Words:
    """Philox4x32 of Salmon et al. 2011, "Parallel random numbers: as easy as 1, 2, 3": words ``[4, n]`` of counters."""
    c0, c1, c2, c3 = counter
    for i in range(rounds):
        k0, k1 = (np.uint32((word + i * step) & 0xFFFFFFFF) for word, step in zip(key, _KEY_STEPS, strict=True))
        first, second = c0 * _FACTORS[0], c2 * _FACTORS[1]  # uint64
        c0, c1, c2, c3 = (
            (second >> _HALF).astype(np.uint32) ^ c1 ^ k0,
            second.astype(np.uint32),
            (first >> _HALF).astype(np.uint32) ^ c3 ^ k1,
            first.astype(np.uint32),
        )
    return np.stack([c0, c1, c2, c3])


def normal_pair(first: Words, second: Words) -> tuple[Array, Array]:
    """Two normal values of two words each, by Box and Muller as in cuRAND's ``curand_normal.h``.

    The GPU's sine and cosine are approximate (``__sincosf``, 2**-21 absolute), so it agrees to about 4e-6.
    """
    uniform = first.astype(np.float32) * _UNIT + _UNIT / 2
    # One rounding, as in the fused multiply-add that nvcc makes of it.
    angle = (second.astype(np.float32).astype(np.float64) * _ANGLE + _ANGLE / 2).astype(np.float32)
    radius = np.sqrt(np.float32(-2) * np.log(uniform))
    return radius * np.sin(angle), radius * np.cos(angle)


def threads_for(count: int, gpu_threads: int | None = None) -> int:
    """Threads of the launch that fills ``count`` values; ``gpu_threads`` is how many the GPU has (None: enough)."""
    wanted = -(-count // BLOCK) * BLOCK
    return wanted if gpu_threads is None else min(wanted, gpu_threads // BLOCK * BLOCK)


def calls_for(count: int, threads: int) -> int:
    """Calls that each thread's generator makes to fill ``count`` values; the next tensor begins behind them."""
    return -(-count // (PER_CALL * threads))


def philox_normal(seed: int, count: int, first_call: int = 0, gpu_threads: int | None = None) -> Array:
    """The ``count`` values of ``torch.randn(count, device="cuda", generator=Generator("cuda").manual_seed(seed))``.

    Args:
        seed: 64 bits of it count.
        count: values; the shape of the tensor makes no difference.
        first_call: calls that were made for the tensors before (``calls_for`` of each). torch's offset is 4 times that.
        gpu_threads: threads of the GPU to be equal to; None for every GPU that has enough (see above).
    """
    threads = threads_for(count, gpu_threads)
    calls = calls_for(count, threads)
    values = np.empty((calls, PER_CALL, threads), np.float32)
    needed = min(PER_CALL, -(-count // threads))  # the others lie behind the end
    counter = np.zeros((4, threads), np.uint32)
    counter[2] = np.arange(threads)
    for call in range(calls):
        number = first_call + call
        counter[:2] = np.array([[number & 0xFFFFFFFF], [number >> 32]], np.uint32)
        words = philox4x32(counter, (seed & 0xFFFFFFFF, seed >> 32 & 0xFFFFFFFF))
        for i in range(0, needed, 2):
            values[call, i], values[call, i + 1] = normal_pair(words[i], words[i + 1])
    return values.reshape(-1)[:count]
