"""Gaussian noise of PyTorch's CPU generator, without PyTorch: equal but for rounding, which is at most 3e-7.

``torch.Generator("cpu").manual_seed(s)`` is a 32-bit Mersenne Twister seeded with the low 32 bits of ``s``, which is
also numpy's ``MT19937`` with legacy seeding. ``torch.randn`` turns its words into normal values in two ways
(ATen/native/cpu/DistributionTemplates.h and ATen/core/DistributionsHelper.h):

* 16 values and more: uniforms of 24 bits fill the tensor, then every block of 16 becomes Box-Muller pairs of its first
  with its last eight values. A ragged tail is covered by redrawing the last 16 values.
* fewer than 16: pairs in double precision from uniforms of 53 bits; the second of a pair is kept for the next call.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Protocol

import numpy as np
from numpy.typing import NDArray

_BLOCK = 16
_HALF = _BLOCK // 2


class NoiseSource(Protocol):
    """A stream of standard normal values that belongs to one image."""

    def randn(self, shape: Sequence[int]) -> NDArray[np.float32]:
        """The next ``prod(shape)`` values of the stream, float32, in ``shape``."""


class TorchCpuNoise:
    """The stream of ``torch.Generator("cpu").manual_seed(seed)`` under ``torch.randn(..., dtype=torch.float32)``."""

    def __init__(self, seed: int):
        generator = np.random.MT19937()
        generator._legacy_seeding(seed & 0xFFFFFFFF)
        self._words = generator
        self._spare: float | None = None

    def randn(self, shape: Sequence[int]) -> NDArray[np.float32]:
        """The next ``prod(shape)`` values, float32, in ``shape``; within 2.4e-7 of PyTorch's (its vectorised log)."""
        count = math.prod(shape)
        values = self._few(count) if count < _BLOCK else self._many(count)
        return values.reshape(tuple(shape))

    def _many(self, count: int) -> NDArray[np.float32]:
        uniform = self._uniform24(count)
        whole = count - count % _BLOCK
        blocks = _box_muller(uniform[:whole].reshape(-1, _BLOCK))
        if whole == count:
            return blocks.reshape(-1)
        values = np.empty(count, np.float32)
        values[:whole] = blocks.reshape(-1)
        values[-_BLOCK:] = _box_muller(self._uniform24(_BLOCK).reshape(1, _BLOCK)).reshape(-1)
        return values

    def _uniform24(self, count: int) -> NDArray[np.float32]:
        words = self._words.random_raw(count) & np.uint64((1 << 24) - 1)
        return words.astype(np.float32) * np.float32(2.0**-24)

    def _few(self, count: int) -> NDArray[np.float32]:
        values = np.empty(count, np.float32)
        for i in range(count):
            if self._spare is not None:
                values[i], self._spare = self._spare, None
                continue
            angle, radius = 2 * math.pi * self._uniform53(), math.sqrt(-2 * math.log1p(-self._uniform53()))
            values[i], self._spare = radius * math.cos(angle), radius * math.sin(angle)
        return values

    def _uniform53(self) -> float:
        high, low = (int(word) for word in self._words.random_raw(2))
        return ((high << 32 | low) & ((1 << 53) - 1)) * 2.0**-53


def _box_muller(uniform: NDArray[np.float32]) -> NDArray[np.float32]:
    """``[blocks, 16]`` uniforms to ``[blocks, 16]`` normal values; radii from the first half, angles from the other."""
    radius = np.sqrt(np.float32(-2) * np.log(np.float32(1) - uniform[:, :_HALF]))
    angle = np.float32(2 * np.pi) * uniform[:, _HALF:]
    return np.concatenate([radius * np.cos(angle), radius * np.sin(angle)], axis=1)
