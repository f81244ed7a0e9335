"""What of the CUDA device can be told apart without a GPU."""

from __future__ import annotations

import ctypes
import gc
from collections.abc import Callable
from contextlib import nullcontext
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest

pytest.importorskip("cuda.core", reason="pip install 'latentrt[cuda]'")

from cuda.bindings import driver

from latentrt.runtime.device import cuda
from latentrt.runtime.device.cuda import CudaDevice, CudaStream
from latentrt.runtime.device.cuda_memory import CudaStaging, device_errors
from latentrt.runtime.device.dlpack import is_contiguous
from latentrt.runtime.device.driver import driver_version
from latentrt.runtime.device.host import HostDevice
from latentrt.runtime.device.interface import Counts
from latentrt.runtime.device.memory import Memory
from latentrt.runtime.errors import CaptureError, DeviceError, DeviceMemoryError, EngineError, RequestError

SUCCESS = driver.CUresult.CUDA_SUCCESS


@pytest.mark.parametrize(
    ("shape", "strides", "contiguous"),
    [((2, 3), (3, 1), True), ((3, 2), (1, 3), False), ((1, 4), (99, 1), True), ((2, 3), (4, 1), False), ((), (), True)],
)
def test_gaps_between_elements_are_seen(shape: tuple[int, ...], strides: tuple[int, ...], contiguous: bool) -> None:
    assert is_contiguous(shape, strides) is contiguous


@pytest.mark.skipif(driver_version() is not None, reason="there is a driver")
def test_no_gpu_is_an_error_of_ours() -> None:
    with pytest.raises(EngineError, match="no NVIDIA driver was found"):
        CudaDevice(None)


@pytest.mark.parametrize(("before", "restored"), [(7, [7]), (0, [])])
def test_a_thread_gets_back_the_device_that_it_had(
    monkeypatch: pytest.MonkeyPatch, before: int, restored: list[int]
) -> None:
    calls: list[object] = []

    def set_current(context: int) -> tuple[Any]:
        calls.append(context)
        return (SUCCESS,)

    monkeypatch.setattr(driver, "cuCtxGetCurrent", lambda: (SUCCESS, before))
    monkeypatch.setattr(driver, "cuCtxSetCurrent", set_current)
    ours = SimpleNamespace(set_current=lambda: calls.append("ours"))
    monkeypatch.setattr(cuda, "Device", lambda ordinal: ours)
    device = CudaDevice.__new__(CudaDevice)
    device.name, device._ordinal = "GPU 0", 0
    with pytest.raises(ZeroDivisionError), device.active():
        calls.append(1 / len(calls[1:]))
    assert calls == ["ours", *restored]


class Kept:
    """A tensor on the GPU that its library does not give away."""

    def __init__(self, error: Exception):
        self._error = error

    def __dlpack_device__(self) -> tuple[int, int]:
        return 2, 0

    def __dlpack__(self, **_: object) -> object:
        raise self._error


@pytest.mark.parametrize(
    ("error", "expected"),
    [
        (BufferError("Can't export tensors that require gradient"), "a tensor that DLPack can hand over"),
        (TypeError("float8"), "a dtype that numpy has"),
    ],
)
def test_a_tensor_that_is_not_given_away_is_refused_for_its_own_reason(error: Exception, expected: str) -> None:
    device = CudaDevice.__new__(CudaDevice)
    device.name, device._ordinal = "GPU 0", 0
    device.stream = SimpleNamespace(handle=1)  # type: ignore[assignment]
    with pytest.raises(RequestError, match=rf"latents \| received: {error} \| expected: {expected}"):
        device.from_dlpack(Kept(error), "latents")


@pytest.fixture
def freed(monkeypatch: pytest.MonkeyPatch) -> list[int]:
    """Addresses of pinned memory that was given back; it comes from the host's own here."""
    held: dict[int, Any] = {}
    freed: list[int] = []

    def allocate(size: int) -> tuple[Any, int]:
        memory = ctypes.create_string_buffer(size)
        held[ctypes.addressof(memory)] = memory
        return SUCCESS, ctypes.addressof(memory)

    def free(pointer: int) -> tuple[Any]:
        freed.append(pointer)
        return (SUCCESS,)

    monkeypatch.setattr(driver, "cuMemAllocHost", allocate)
    monkeypatch.setattr(driver, "cuMemFreeHost", free)
    return freed


def pinned(shape: tuple[int, ...], dtype: Any) -> CudaStaging:
    return CudaStaging("GPU 0", shape, dtype, active=nullcontext)


