"""The kernels by name on the host: the numpy reference of each, taking the arguments of the compiled one.

A compiled kernel takes addresses and numbers; here the addresses are arrays, which know their shapes, so the numbers
beside them go unused.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import fields
from functools import partial
from typing import Any

import numpy as np
from numpy.typing import NDArray

from . import inputs
from .philox import philox_normal
from .reference import bytes_from_image, image_from_decoded
from .slots import Slots, denoise_slots

Arguments = Mapping[str, Any]
Work = Callable[[], None]


def _denoise_step(of: Arguments) -> Work:
    slots = Slots(**{field.name: of[field.name] for field in fields(Slots)})
    scratch = np.empty((2, slots.state.shape[1]), np.float32)
    return partial(denoise_slots, slots, of["routes"], of["outputs"], of["model_input"], of["timesteps"], scratch)


def _guidance_statistics(of: Arguments) -> Work:
    def nothing() -> None:
        """In numpy the step computes them by itself."""

    return nothing


def _image_from_decoded(of: Arguments) -> Work:
    def work() -> None:
        of["pixels"][...] = bytes_from_image(image_from_decoded(of["decoded"].astype(np.float32, copy=False)))

    return work


def _pixels_from_image(of: Arguments) -> Work:
    def work() -> None:
        of["pixels"][...] = inputs.pixels_from_image(of["image"])

    return work


def _pack_rows(of: Arguments) -> Work:
    return partial(inputs.pack_rows, of["extra"], of["sources"], of["model_input"], of["first"])


def _philox_normal(of: Arguments) -> Work:
    noise: NDArray[np.float32] = of["noise"]  # [slots, ring, count]

    def work() -> None:
        count, ring = noise.shape[2], noise.shape[1]
        for slot, (seed, draw) in enumerate(zip(of["seeds"].tolist(), of["draws"].tolist(), strict=True)):
            if draw >= 0:
                first = draw * of["calls"]
                noise[slot, draw % ring] = philox_normal(seed, count, first, gpu_threads=of["threads"])

    return work


#: Kernel name -> what makes its work of its arguments.
KERNELS: dict[str, Callable[[Arguments], Work]] = {
    "denoise_step": _denoise_step,
    "guidance_statistics": _guidance_statistics,
    "image_from_decoded": _image_from_decoded,
    "pack_rows": _pack_rows,
    "philox_normal": _philox_normal,
    "pixels_from_image": _pixels_from_image,
}
