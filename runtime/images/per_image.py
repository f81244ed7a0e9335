"""Pictures and masks of which several images may share one."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from ..errors import RequestError


@dataclass(frozen=True)
class PerImage:
    """``values [n, ...]``, and in ``index [images]`` which of them is that of each image."""

    values: NDArray[Any]
    index: NDArray[np.intp]

    def of_images(self) -> NDArray[Any]:
        """The value of each image, ``[images, ...]``: a new array."""
        return self.values[self.index]


def each(values: NDArray[Any]) -> PerImage:
    """Every image its own: ``[images, ...]``."""
    return PerImage(values, np.arange(len(values)))


def spread(name: str, values: NDArray[Any], prompts: int, images: int) -> PerImage:
    """One value for all images, one for each prompt, or one for each image.

    Raises:
        RequestError: any other number.
    """
    if len(values) not in (1, prompts, images):
        counts = sorted({1, prompts, images})
        raise RequestError(name, received=f"{len(values)} of them", expected=" or ".join(map(str, counts)))
    return PerImage(values, np.repeat(np.arange(len(values)), images // len(values)))
