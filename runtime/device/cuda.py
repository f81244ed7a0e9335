"""A GPU as a device, through cuda.core: neither torch nor triton takes part.

Kernels are the compiled ones of the bundle. All work goes to one stream.
"""

from __future__ import annotations

import gc
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from typing import Any

import numpy as np
from cuda.bindings import __version__ as bindings_version
from cuda.bindings import driver
from cuda.core import Device, EventOptions, Kernel, LaunchConfig, ObjectCode, StreamOptions
from cuda.core import launch as launch_kernel
from cuda.core.utils import StridedMemoryView
from numpy.typing import DTypeLike, NDArray

from ...kernels.launch import PTX, CompiledKernel, KernelSet, grid, kernel_arguments
from ..errors import CaptureError, DeviceMemoryError, EngineError, LatentRTError, RequestError
from ..owner import Owner
from .cuda_memory import CudaBuffer, CudaStaging, checked, device_allocation, device_errors, memory_figure
from .dlpack import CUDA, CUDA_MANAGED, DLPACK_DEVICES, is_contiguous
from .driver import check_driver
from .interface import Buffer, Counts, Event, Launch, Stream


class CudaEvent:
    """An event of the driver, without a time."""

    def __init__(self, device: CudaDevice, core: Any):
        self._device = device
        self.core = core

    def synchronize(self) -> None:
        self._device.counts.synchronizations += 1
        with device_errors(self._device.name):
            self.core.sync()


class CudaLaunch:
    """A kernel with its grid and arguments; it keeps the buffers that these point to."""

    def __init__(self, kernel: Kernel, config: LaunchConfig, arguments: list[Any], buffers: tuple[Buffer, ...]):
        self.kernel = kernel
        self.config = config
        self.arguments = arguments
        self._buffers = buffers


class CudaGraph:
    """An executable graph of the driver. It may be closed while it runs."""

    def __init__(self, device: str, executable: Any):
        self._device = device
        self.executable = executable

    def launch(self, stream: Stream) -> None:
        checked(self._device, driver.cuGraphLaunch(self.executable, stream.handle))

    def close(self) -> None:
        checked(self._device, driver.cuGraphExecDestroy(self.executable))


class CudaCapture:
    """A recording; ``graph`` is there after the block."""

    graph: CudaGraph


class CudaStream:
    """The device's stream. It does not wait for the legacy default stream, nor that for it."""

    def __init__(self, device: CudaDevice, core: Any):
        self.core = core
        self.handle = int(core.handle)
        self._device = device
        self._name = device.name
        self._driver_handle = core.handle

    def upload(self, target: Buffer, source: NDArray[Any]) -> None:
        assert source.flags.c_contiguous
        assert source.nbytes == target.nbytes
        address = source.ctypes.data
        checked(self._name, driver.cuMemcpyHtoDAsync(target.pointer, address, target.nbytes, self._driver_handle))

    def download(self, source: Buffer, target: NDArray[Any]) -> None:
        assert target.flags.c_contiguous
        assert source.nbytes == target.nbytes
        address = target.ctypes.data
        checked(self._name, driver.cuMemcpyDtoHAsync(address, source.pointer, source.nbytes, self._driver_handle))

    def copy(self, target: Buffer, source: Buffer) -> None:
        assert source.nbytes == target.nbytes
        checked(
            self._name,
            driver.cuMemcpyDtoDAsync(target.pointer, source.pointer, source.nbytes, self._driver_handle),
        )

    def fill_zero(self, target: Buffer) -> None:
        checked(self._name, driver.cuMemsetD8Async(target.pointer, 0, target.nbytes, self._driver_handle))

    def launch(self, launch: Launch) -> None:
        assert isinstance(launch, CudaLaunch)
        with device_errors(self._name):
            launch_kernel(self.core, launch.config, launch.kernel, *launch.arguments)

    def record(self, event: Event) -> None:
        assert isinstance(event, CudaEvent)
        with device_errors(self._name):
            self.core.record(event.core)

    @contextmanager
    def capture(self) -> Iterator[CudaCapture]:
        capture, stream = CudaCapture(), self._driver_handle
        # What other threads do meanwhile, such as loading an engine, is not looked at.
        mode = driver.CUstreamCaptureMode.CU_STREAM_CAPTURE_MODE_THREAD_LOCAL
        collects = gc.isenabled()
        gc.disable()  # memory of the GPU that it would free in this thread breaks a recording off
        try:
            checked(self._name, driver.cuStreamBeginCapture(stream, mode))
            try:
                yield capture
            except BaseException:
                status, recorded = driver.cuStreamEndCapture(stream)  # an invalid one ends with an error, and ends
                if status == driver.CUresult.CUDA_SUCCESS:
                    checked(self._name, driver.cuGraphDestroy(recorded))
                raise
            capture.graph = self._executable(checked(self._name, driver.cuStreamEndCapture(stream)))
        except DeviceMemoryError:
            raise
        except LatentRTError as error:
            raise CaptureError(
                error.subject, received=error.received, expected=error.expected, remedy=error.remedy
            ) from error
        finally:
            if collects:
                gc.enable()
        self._device.counts.captures += 1

    def synchronize(self) -> None:
        self._device.counts.synchronizations += 1
        with device_errors(self._name):
            self.core.sync()

    def _executable(self, recorded: Any) -> CudaGraph:
        """What a recording becomes, in the device's memory: or its first launch would have to wait for that."""
        try:
            graph = CudaGraph(self._name, checked(self._name, driver.cuGraphInstantiate(recorded, 0)))
        finally:
            checked(self._name, driver.cuGraphDestroy(recorded))
        try:
            checked(self._name, driver.cuGraphUpload(graph.executable, self._driver_handle))
        except EngineError:
            graph.close()
            raise
        return graph


