"""TensorRT and TensorRT-RTX: engines on a GPU.

An engine holds the weights, and is deserialized once. An execution is one of its contexts, fixed to one profile and one
set of shapes. It has no activation memory of its own but is lent a workspace, so that a context for each of many shapes
costs little.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from ..bundles.bundle import Bundle
from ..bundles.manifest import Component, EngineRecord
from ..bundles.spec import Profile
from ..device.interface import Buffer, Device, Stream
from ..device.memory import gigabytes
from ..errors import CaptureError, EngineError
from .contract import axis_sizes, check_buffers, output_shapes, profile_for
from .gpu import gpu_error
from .gpu import open_gpu as open_device
from .run_once import run_once
from .tensorrt_cache import RuntimeCache, cache_path
from .tensorrt_library import Library, check, library_for, log_of
from .usage import Usage

#: What every provider's module offers.
__all__ = ["check", "load_engine", "open_device"]


class TensorRTEngine:
    """A deserialized engine. Executions may be prepared by several threads."""

    def __init__(
        self,
        component: str,
        contract: Component,
        profiles: Sequence[Profile],
        data: memoryview,
        library: Library,
        device: Device,
        kept: Path | None = None,
    ):
        """Load an engine.

        Args:
            component: its name.
            contract: its inputs and outputs.
            profiles: the axis ranges that it is tuned for, in the engine's order.
            data: its file.
            library: what runs it.
            device: where.
            kept: where kernels that are compiled at run time are kept, if they are.
        """
        self.component = component
        self.contract = contract
        self.profiles = profiles
        self.library = library
        self.device = device
        self.usage = Usage(component)
        self.listen()
        with device.active():
            self._runtime = library.create_runtime()
            self.engine = self._runtime.deserialize_cuda_engine(stream_reader(library, data))
            if self.engine is None:
                raise self.failed(f"the engine, of {gigabytes(len(data))}, cannot be loaded")
            self.cache: RuntimeCache | None = None
            if kept is not None and library.compiles_at_run_time:
                self.cache = RuntimeCache(self.engine.create_runtime_config().create_runtime_cache(), kept)

    def prepare(self, shapes: Mapping[str, tuple[int, ...]]) -> TensorRTExecution:
        """An execution of the profile that is tuned for the sizes nearest to these shapes."""
        sizes = axis_sizes(self.component, self.contract, shapes)
        profile = profile_for(self.component, self.profiles, sizes)
        with self.usage:
            return TensorRTExecution(self, shapes, sizes, profile)

    def run(self, inputs: Mapping[str, NDArray[Any]]) -> dict[str, NDArray[Any]]:
        """Run on host arrays; see ``run_once``."""
        with self.usage:
            return run_once(self, self.device, inputs)

    def listen(self) -> None:
        """Before a call of the library: what it says from now on is the reason if that fails."""
        log_of(self.library).begin()

    def failed(self, what: str) -> EngineError:
        """The error for a call that the library refused, with what it said since ``listen``."""
        subject = f"{self.component}: {self.library.name} {self.library.version}: {what}"
        return gpu_error(subject, log_of(self.library).errors(), self.device)

    def close(self) -> None:
        """Release the weights. Executions must have been closed before."""
        self.usage.close()
        if self.cache is not None:
            self.cache.save()
        self.cache = self.engine = self._runtime = None


class TensorRTExecution:
    """One context of an engine, at one profile and one set of shapes."""

    def __init__(
        self,
        engine: TensorRTEngine,
        shapes: Mapping[str, tuple[int, ...]],
        sizes: Mapping[str, int],
        profile: int,
    ):
        self.outputs: Mapping[str, tuple[tuple[int, ...], np.dtype[Any]]] = output_shapes(engine.contract, sizes)
        self._engine = engine
        self._sizes = sizes
        self._fresh = True
        engine.listen()
        cache = None if engine.cache is None else engine.cache.cache
        self._context = engine.library.create_context(engine.engine, cache)
        if self._context is None:
            raise engine.failed("no context can be made")
        # On the stream that it will run on, so that the one is done before the other.
        stream = engine.device.stream.handle
        if not self._context.set_optimization_profile_async(profile, stream):
            raise engine.failed(f"profile {profile} cannot be used")
        for name, shape in shapes.items():
            if not self._context.set_input_shape(name, shape):
                raise engine.failed(f"the shape {list(shape)} of {name} is refused")
        try:
            unknown = self._context.infer_shapes()
        except RuntimeError:  # each allowed by the profile, but not together
            raise engine.failed("these shapes do not go together") from None
        if unknown:
            raise engine.failed(f"the shapes do not tell those of {', '.join(unknown)}")
        self.workspace_bytes = int(self._context.update_device_memory_size_for_shapes())

    @property
    def capturable(self) -> bool:
        """Whether a run may be recorded, which TensorRT-RTX knows once a shape was run."""
        engine = self._engine
        if not engine.library.is_capturable(self._context, engine.device.stream.handle):
            subject = f"{engine.component}: {engine.library.name} {engine.library.version} cannot be recorded"
            raise CaptureError(subject, received=", ".join(f"{axis} {size}" for axis, size in self._sizes.items()))
        return True

    def bind(self, buffers: Mapping[str, Buffer], workspace: Buffer | None) -> None:
        """Set the addresses of every input and output, and of the workspace.

        Raises:
            EngineError: a buffer of another shape or dtype, too small a workspace, or addresses that are refused.
        """
        engine = self._engine
        engine.listen()
        check_buffers(engine.component, engine.contract, self._sizes, buffers)
        lent = 0 if workspace is None else workspace.nbytes
        if lent < self.workspace_bytes:
            subject = f"{engine.component}: its workspace"
            raise EngineError(subject, received=f"{lent} bytes", expected=f"{self.workspace_bytes} bytes")
        for spec in (*engine.contract.inputs, *engine.contract.outputs):
            if not self._context.set_tensor_address(spec.name, buffers[spec.name].pointer):
                raise engine.failed(f"the address of {spec.name} is refused")
        if workspace is not None:
            self._context.set_device_memory(workspace.pointer, workspace.nbytes)

    def enqueue(self, stream: Stream) -> None:
        """Put one run on the stream. The first one compiles, where the library does that at run time.

        Raises:
            EngineError: the engine is closed, or the library refuses.
        """
        with self._engine.usage:
            self._engine.listen()
            if not self._context.execute_async_v3(stream.handle):
                raise self._engine.failed("the run cannot be put on the stream")
            if self._fresh and self._engine.cache is not None:
                self._engine.cache.save()
        self._fresh = False

    def close(self) -> None:
        """Release the context."""
        self._context = None


class EngineFile:
    """A mapped file, read from where its reader is: what it gives is the mapping itself, not a copy on the host."""

    def __init__(self, data: memoryview):
        self._data = data
        self._at = 0

    def read(self, num_bytes: int, stream: int) -> memoryview:
        """The next bytes: as many as wanted, or as there are."""
        first, self._at = self._at, min(self._at + num_bytes, len(self._data))
        return self._data[first : self._at]

    def seek_from(self, base: str, offset: int) -> bool:
        """Go to ``offset`` bytes from the file's start (``SET``), where it is (``CUR``) or the end (``END``)."""
        target = {"SET": 0, "CUR": self._at, "END": len(self._data)}[base] + offset
        if not 0 <= target <= len(self._data):
            return False
        self._at = target
        return True


def stream_reader(library: Library, data: memoryview) -> Any:
    """An engine's file for the library to read as it goes."""
    trt = library.module

    class Reader(EngineFile, trt.IStreamReaderV2):  # type: ignore[name-defined,misc]  # known at run time only
        def __init__(self) -> None:
            trt.IStreamReaderV2.__init__(self)
            EngineFile.__init__(self, data)

        def seek(self, offset: int, where: Any) -> bool:
            return self.seek_from(where.name, offset)

    return Reader()


def load_engine(
    bundle: Bundle, record: EngineRecord, *, device: Device, threads: int, options: Mapping[str, str]
) -> TensorRTEngine:
    """Load a component's engine onto the GPU.

    Raises:
        EngineError: there is no GPU, or the library refuses the engine.
        MissingDependencyError: the library is not installed.
    """
    library, contract = library_for(record), bundle.manifest.components[record.component]
    sha256 = bundle.manifest.files[record.path].sha256
    return TensorRTEngine(
        record.component,
        contract,
        record.profiles or (contract.profile,),
        bundle.map(record.path),
        library,
        device,
        cache_path(library.name, library.version, device.name, sha256),
    )
