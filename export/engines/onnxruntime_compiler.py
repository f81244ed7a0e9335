"""Engines of ONNX Runtime: graphs in the spelling it runs fastest, beside the portable ones."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass

import numpy as np

from ...runtime.bundles.manifest import Component
from ...runtime.device.interface import Device
from ...runtime.errors import RequestError
from ...runtime.providers import PROVIDERS, Engine, available_threads, import_provider
from ..graphs.onnxruntime_cuda import for_onnxruntime_cuda
from ..graphs.rewrites import for_onnxruntime_cpu
from .engine_from_onnx import CompiledEngine, CompileJob
from .engine_on_gpu import opener_on_gpu

#: A graph without its weights takes less than this.
_GRAPH_BYTES = 16 << 20


@dataclass(frozen=True)
class OnnxRuntimeCompiler:
    """The compiler of ``onnxruntime-cpu``, whose engines run on any processor, and of ``onnxruntime-cuda``, whose
    engines run on any GPU.
    """

    provider: str = "onnxruntime-cpu"
    targets: tuple[str, ...] = ()
    only_here: bool = False

    def check_precision(self, precision: str) -> None:
        """Raise RequestError for bf16, which most of its operators lack. On a processor it computes fp16 in fp32."""
        if precision not in ("fp32", "fp16"):
            raise RequestError(
                "--precision",
                received=precision,
                expected=f"fp32 or fp16 for {self.provider}",
                remedy="or use --onnx-only to export the graphs in that precision",
            )

    def key(self) -> dict[str, str]:
        """The version: which operators are fused, and how, changes with it."""
        import onnxruntime

        return {"provider version": str(onnxruntime.__version__)}

    def check_memory(self, component: str, weights: int) -> None:
        """Rewriting a graph reads one tensor after another: there is nothing to refuse."""

    def engine_size(self, weights: int) -> int:
        """Its engines are graphs that refer to the weights of the portable ones."""
        return _GRAPH_BYTES

    def compile(self, job: CompileJob) -> CompiledEngine:
        """Rewrite the graph and write it; tensors that stay the same are not written twice."""
        if PROVIDERS[self.provider].needs_gpu:
            model = for_onnxruntime_cuda(job.graph())
        else:
            model = for_onnxruntime_cpu(job.graph(), {axis: sizes.max for axis, sizes in job.record.profile.items()})
        job.weights.externalize(model, job.component, f".{self.provider}")
        path = f"engines/{self.provider}/{job.component}.onnx"
        job.writer.write(path, job.weights.graph_bytes(model))
        return CompiledEngine(path, job.weights.files(model))

    def opener(self, job: CompileJob, path: str, weights: tuple[str, ...]) -> Callable[[], Engine] | str:
        """A way to run an engine; whether there is enough memory for that is asked with its reference."""
        folder = job.writer.folder

        def views() -> dict[str, memoryview]:
            return {name: np.memmap(folder / name, np.uint8, "r").data for name in weights}

        def open_engine() -> Engine:
            return engine_from_graph(job.component, (folder / path).read_bytes(), views(), job.record)

        def load(device: Device) -> Engine:
            from ...runtime.providers.onnxruntime_cuda import OnnxRuntimeCudaEngine

            graph = (folder / path).read_bytes()
            return OnnxRuntimeCudaEngine(job.component, job.record, graph, views(), device, {})

        if self.provider == "onnxruntime-cpu":
            return open_engine
        return opener_on_gpu((), load, lambda: import_provider(self.provider).check(()))


def engine_from_graph(component: str, graph: bytes, weights: Mapping[str, memoryview], record: Component) -> Engine:
    """An engine that runs a serialized graph with all threads; ``weights`` by the locations that the graph names."""
    from ...runtime.providers.onnxruntime import OnnxRuntimeEngine, session_from_graph

    return OnnxRuntimeEngine(
        component,
        record,
        lambda threads: session_from_graph(graph, weights, threads=threads),
        threads=available_threads(),
        split_rows=False,
    )
