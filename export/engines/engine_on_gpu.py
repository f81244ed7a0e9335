"""Engines for GPUs, run while a bundle is built, on a machine that has the GPU: the gate compares them too."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Any

from numpy.typing import NDArray

from ...runtime.device.driver import gpu_target
from ...runtime.device.interface import Device
from ...runtime.errors import EngineError, MissingDependencyError
from ...runtime.providers import Engine
from ...runtime.providers.gpu import check_cuda

#: Loads an engine onto a device.
Load = Callable[[Device], Engine]


def opener_on_gpu(
    targets: Sequence[str], load: Load, check_library: Callable[[], None] = lambda: None
) -> Callable[[], Engine] | str:
    """A way to run an engine for GPUs of these ``targets`` (none: any), or why it cannot run here: also what
    ``check_library`` raises.
    """
    here = gpu_target()
    if here is None or (targets and here not in targets):
        return f"it was built without a GPU of {' or '.join(targets)}" if targets else "it was built without a GPU"
    try:
        check_cuda()
        check_library()
    except (EngineError, MissingDependencyError) as error:
        return f"it was not run: {error.subject}"

    def open_engine() -> Engine:
        from ...runtime.device.cuda import CudaDevice

        device = CudaDevice(None)
        try:
            return EngineWithDevice(load(device), device)
        except BaseException:
            device.close()
            raise

    return open_engine


class EngineWithDevice:
    """An engine that has a device to itself, and closes it."""

    def __init__(self, engine: Engine, device: Device):
        self.component = engine.component
        self.prepare = engine.prepare
        self._engine = engine
        self._device = device

    def run(self, inputs: Mapping[str, NDArray[Any]]) -> dict[str, NDArray[Any]]:
        """Run on host arrays."""
        return self._engine.run(inputs)

    def close(self) -> None:
        """Release both, the device even if the engine fails to close."""
        with self._device:
            self._engine.close()
