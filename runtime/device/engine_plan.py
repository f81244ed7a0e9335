"""One engine on host arrays: its buffers, its staging and its step, kept for the next call with the same shapes."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np
from numpy.typing import NDArray

from ..bundles.manifest import Component
from ..timing import Timings
from .interface import DeviceEngine
from .memory import Memory
from .runner import DeviceRunner
from .steps import Part, Step, StepPlan


def run_engine(
    runner: DeviceRunner,
    engine: DeviceEngine,
    contract: Component,
    inputs: Mapping[str, NDArray[Any]],
    timings: Timings,
) -> dict[str, NDArray[Any]]:
    """Run an engine on host arrays; returns new arrays. Whatever the contract says, floating point is float32 here."""
    shapes = {name: value.shape for name, value in inputs.items()}
    key = (engine, tuple(shapes.items()))
    with runner.turn(), runner.plan(key, lambda: EnginePlan(runner, engine, contract, shapes)) as plan:
        return plan.run(inputs, timings)


class EnginePlan(StepPlan):
    """One engine at one set of shapes, with host arrays on both sides."""

    def __init__(
        self,
        runner: DeviceRunner,
        engine: DeviceEngine,
        contract: Component,
        shapes: Mapping[str, tuple[int, ...]],
    ):
        self._stream = runner.device.stream
        name = f"{engine.component} of " + ", ".join(f"{name}{list(shape)}" for name, shape in shapes.items())
        memory = Memory(runner.device)
        execution = memory.execution(engine, shapes)
        with memory.filled(execution):
            inputs = {spec.name: (shapes[spec.name], np.dtype(spec.dtype)) for spec in contract.inputs}
            tensors = {**inputs, **execution.outputs}
            self._tensors = {name: memory.staged(shape, dtype) for name, (shape, dtype) in tensors.items()}
        self._outputs = tuple(execution.outputs)
        buffers = {name: staged.buffer for name, staged in self._tensors.items()}
        step = Step(runner, engine.component, [Part(execution, buffers)])
        super().__init__(name, memory, step)

    def run(self, inputs: Mapping[str, NDArray[Any]], timings: Timings) -> dict[str, NDArray[Any]]:
        """Outputs of the inputs, as new arrays, floating point in float32."""
        for name, value in inputs.items():
            self._tensors[name].upload(value)  # in the contract's dtype
        self._step.enqueue(timings)
        outputs = {name: self._tensors[name].download() for name in self._outputs}
        with timings.engine():
            self._stream.synchronize()
        return {name: _float32_copy(array) for name, array in outputs.items()}


def _float32_copy(array: NDArray[Any]) -> NDArray[Any]:
    return array.astype(np.float32 if array.dtype.kind == "f" else array.dtype)
