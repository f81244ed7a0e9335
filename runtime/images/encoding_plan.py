"""From a picture's bytes to its latents on the device."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from ..bundles.manifest import Component
from ..device.interface import DeviceEngine
from ..device.memory import Memory
from ..device.runner import DeviceRunner
from ..device.steps import Part, Step, StepPlan
from ..timing import Timings

Array = NDArray[np.float32]

OUTPUTS = ("latents_mean", "latents_std")


class EncodingPlan(StepPlan):
    """The encoder for one picture of one size, after ``pixels_from_image``: 3 bytes a pixel are uploaded."""

    def __init__(self, runner: DeviceRunner, engine: DeviceEngine, contract: Component, height: int, width: int):
        device = runner.device
        name = f"{engine.component} of {width}x{height} pixels"
        self._stream = device.stream
        shape, dtype = (1, 3, height, width), np.dtype(contract.inputs[0].dtype)
        memory = Memory(device)
        execution = memory.execution(engine, {"image": shape})
        with memory.filled(execution):
            self._picture = memory.staged((1, height, width, 3), np.uint8)
            pixels = memory.buffer(shape, dtype)
            self._outputs = {name: memory.staged(*execution.outputs[name]) for name in OUTPUTS}
            area = height * width
            self._launch = device.bind(
                "pixels_from_image",
                {"image": self._picture.buffer, "pixels": pixels, "area": area},
                elements=3 * area,
                outer=1,
                dtype=dtype.name,
            )
        outputs = {name: output.buffer for name, output in self._outputs.items()}
        step = Step(runner, name, [Part(execution, {"image": pixels, **outputs})])
        super().__init__(name, memory, step)

    def encode(self, picture: NDArray[np.uint8], timings: Timings) -> Array:
        """``[H, W, 3]`` as the mean and, behind it, the deviation of its latents, ``[1, 2 * C, h, w]``."""
        self._picture.upload(picture)
        self._stream.launch(self._launch)
        self._step.enqueue(timings)
        encoded = [output.download() for output in self._outputs.values()]
        with timings.engine():
            self._stream.synchronize()
        return np.concatenate(encoded, axis=1, dtype=np.float32)

    def warm(self) -> None:
        """Record the step."""
        self._stream.fill_zero(self._picture.buffer)
        self._stream.launch(self._launch)
        self._step.warm()
        self._stream.synchronize()
