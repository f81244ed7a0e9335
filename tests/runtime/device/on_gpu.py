"""What the tests on a GPU have in common: arrays there and back, and a denoiser that needs no provider."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
from numpy.typing import NDArray

from latentrt.runtime.device.interface import Buffer, Device
from latentrt.runtime.engines import Engines

from ..function_engine import engines_of
from ..table_loop import linear_contract


def on_gpu(gpu: Any, dtype: str = "float16", **options: Any) -> Engines:
    from .torch_engine import TorchEngine

    engine: Any = TorchEngine("denoiser", linear_contract(dtype=dtype), gpu, **options)
    return engines_of(engine, device=gpu)


def sent(device: Device, array: NDArray[Any]) -> Buffer:
    buffer = device.allocate(array.shape, array.dtype)
    device.stream.upload(buffer, np.ascontiguousarray(array))
    return buffer


def fetched(device: Device, buffer: Buffer) -> NDArray[Any]:
    array = np.empty(buffer.shape, buffer.dtype)
    device.stream.download(buffer, array)
    device.stream.synchronize()
    return array


#: How often work is done again before what the driver says of the GPU's free memory counts against it.
_TRIES = 3


def assert_takes_nothing(device: Device, work: Callable[[], object]) -> None:
    """Work after which as much memory is free as before it, by the driver's figure.

    That is of all processes: where another one takes some meanwhile, it will not do so each time.
    """
    taken = []
    for _ in range(_TRIES):
        free = device.memory()[0]
        work()
        taken.append(free - device.memory()[0])
        if taken[-1] <= 0:
            return
    raise AssertionError(f"of the GPU's memory, each of these runs kept so many bytes: {taken}")
