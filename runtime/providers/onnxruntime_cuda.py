"""ONNX Runtime on a GPU, for graphs and GPUs that TensorRT does not have an engine for.

It runs on our stream and on our buffers, without waiting for the device. It cannot be recorded in a graph of ours,
since it takes memory while it runs; it can record itself, but waits for the device after each run that it replays.
"""

from __future__ import annotations

import itertools
from collections.abc import Iterable, Mapping
from typing import Any

import onnxruntime as ort
from numpy.typing import NDArray

from ..bundles.bundle import Bundle
from ..bundles.manifest import Component, EngineRecord
from ..device.interface import Buffer, Device, Stream
from ..errors import EngineError, MissingDependencyError
from .contract import axis_sizes, check_buffers, output_shapes
from .gpu import gpu_error
from .gpu import open_gpu as open_device
from .onnxruntime import bound, session_options
from .run_once import run_once
from .usage import Usage

#: What every provider's module offers.
__all__ = ["check", "load_engine", "open_device"]

_PROVIDER = "CUDAExecutionProvider"


class OnnxRuntimeCudaEngine:
    """One component as one session. Executions of it run one at a time, on the device's stream."""

    def __init__(
        self,
        component: str,
        contract: Component,
        graph: bytes,
        weights: Mapping[str, memoryview],
        device: Device,
        options: Mapping[str, str],
    ):
        self.component = component
        self.contract = contract
        self.usage = Usage(component)
        self._device = device
        self._records_itself = options.get("enable_cuda_graph", "0") != "0"
        self._recordings = itertools.count()
        settings = provider_settings(device.stream.handle, options)
        ort.preload_dlls()  # CUDA and cuDNN of NVIDIA's wheels, which are not where the system looks for libraries
        try:
            with device.active():
                self._session: ort.InferenceSession | None = ort.InferenceSession(
                    graph,
                    session_options(weights),
                    providers=[(_PROVIDER, settings)],
                    enable_fallback=False,  # a second session, for the processor, would take the place of the reason
                )
        except Exception as error:  # ONNX Runtime's errors share no base class
            raise self.failed("cannot load the engine", error) from error
        if self._session.get_providers()[0] != _PROVIDER:  # it falls back to the processor, with a warning
            subject = f"{self.component}: ONNX Runtime {ort.__version__} does not find CUDA or cuDNN"
            remedy = "pip install 'onnxruntime-gpu[cuda,cudnn]', which brings the versions it was built for"
            raise EngineError(subject, remedy=remedy)

    def run(self, inputs: Mapping[str, NDArray[Any]]) -> dict[str, NDArray[Any]]:
        """Run on host arrays; see ``run_once``."""
        with self.usage:
            return run_once(self, self._device, inputs)

    def prepare(self, shapes: Mapping[str, tuple[int, ...]]) -> OnnxRuntimeCudaExecution:
        """An execution on buffers of the GPU."""
        with self.usage:
            return OnnxRuntimeCudaExecution(self, self._session, axis_sizes(self.component, self.contract, shapes))

    def run_options(self) -> ort.RunOptions:
        """The options of an execution's runs: a number of its own, where ONNX Runtime records them."""
        options = ort.RunOptions()
        # The outputs are read by what comes later on the same stream: the host need not wait for them.
        options.add_run_config_entry("disable_synchronize_execution_providers", "1")
        if self._records_itself:
            options.add_run_config_entry("gpu_graph_id", str(next(self._recordings)))
        return options

    def failed(self, what: str, error: Exception) -> EngineError:
        """The error for a call that ONNX Runtime refused."""
        return gpu_error(f"{self.component}: ONNX Runtime {ort.__version__} {what}", str(error), self._device)

    def close(self) -> None:
        """Drop the session and its memory, once the calls inside have ended."""
        self.usage.close()
        self._session = None


class OnnxRuntimeCudaExecution:
    """A component at one set of sizes. ONNX Runtime has memory of its own beside the buffers."""

    workspace_bytes = 0
    capturable = False

    def __init__(self, engine: OnnxRuntimeCudaEngine, session: ort.InferenceSession, sizes: Mapping[str, int]):
        self.outputs = output_shapes(engine.contract, sizes)
        self._engine = engine
        self._session = session
        self._sizes = sizes
        self._binding: ort.IOBinding | None = None
        self._options: ort.RunOptions | None = None

    def bind(self, buffers: Mapping[str, Buffer], workspace: Buffer | None) -> None:
        """Bind every input and output.

        Raises:
            EngineError: a buffer of another shape or dtype.
        """
        check_buffers(self._engine.component, self._engine.contract, self._sizes, buffers)
        self._binding = bound(self._session, self._engine.contract, buffers, "cuda")
        self._options = self._engine.run_options()  # what was recorded is of the addresses before

    def enqueue(self, stream: Stream) -> None:
        """Put one run on the device's stream, which the session was made for.

        Raises:
            EngineError: the engine is closed, or ONNX Runtime refuses.
        """
        with self._engine.usage:
            try:
                self._session.run_with_iobinding(self._binding, self._options)
            except Exception as error:  # ONNX Runtime's errors share no base class
                sizes = ", ".join(f"{axis} {size}" for axis, size in self._sizes.items())
                raise self._engine.failed(f"failed with {sizes}", error) from error

    def close(self) -> None:
        """Let go of the buffers and the session."""
        self._binding = self._session = None


def provider_settings(stream: int, options: Mapping[str, str]) -> dict[str, str]:
    """ONNX Runtime's settings for CUDA: our stream, and no more memory than is asked for. ``options`` override them."""
    return {
        "device_id": "0",
        "user_compute_stream": str(stream),
        "arena_extend_strategy": "kSameAsRequested",
        # The default measures every algorithm of a convolution at each size that it has not seen yet.
        "cudnn_conv_algo_search": "HEURISTIC",
        **options,
    }


def check(records: Iterable[EngineRecord]) -> None:
    """Check that the installed ONNX Runtime is the one with CUDA: the packages share their module's name.

    Raises:
        MissingDependencyError: it is the one for processors.
    """
    if _PROVIDER not in ort.get_available_providers():
        raise MissingDependencyError(
            "the provider onnxruntime-cuda needs onnxruntime-gpu",
            received=f"onnxruntime {ort.__version__} for processors",
            remedy="install that in its place: pip uninstall onnxruntime, then pip install 'latentrt[cuda]'",
        )


def load_engine(
    bundle: Bundle, record: EngineRecord, *, device: Device, threads: int, options: Mapping[str, str]
) -> OnnxRuntimeCudaEngine:
    """Load a component's engine onto the GPU. ``options`` are those of ONNX Runtime's CUDA provider; with
    ``enable_cuda_graph`` it records the runs of each execution.

    Raises:
        EngineError: ONNX Runtime does not accept the graph, or does not find CUDA.
    """
    contract, weights = (
        bundle.manifest.components[record.component],
        {name: bundle.map(name) for name in record.weights},
    )
    return OnnxRuntimeCudaEngine(record.component, contract, bundle.read(record.path), weights, device, options)
