"""From latents to a picture without leaving the device in between."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from ..bundles.manifest import Component
from ..device.interface import Buffer, DeviceEngine
from ..device.memory import Memory
from ..device.runner import DeviceRunner
from ..device.steps import Part, Step
from ..timing import Timings

Array = NDArray[np.float32]


class PicturePlan:
    """The decoder for one picture of one size, and ``image_from_decoded`` after it: 3 bytes a pixel come back."""

    def __init__(self, runner: DeviceRunner, engine: DeviceEngine, contract: Component, height: int, width: int):
        device, spec = runner.device, contract.inputs[0]
        self._name = f"{engine.component} of {width}x{height} latents"
        self._stream = device.stream
        shape, dtype = (1, int(spec.shape[1]), height, width), np.dtype(spec.dtype)
        self._memory = Memory(device)
        execution = self._memory.execution(engine, {"latents": shape})
        with self._memory.filled(execution):
            image_shape, image_dtype = execution.outputs["image"]
            _, _, rows, columns = image_shape
            self._latents = self._memory.staged(shape, dtype)
            self._decoded = self._memory.buffer(image_shape, image_dtype)
            self._pixels = self._memory.staged((1, rows, columns, 3), np.uint8)
            area = rows * columns
            launch = device.bind(
                "image_from_decoded",
                {"decoded": self._decoded, "pixels": self._pixels.buffer, "area": area},
                elements=3 * area,
                outer=1,
                dtype=image_dtype.name,
            )
        part = Part(execution, {"latents": self._latents.buffer, "image": self._decoded})
        self._step = Step(runner, self._name, [part], [launch])

    def __str__(self) -> str:
        return self._name

    @property
    def nbytes(self) -> int:
        return self._memory.nbytes + self._step.nbytes

    @property
    def pixels(self) -> Buffer:
        """The picture on the device, bytes ``[1, H, W, 3]``."""
        return self._pixels.buffer

    def enqueue(self, latents: Array, timings: Timings) -> None:
        """Decode ``[1, C, h, w]`` into ``pixels``; the stream has to be synchronized before the next one."""
        self._latents.upload(latents)
        self._step.enqueue(timings)

    def picture(self, latents: Array, timings: Timings) -> NDArray[np.uint8]:
        """``[1, C, h, w]`` as bytes ``[1, H, W, 3]``, a new array."""
        self.enqueue(latents, timings)
        picture = self._pixels.download()
        with timings.engine():
            self._stream.synchronize()
        return picture.copy()

    def decoded(self, latents: Array, timings: Timings) -> Array:
        """``[1, C, h, w]`` as the decoder gives it, ``[1, 3, H, W]``, about -1..1: a new array."""
        self.enqueue(latents, timings)
        image = np.empty(self._decoded.shape, self._decoded.dtype)
        self._stream.download(self._decoded, image)
        with timings.engine():
            self._stream.synchronize()
        return image.astype(np.float32, copy=False)

    def warm(self) -> None:
        """Record the step."""
        self._stream.fill_zero(self._latents.buffer)
        self._step.warm()
        self._stream.synchronize()

    def close(self) -> None:
        self._step.close()
        self._memory.close()