class CudaDevice(Owner):
    """One GPU, by its ordinal, with the kernels of a bundle."""

    def __init__(self, kernels: KernelSet | None, ordinal: int = 0):
        """Open the GPU.

        Raises:
            EngineError: no driver, one that is too old, or no such GPU.
        """
        check_driver((int(bindings_version.split(".")[0]), 0))
        self._ordinal = ordinal
        self._kernels = kernels
        self._loaded: dict[str, Kernel] = {}
        self.name = f"GPU {ordinal}"
        self.counts = Counts()
        with device_errors(self.name):
            core = Device(ordinal)
        with self.active(), device_errors(self.name):
            self.name = f"GPU {ordinal} ({core.name})"
            capability = core.compute_capability
            self._core_stream = core.create_stream(options=StreamOptions(nonblocking=True))
        self.target = f"sm{capability[0]}{capability[1]}"
        self.stream = CudaStream(self, self._core_stream)

    def allocate(self, shape: tuple[int, ...], dtype: DTypeLike) -> CudaBuffer:
        size = int(np.prod(shape)) * np.dtype(dtype).itemsize
        allocation = device_allocation(self.name, size, self.active)
        self.counts.allocations += 1
        return CudaBuffer(allocation, allocation.pointer, shape, dtype, self._ordinal, frees=True)

    def staging(self, shape: tuple[int, ...], dtype: DTypeLike) -> CudaStaging:
        self.counts.allocations += 1
        return CudaStaging(self.name, shape, dtype, self.active)

    def event(self) -> CudaEvent:
        with device_errors(self.name):
            return CudaEvent(self, Device(self._ordinal).create_event(options=EventOptions()))

    @contextmanager
    def active(self) -> Iterator[None]:
        before = checked(self.name, driver.cuCtxGetCurrent())
        with device_errors(self.name):
            Device(self._ordinal).set_current()
        try:
            yield
        finally:
            if int(before):  # otherwise the thread was of no device
                driver.cuCtxSetCurrent(before)  # its status may be that of the work in the block, which tells it itself

    def from_dlpack(self, tensor: Any, name: str = "a tensor") -> CudaBuffer:
        kind, ordinal = tensor.__dlpack_device__()
        if kind not in (CUDA, CUDA_MANAGED) or ordinal != self._ordinal:
            where = f"on {DLPACK_DEVICES.get(kind, kind)}, device {ordinal}"
            raise RequestError(name, received=where, expected=f"on {self.name}")
        try:
            view = StridedMemoryView.from_dlpack(tensor, stream_ptr=self.stream.handle)
            shape, strides, dtype = tuple(view.shape), view.strides, view.dtype
        except BufferError as error:  # the other library does not give it away
            raise RequestError(name, received=str(error), expected="a tensor that DLPack can hand over") from error
        except (NotImplementedError, TypeError) as error:
            raise RequestError(name, received=str(error), expected="a dtype that numpy has") from error
        if strides is not None and not is_contiguous(shape, strides):
            raise RequestError(name, received=f"strides {list(strides)}", expected="a contiguous one")
        return CudaBuffer(view, int(view.ptr), shape, dtype, self._ordinal)

    def bind(
        self, kernel: str, arguments: Mapping[str, Buffer | int], *, elements: int, outer: int, dtype: str | None = None
    ) -> CudaLaunch:
        values = {name: value if isinstance(value, int) else value.pointer for name, value in arguments.items()}
        try:
            if self._kernels is None:
                raise LookupError("the bundle has none")
            record = self._kernels.select(kernel, dtype, self.target)
            packed = kernel_arguments(record, values)
        except LookupError as error:
            remedy = "build the bundle again where triton is installed: latentrt build-engines"
            raise EngineError(f"{self.name}: the kernel {kernel}: {error}", remedy=remedy) from None
        except ValueError as error:  # a size that the code was not compiled for
            remedy = "choose a width or a height that is a multiple of 16"
            raise EngineError(f"{self.name}: the kernel {kernel}: {error}", remedy=remedy) from None
        config = LaunchConfig(grid=grid(record, elements, outer), block=record.threads, shmem_size=record.shared_bytes)
        buffers = tuple(value for value in arguments.values() if not isinstance(value, int))
        return CudaLaunch(self._loaded_kernel(record, self._kernels), config, packed, buffers)

    def memory(self) -> tuple[int, int]:
        with self.active():
            return memory_figure(self.name)

    def close(self) -> None:
        self._loaded.clear()
        with device_errors(self.name):
            self._core_stream.close()

    def _loaded_kernel(self, record: CompiledKernel, kernels: KernelSet) -> Kernel:
        if record.file not in self._loaded:
            code = kernels.read(record.file)
            with device_errors(self.name):
                module = ObjectCode.from_ptx(code) if record.target == PTX else ObjectCode.from_cubin(code)
                self._loaded[record.file] = module.get_kernel(record.symbol)
        return self._loaded[record.file]
