"""Gaussian noise equal to PyTorch's on an NVIDIA GPU, without one.

What a GPU draws for a seed depends on how many threads it runs at once, from the first value on that does not fit them
(``kernels.philox``). The noise here is that of GPUs which hold all values of a picture's latents at once: of pictures
up to SDXL's 1024 x 1024 (65536 values) that is every data-centre and most consumer cards since 2020; of SD3's
1024 x 1024 (262144 values) an H100 or larger. So a seed gives one picture, wherever it is drawn.
"""

from __future__ import annotations

import math
from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray

from ...kernels.philox import calls_for, philox_normal, threads_for


class PhiloxNoise:
    """The stream of ``torch.Generator("cuda").manual_seed(seed)`` under ``torch.randn(..., dtype=torch.float32)``."""

    def __init__(self, seed: int):
        self._seed = seed
        self._calls = 0

    def randn(self, shape: Sequence[int]) -> NDArray[np.float32]:
        """The next ``prod(shape)`` values, float32, in ``shape``; within 4e-6 of the GPU's (its fast sine)."""
        count = math.prod(shape)
        values = philox_normal(self._seed, count, self._calls)
        self._calls += calls_for(count, threads_for(count))
        return values.reshape(tuple(shape))
