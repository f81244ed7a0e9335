"""ONNX Runtime on a GPU, for graphs and GPUs that TensorRT does not have an engine for.

It runs on our stream and on our buffers, without waiting for the device. It cannot be recorded in a graph of ours,
since it takes memory while it runs; it records itself, where its version replays that without waiting.
"""

from __future__ import annotations

import itertools
import logging
import re
from collections.abc import Callable, Iterable, Mapping
from concurrent.futures import ThreadPoolExecutor, wait
from typing import Any, TypeVar

import onnxruntime as ort
from numpy.typing import NDArray

from ..bundles.bundle import Bundle
from ..bundles.manifest import Component, EngineRecord
from ..device.interface import Buffer, Device, Stream
from ..errors import EngineError, MissingDependencyError
from .contract import axis_sizes, check_buffers, output_shapes
from .gpu import gpu_error
from .gpu import open_gpu as open_device
from .onnxruntime import binding_of, session_options
from .run_once import run_once
from .usage import Usage

#: What every provider's module offers.
__all__ = ["check", "load_engine", "open_device"]

_PROVIDER = "CUDAExecutionProvider"

#: Operators that take time, or that would have tensors copied to the processor. (Those on shapes belong there.)
_HEAVY = frozenset({
    "Attention", "BatchNormalization", "Conv", "ConvTranspose", "Einsum", "Gelu", "Gemm", "InstanceNormalization",
    "LayerNormalization", "MatMul", "MultiHeadAttention", "RMSNormalization", "Resize", "Sigmoid", "Softmax",
})  # fmt: skip

#: ONNX Runtime's name of the setting that has it record CUDA graphs.
_RECORDS = "enable_cuda_graph"

#: Recordings of one engine. ONNX Runtime keeps each as long as the session, also when the plan that it was of is gone.
MOST_RECORDINGS = 32
_NOT_RECORDED = -1

logger = logging.getLogger(__name__)
T = TypeVar("T")


class OnnxRuntimeCudaEngine:
    """One component as one session. Executions of it run one at a time, on the device's stream.

    They do so in one thread, whoever calls: ONNX Runtime's recordings and its handles of CUDA's libraries belong to the
    thread that made them.
    """

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
        self._recordings = itertools.count(1)
        self._thread = ThreadPoolExecutor(1, f"latentrt-{component}")
        ort.preload_dlls()  # CUDA and cuDNN of NVIDIA's wheels, which are not where the system looks for libraries
        self.records_itself = options.get(_RECORDS, _flag(replays_without_waiting(ort.__version__))) != _flag(False)
        try:
            self._session: ort.InferenceSession | None = self._open(graph, weights, options)
        except Exception as error:  # ONNX Runtime's errors share no base class
            raise self.failed("cannot load the engine", error) from error
        check_placement(component, self._session)

    def _open(
        self, graph: bytes, weights: Mapping[str, memoryview], options: Mapping[str, str]
    ) -> ort.InferenceSession:
        """A session, in the engine's thread. Where it cannot record itself and was not asked to, it does not."""
        wanted = session_options(weights)
        wanted.add_session_config_entry("session.record_ep_graph_assignment_info", "1")  # for ``check_placement``

        def open_session() -> ort.InferenceSession:
            settings = provider_settings(
                self._device.stream.handle, options, precision=self.contract.precision, records=self.records_itself
            )
            # A second session, for the processor, would take the place of the reason.
            return ort.InferenceSession(graph, wanted, providers=[(_PROVIDER, settings)], enable_fallback=False)

        try:
            return self.call(open_session)
        except Exception as error:
            if not self.records_itself or _RECORDS in options:
                raise
            logger.info("%s: not recorded by ONNX Runtime, so its work is put on the stream: %s", self.component, error)
            self.records_itself = False
            return self.call(open_session)

    def call(self, work: Callable[[], T]) -> T:
        """Do something in the engine's thread, and wait for it."""

        def on_device() -> T:
            with self._device.active():
                return work()

        future = self._thread.submit(on_device)
        try:
            return future.result()
        finally:
            wait([future])  # also where the waiting thread was interrupted

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
        if self.records_itself:
            number = next(self._recordings)
            options.add_run_config_entry("gpu_graph_id", str(number if number <= MOST_RECORDINGS else _NOT_RECORDED))
        return options

    def failed(self, what: str, error: Exception) -> EngineError:
        """The error for a call that ONNX Runtime refused."""
        return gpu_error(f"{self.component}: ONNX Runtime {ort.__version__} {what}", str(error), self._device)

    def close(self) -> None:
        """Drop the session and its memory, once the calls inside have ended."""
        self.usage.close()
        self._session = None
        self._thread.shutdown()


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
        self._binding = binding_of(self._session, self._engine.contract, buffers, "cuda")
        self._options = self._engine.run_options()  # what was recorded is of the addresses before

    def enqueue(self, stream: Stream) -> None:
        """Put one run on the device's stream, which the session was made for.

        Raises:
            EngineError: the engine is closed, or ONNX Runtime refuses.
        """
        with self._engine.usage:
            try:
                self._engine.call(lambda: self._session.run_with_iobinding(self._binding, self._options))
            except Exception as error:  # ONNX Runtime's errors share no base class
                sizes = ", ".join(f"{axis} {size}" for axis, size in self._sizes.items())
                raise self._engine.failed(f"failed with {sizes}", error) from error

    def close(self) -> None:
        """Let go of the buffers and the session."""
        self._binding = self._session = None


