"""Brownian noise: one random path per seed, of which every sampler step takes the increment between its two sigmas.

Runs of different lengths then follow the same path, so that more steps refine an image instead of changing it. The
path is k-diffusion's ``BrownianTreeNoiseSampler``: a ``BrownianInterval`` of torchsde (Kidger et al. 2021,
arXiv:2105.13493) with ``halfway_tree=True`` and ``tol=1e-6`` on PyTorch's CPU generator, without either library.
"""

from __future__ import annotations

import math
from collections import OrderedDict
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from .torch_cpu import TorchCpuNoise

_DIGITS = 6  # times are rounded to these decimals, which ends the halving after log2(range * 1e6) levels
_POOL_SIZE = 24  # words of entropy that every node's seed is mixed from
_CACHED_NODES = 32  # one path down the tree, so that a neighbouring query only descends where it differs


@dataclass(frozen=True)
class _Node:
    """An interval of the dyadic tree; ``key`` and ``depth`` name it among all nodes."""

    start: float
    end: float
    key: int
    depth: int


class BrownianNoise:
    """The path of one image: ``seed``, the ``shape`` of its latents and the range of sigmas that steps stay in."""

    def __init__(self, seed: int, shape: Sequence[int], sigma_min: float, sigma_max: float):
        self._seed = seed
        self._shape = tuple(shape)
        self._root = _Node(round(sigma_min, _DIGITS), round(sigma_max, _DIGITS), 0, 0)
        first = np.random.SeedSequence(seed, pool_size=_POOL_SIZE).generate_state(3)[0]
        self._whole = self._randn(int(first)) * np.float32(math.sqrt(sigma_max - sigma_min))
        self._cache: OrderedDict[tuple[int, int], NDArray[np.float32]] = OrderedDict()

    def increment(self, sigma: float, sigma_next: float) -> NDArray[np.float32]:
        """The path's change from ``sigma`` to ``sigma_next`` at unit variance: float32 of the latents' shape.

        Sigmas outside the range are taken to its ends; between equal ones nothing changes.
        """
        ends = [min(max(value, self._root.start), self._root.end) for value in (sigma, sigma_next)]
        low, high = sorted(round(value, _DIGITS) for value in ends)
        if low == high:
            return np.zeros(self._shape, np.float32)
        change = self._between(self._root, self._whole, low, high) / np.float32(math.sqrt(abs(sigma - sigma_next)))
        return change if sigma < sigma_next else -change

    def _between(self, node: _Node, whole: NDArray[np.float32], low: float, high: float) -> NDArray[np.float32]:
        """The change over ``low``..``high`` inside ``node``, whose own change is ``whole``."""
        if low == node.start and high == node.end:
            return whole
        middle = round(0.5 * (node.end + node.start), _DIGITS)
        left = _Node(node.start, middle, 2 * node.key, node.depth + 1)
        right = _Node(middle, node.end, 2 * node.key + 1, node.depth + 1)
        left_change = self._left_half(node, whole, middle)
        if high <= middle:
            return self._between(left, left_change, low, high)
        if low >= middle:
            return self._between(right, whole - left_change, low, high)
        return self._between(left, left_change, low, middle) + self._between(right, whole - left_change, middle, high)

    def _left_half(self, node: _Node, whole: NDArray[np.float32], middle: float) -> NDArray[np.float32]:
        """The change over the left half of ``node``, a Brownian bridge between its ends."""
        name = (node.depth, node.key)
        if name in self._cache:
            self._cache.move_to_end(name)
            return self._cache[name]
        entropy = np.random.SeedSequence(self._seed, spawn_key=(node.key, node.depth), pool_size=_POOL_SIZE)
        inverse = 1 / (node.end - node.start)
        before, after = middle - node.start, node.end - middle
        change = np.float32(before) * whole * np.float32(inverse)
        change += np.float32(math.sqrt(before * after * inverse)) * self._randn(int(entropy.generate_state(1)[0]))
        self._cache[name] = change
        if len(self._cache) > _CACHED_NODES:
            self._cache.popitem(last=False)
        return change

    def _randn(self, seed: int) -> NDArray[np.float32]:
        return TorchCpuNoise(seed).randn(self._shape)
