"""From latents to a picture's bytes without leaving the device in between."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from ..bundles.manifest import Component
from ..device.graphs import Memory, Part, Step
from ..device.interface import DeviceEngine
from ..device.runner import DeviceRunner
from ..timing import Timings

Array = NDArray[np.float32]


class PicturePlan:
    """The decoder for one picture of one size, and ``image_from_decoded`` after it: 3 bytes a pixel come back."""

    def __init__(
        self, runner: DeviceRunner, engine: DeviceEngine, contract: Component, channels: int, height: int, width: int
    ):
        device = runner.device
        self._name = f"{engine.component} of {width}x{height} latents"
        self._stream = device.stream
        shape, dtype = (1, channels, height, width), np.dtype(contract.inputs[0].dtype)
        execution = engine.prepare({"latents": shape})
        self._memory = Memory(device)
        with self._memory.filled(execution):
            image_shape, image_dtype = execution.outputs["image"]
            _, _, rows, columns = image_shape
            self._latents = self._memory.buffer(shape, dtype)
            self._staged = self._memory.staging(shape, dtype)
            decoded = self._memory.buffer(image_shape, image_dtype)
            self.pixels = self._memory.buffer((1, rows, columns, 3), np.uint8)
            self._pixels_staged = self._memory.staging(self.pixels.shape, np.uint8)
            area = rows * columns
            launch = device.bind(
                "image_from_decoded",
                {"decoded": decoded, "pixels": self.pixels, "area": area},
                elements=3 * area,
                outer=1,
                dtype=image_dtype.name,
            )
        self._step = Step(runner, self._name, [Part(execution, {"latents": self._latents, "image": decoded})], [launch])

    def __str__(self) -> str:
        return self._name

    @property
    def nbytes(self) -> int:
        return self._memory.nbytes + self._step.nbytes

    def enqueue(self, latents: Array, timings: Timings) -> None:
        """Decode ``[1, C, h, w]`` into ``pixels``; the stream has to be synchronized before the next one."""
        np.copyto(self._staged, latents, casting="same_kind")
        self._stream.upload(self._latents, self._staged)
        self._step.enqueue(timings)

    def picture(self, latents: Array, timings: Timings) -> NDArray[np.uint8]:
        """``[1, C, h, w]`` as bytes ``[1, H, W, 3]``, a new array."""
        self.enqueue(latents, timings)
        self._stream.download(self.pixels, self._pixels_staged)
        with timings.engine():
            self._stream.synchronize()
        return self._pixels_staged.copy()

    def warm(self) -> None:
        """Record the step."""
        self._stream.fill_zero(self._latents)
        self._step.warm()
        self._stream.synchronize()

    def close(self) -> None:
        self._step.close()
        self._memory.close()
