"""What the kernels are tried on."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray


def values(seed: int, *shape: int) -> NDArray[np.float32]:
    """Normal values of that shape, the same for the same seed."""
    return np.random.default_rng(seed).standard_normal(shape, dtype=np.float32)
