"""What the tests on a GPU have in common: arrays there and back, and a denoiser that needs no provider."""

from __future__ import annotations

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
