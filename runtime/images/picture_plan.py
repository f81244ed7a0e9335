"""From latents to a picture without leaving the device in between."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from ..bundles.manifest import Component
from ..device.interface import Buffer, DeviceEngine
from ..device.memory import Memory
from ..device.runner import DeviceRunner
from ..device.steps import Part, Step, StepPlan
from ..timing import Timings

Array = NDArray[np.float32]


class PicturePlan(StepPlan):
    """The decoder for one picture of one size, and ``image_from_decoded`` after it: 3 bytes a pixel come back."""

    def __init__(self, runner: DeviceRunner, engine: DeviceEngine, contract: Component, height: int, width: int):
        device, spec = runner.device, contract.inputs[0]
        name = f"{engine.component} of {width}x{height} latents"
        self._stream = device.stream
        shape, dtype = (1, int(spec.shape[1]), height, width), np.dtype(spec.dtype)
        memory = Memory(device)
        execution = memory.execution(engine, {"latents": shape})
        with memory.filled(execution):
            image_shape, image_dtype = execution.outputs["image"]
            _, _, rows, columns = image_shape
            self._latents = memory.staged(shape, dtype)
            self._decoded = memory.buffer(image_shape, image_dtype)
            self._pixels = memory.staged((1, rows, columns, 3), np.uint8)
            area = rows * columns
            launch = device.bind(
                "image_from_decoded",
                {"decoded": self._decoded, "pixels": self._pixels.buffer, "area": area},
                elements=3 * area,
                outer=1,
                dtype=image_dtype.name,
            )
        part = Part(execution, {"latents": self._latents.buffer, "image": self._decoded})
        step = Step(runner, name, [part], [launch])
        super().__init__(name, memory, step)

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
