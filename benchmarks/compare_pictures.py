"""How far two pictures, or two latents, are from each other."""

from __future__ import annotations

import functools
import importlib
import importlib.util
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

Pixels = NDArray[np.uint8]
Latents = NDArray[np.float32]


def cosine_distance(a: Latents, b: Latents) -> float:
    """1 - cosine of the angle between two arrays as vectors, in float64."""
    x, y = a.astype(np.float64).ravel(), b.astype(np.float64).ravel()
    cosine = float(x @ y) / float(np.linalg.norm(x) * np.linalg.norm(y))
    return max(0.0, 1 - cosine)


def psnr(a: Pixels, b: Pixels) -> float | None:
    """Peak signal-to-noise ratio in dB of two ``[H, W, 3]`` pictures; None for equal ones, whose ratio is infinite."""
    error = float(np.mean((a.astype(np.float64) - b.astype(np.float64)) ** 2))
    return None if error == 0 else float(10 * np.log10(255**2 / error))


def ssim(a: Pixels, b: Pixels) -> float | None:
    """Structural similarity (Wang et al. 2004, by scikit-image); None where scikit-image is not installed."""
    if importlib.util.find_spec("skimage") is None:
        return None
    structural_similarity: Any = importlib.import_module("skimage.metrics").structural_similarity

    return float(structural_similarity(a, b, channel_axis=-1, data_range=255))


def lpips(a: Pixels, b: Pixels) -> float | None:
    """Learned perceptual distance (Zhang et al. 2018, AlexNet); None where the package or its weights are missing."""
    network = _lpips_network()
    if network is None:
        return None
    import torch

    x, y = (torch.from_numpy(p.copy()).permute(2, 0, 1)[None].float() / 127.5 - 1 for p in (a, b))
    with torch.no_grad():
        return float(network(x, y))


@functools.cache
def _lpips_network() -> Any:
    """The network, only if nothing has to be downloaded for it."""
    if importlib.util.find_spec("lpips") is None:
        return None
    import torch

    backbone = "alexnet-owt-7be5be79.pth"
    if not (Path(torch.hub.get_dir()) / "checkpoints" / backbone).exists():
        return None
    import lpips as package  # type: ignore[import-not-found]

    return package.LPIPS(net="alex", verbose=False)
