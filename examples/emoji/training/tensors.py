"""Pictures as tensors."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import torch


def tensor_from_images(images: Sequence[np.ndarray]) -> torch.Tensor:
    """[height, width, 3] images, uint8 or float in [0, 1] -> float32 [rows, 3, height, width] in [-1, 1]."""
    stack = np.stack(images)
    stack = stack.astype(np.float32) / 255 if stack.dtype == np.uint8 else np.clip(stack, 0, 1)
    return torch.from_numpy(stack).permute(0, 3, 1, 2).contiguous() * 2 - 1