def provider_settings(stream: int, options: Mapping[str, str], *, precision: str, records: bool) -> dict[str, str]:
    """ONNX Runtime's settings for CUDA: our stream, and no more memory than is asked for. ``options`` override them."""
    return {
        "device_id": "0",
        "user_compute_stream": str(stream),
        "arena_extend_strategy": "kSameAsRequested",
        # The default measures every algorithm of a convolution at each size that it has not seen yet.
        "cudnn_conv_algo_search": "HEURISTIC",
        "use_tf32": _flag(precision != "fp32"),  # where fp32 is asked for, it is fp32
        _RECORDS: _flag(records),
        **options,
    }


def _flag(on: bool) -> str:
    return "1" if on else "0"


def replays_without_waiting(version: str) -> bool:
    """Whether a version of ONNX Runtime replays its recordings without waiting for the device afterwards: from 1.28 on.

    (https://github.com/microsoft/onnxruntime/pull/28686)
    """
    return tuple(int(part) for part in re.findall(r"\d+", version)[:2]) >= (1, 28)


def check_placement(component: str, session: ort.InferenceSession) -> None:
    """Refuse a session that is not on the GPU, or that runs there but for what takes the time.

    Raises:
        EngineError: it is one.
    """
    if session.get_providers()[0] != _PROVIDER:  # it falls back to the processor, with a warning
        subject = f"{component}: ONNX Runtime {ort.__version__} does not find CUDA or cuDNN"
        remedy = "pip install 'onnxruntime-gpu[cuda,cudnn]', which brings the versions it was built for"
        raise EngineError(subject, remedy=remedy)
    if not hasattr(session, "get_provider_graph_assignment_info"):  # older than 1.24
        return
    parts = [part for part in session.get_provider_graph_assignment_info() if part.ep_name != _PROVIDER]
    elsewhere = {node.op_type for part in parts for node in part.get_nodes()} & _HEAVY
    if elsewhere:
        subject = f"{component}: ONNX Runtime {ort.__version__} would run a part of it on the processor"
        remedy = "install a newer onnxruntime-gpu, and build the bundle again"
        raise EngineError(subject, received=", ".join(sorted(elsewhere)), expected="kernels for CUDA", remedy=remedy)


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
    """Load a component's engine onto the GPU. ``options`` are those of ONNX Runtime's CUDA provider.

    Raises:
        EngineError: ONNX Runtime does not accept the graph, or does not find CUDA.
    """
    contract, weights = (
        bundle.manifest.components[record.component],
        {name: bundle.map(name) for name in record.weights},
    )
    return OnnxRuntimeCudaEngine(record.component, contract, bundle.read(record.path), weights, device, options)
