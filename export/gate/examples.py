"""Example inputs of a component: what its graph is traced with. (``gate_inputs`` has realistic ones.)"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

from ...runtime.bundles.spec import TOKENS_PER_CHUNK, TensorSpec, resolve_shape

Array = NDArray[Any]


def example_sizes(latent_stride: int) -> dict[str, int]:
    """Axis sizes to trace with. None is 1 or one chunk of tokens, and no two of a component are equal, so that none is
    taken for a constant or for another."""
    return {
        "rows": 2,
        "images": 2,
        "texts": 2,
        "height": 4 * latent_stride,
        "width": 5 * latent_stride,
        "tokens": 2 * TOKENS_PER_CHUNK,
        "prompt_tokens": 3 * TOKENS_PER_CHUNK,
    }


def example_arrays(
    inputs: Sequence[TensorSpec], sizes: dict[str, int], *, vocabulary: int = 0, seed: int = 0
) -> dict[str, Array]:
    """Seeded random inputs of a contract: unit normal values, token ids below ``vocabulary`` with CLIP's marks,
    timesteps, pixel sizes. The numbers are those that the input's own dtype holds.
    """
    rng = np.random.default_rng(seed)
    arrays: dict[str, Array] = {}
    for spec in inputs:
        shape = resolve_shape(spec, sizes)
        values: Array
        if spec.name == "input_ids":
            begin, end = vocabulary - 2, vocabulary - 1
            values = rng.integers(0, begin, shape)
            values[:, 0], values[:, shape[1] // 2 :] = begin, end
        elif spec.name == "timestep":
            values = rng.integers(0, 1000, shape)
        elif spec.name == "time_ids":
            values = rng.integers(0, 1024, shape)
        elif spec.name == "image":
            values = rng.uniform(-1, 1, shape)
        else:
            values = rng.standard_normal(shape)
        arrays[spec.name] = values.astype(spec.dtype)
    return arrays