def test_pinned_memory_is_there_as_long_as_somebody_has_an_array_on_it(freed: list[int]) -> None:
    array = pinned((4, 3), np.float32).array[1:]
    pointer = array.ctypes.data - 3 * 4
    array[...] = 2
    assert freed == []
    del array
    assert freed == [pointer]


def test_too_little_memory_of_the_host_is_not_blamed_on_the_gpu(monkeypatch: pytest.MonkeyPatch) -> None:
    short = driver.CUresult.CUDA_ERROR_OUT_OF_MEMORY
    monkeypatch.setattr(driver, "cuMemAllocHost", lambda size: (short, 0))
    with pytest.raises(DeviceMemoryError, match=r"the host has no 4e-06 GB .* \| free memory of the host"):
        pinned((1000,), np.float32)


def test_pinned_memory_of_a_plan_is_given_back_when_the_plan_is_closed(
    freed: list[int], monkeypatch: pytest.MonkeyPatch
) -> None:
    device = HostDevice()
    monkeypatch.setattr(device, "staging", pinned)
    memory = Memory(device)
    array = memory.staging((5,), np.int32)
    assert freed == []
    memory.close()
    memory.close()
    assert freed == [array.ctypes.data]


@pytest.mark.parametrize(
    ("reason", "kind"), [("CUDA_ERROR_OUT_OF_MEMORY", DeviceMemoryError), ("CUDA_ERROR_LAUNCH_FAILED", DeviceError)]
)
def test_too_little_memory_is_not_a_failure_of_the_device(reason: str, kind: type[EngineError]) -> None:
    with pytest.raises(kind, match=f"GPU 0: {reason}: it is said why"), device_errors("GPU 0"):
        raise RuntimeError(f"{reason}: it is said why")


def recording(monkeypatch: pytest.MonkeyPatch, **results: tuple[Any, ...]) -> tuple[CudaStream, list[str]]:
    """A stream whose recordings give these results of the driver, and the calls of it that were made."""
    calls: list[str] = []

    def call(name: str) -> Callable[..., tuple[Any, ...]]:
        def called(*arguments: object) -> tuple[Any, ...]:
            calls.append(name)
            return results.get(name, (SUCCESS,))

        return called

    names = ("cuStreamBeginCapture", "cuStreamEndCapture", "cuGraphInstantiate", "cuGraphUpload", "cuGraphDestroy")
    for name in (*names, "cuGraphExecDestroy"):
        monkeypatch.setattr(driver, name, call(name))
    for name in ("cuGetErrorName", "cuGetErrorString"):
        monkeypatch.setattr(driver, name, lambda status: (SUCCESS, str(status.name)))
    device: Any = SimpleNamespace(name="GPU 0", counts=Counts())
    return CudaStream(device, SimpleNamespace(handle=1)), calls


def test_a_recording_that_becomes_invalid_ends_and_is_no_failure_of_the_device(monkeypatch: pytest.MonkeyPatch) -> None:
    invalid = (driver.CUresult.CUDA_ERROR_STREAM_CAPTURE_INVALIDATED, None)
    stream, calls = recording(monkeypatch, cuStreamEndCapture=invalid)
    with pytest.raises(CaptureError, match="denoiser: refused"), stream.capture():
        raise EngineError("denoiser: refused")
    with pytest.raises(CaptureError, match="CUDA_ERROR_STREAM_CAPTURE_INVALIDATED"), stream.capture():
        pass
    assert calls == ["cuStreamBeginCapture", "cuStreamEndCapture"] * 2


def test_nothing_is_collected_while_something_is_recorded(monkeypatch: pytest.MonkeyPatch) -> None:
    stream, _ = recording(monkeypatch, cuStreamEndCapture=(SUCCESS, 7), cuGraphInstantiate=(SUCCESS, 8))
    assert gc.isenabled()
    with stream.capture() as capture:
        assert not gc.isenabled()
    assert gc.isenabled()
    assert capture.graph.executable == 8


def test_a_recording_that_does_not_become_a_graph_leaves_nothing(monkeypatch: pytest.MonkeyPatch) -> None:
    short = (driver.CUresult.CUDA_ERROR_OUT_OF_MEMORY,)
    stream, calls = recording(
        monkeypatch, cuStreamEndCapture=(SUCCESS, 7), cuGraphInstantiate=(SUCCESS, 8), cuGraphUpload=short
    )
    with pytest.raises(DeviceMemoryError, match="CUDA_ERROR_OUT_OF_MEMORY"), stream.capture():
        pass
    assert calls[2:] == ["cuGraphInstantiate", "cuGraphDestroy", "cuGraphUpload", "cuGraphExecDestroy"]
