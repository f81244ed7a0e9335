"""Calls that the tests with real providers make."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

if TYPE_CHECKING:
    from latentrt.runtime import Pipeline

#: The sizes that the emoji bundle is built for.
SIZES = ((128, 128), (160, 96), (96, 160), (192, 64), (64, 192))


def loaded(path: Path, provider: str, **options: Any) -> Pipeline:
    """A bundle, loaded: what that needs beside a provider, such as Pillow, is not imported where nothing is loaded."""
    from latentrt.runtime import load

    return load(path, provider=provider, verify=False, **options)


def latents(
    pipe: Pipeline, prompt: str = "a rocket on a blue background", *, size: tuple[int, int] = SIZES[0], **call: Any
) -> NDArray[np.float32]:
    """Latents ``[1, C, h, w]`` of a short call."""
    width, height = size
    arguments: dict[str, Any] = {"seed": 5, "num_inference_steps": 4, "output_type": "latent", **call}
    found: NDArray[np.float32] = pipe(prompt, width=width, height=height, **arguments).images
    return found


def cosine_distance(a: NDArray[Any], b: NDArray[Any]) -> float:
    x, y = a.astype(np.float64).reshape(-1), b.astype(np.float64).reshape(-1)
    return float(1 - x @ y / np.sqrt((x @ x) * (y @ y)))
