"""One run of an engine on host arrays, with device memory for the time of the call: for comparing engines, not for
making pictures.
"""

from __future__ import annotations

import contextlib
from collections.abc import Mapping
from typing import Any

import numpy as np
from numpy.typing import NDArray

from ..device.interface import Buffer, Device, DeviceEngine


def run_once(engine: DeviceEngine, device: Device, inputs: Mapping[str, NDArray[Any]]) -> dict[str, NDArray[Any]]:
    """The outputs of an engine for ``inputs``, which are arrays of its contract's shapes and dtypes.

    Raises:
        EngineError: the engine refuses the inputs.
        DeviceMemoryError: there is not enough memory.
    """
    stream = device.stream
    with device.active(), contextlib.ExitStack() as taken:
        execution = engine.prepare({name: value.shape for name, value in inputs.items()})
        taken.callback(execution.close)

        def allocate(shape: tuple[int, ...], dtype: np.dtype[Any]) -> Buffer:
            buffer = device.allocate(shape, dtype)
            taken.callback(buffer.close)
            return buffer

        workspace = allocate((execution.workspace_bytes,), np.dtype(np.uint8)) if execution.workspace_bytes else None
        buffers = {name: allocate(value.shape, value.dtype) for name, value in inputs.items()}
        buffers |= {name: allocate(shape, dtype) for name, (shape, dtype) in execution.outputs.items()}
        execution.bind(buffers, workspace)
        for name, value in inputs.items():
            stream.upload(buffers[name], np.ascontiguousarray(value))
        execution.enqueue(stream)
        outputs = {name: np.empty(shape, dtype) for name, (shape, dtype) in execution.outputs.items()}
        for name, target in outputs.items():
            stream.download(buffers[name], target)
        stream.synchronize()
    return outputs
