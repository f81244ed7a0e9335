"""Tensors of other libraries (torch, cupy, jax) by DLPack: where one is, in the numbers of ``dlpack.h``."""

from __future__ import annotations

from typing import Any

#: ``DLDeviceType``: those that a user of this runtime may meet.
DLPACK_DEVICES = {1: "the host", 2: "CUDA", 3: "the host (pinned)", 8: "Metal", 10: "ROCm", 13: "CUDA (managed)"}
CUDA, CUDA_MANAGED = 2, 13
ON_HOST = (1, 3)


def is_elsewhere(value: Any) -> bool:
    """Whether a value is a tensor that numpy cannot look at, because it is not in the host's memory."""
    return hasattr(value, "__dlpack_device__") and value.__dlpack_device__()[0] not in ON_HOST
