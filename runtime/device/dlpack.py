"""Tensors of other libraries (torch, cupy, jax) by DLPack: where one is, in the numbers of ``dlpack.h``."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

from ..errors import RequestError

#: ``DLDeviceType``: those that a user of this runtime may meet.
DLPACK_DEVICES = {1: "the host", 2: "CUDA", 3: "the host (pinned)", 8: "Metal", 10: "ROCm", 13: "CUDA (managed)"}
CUDA, CUDA_MANAGED = 2, 13
ON_HOST = (1, 3)


def is_tensor(value: Any) -> bool:
    """Whether a value is a tensor of a library other than numpy."""
    return hasattr(value, "__dlpack_device__") and not isinstance(value, np.ndarray)


def is_elsewhere(tensor: Any) -> bool:
    """Whether numpy cannot look at a tensor, because it is not in the host's memory."""
    return tensor.__dlpack_device__()[0] not in ON_HOST


def array_of(name: str, tensor: Any) -> NDArray[Any]:
    """A tensor in the host's memory as an array: the same memory. ``name`` is what a caller knows it by.

    Raises:
        RequestError: of a dtype that numpy does not have, or one that its library does not give away.
    """
    try:
        return np.from_dlpack(tensor)
    except (BufferError, RuntimeError, TypeError) as error:
        raise RequestError(name, received=f"a tensor: {error}", expected="one that numpy can read") from None


def is_contiguous(shape: Sequence[int], strides: Sequence[int]) -> bool:
    """Whether elements follow one another; strides, in elements, of axes of size 1 mean nothing."""
    step = 1
    for size, stride in zip(reversed(shape), reversed(strides), strict=True):
        if size != 1 and stride != step:
            return False
        step *= size
    return True
