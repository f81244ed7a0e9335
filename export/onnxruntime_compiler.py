"""Engines of ONNX Runtime's CPU provider: graphs in the spelling it runs fastest, beside the portable ones."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np

from ..runtime.errors import RequestError
from ..runtime.providers import Engine, available_threads
from .engine_from_onnx import CompiledEngine, CompileJob
from .rewrites import for_onnxruntime_cpu


@dataclass(frozen=True)
class OnnxRuntimeCompiler:
    """The compiler of ``onnxruntime-cpu``, whose engines run on any processor."""

    provider: str = "onnxruntime-cpu"
    targets: tuple[str, ...] = ()

    def check_precision(self, precision: str) -> None:
        """Raise RequestError for bf16, which most of its operators lack. It computes fp16 in fp32, slowly."""
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

    def compile(self, job: CompileJob) -> CompiledEngine:
        """Rewrite the graph and write it; tensors that stay the same are not written twice."""
        model = for_onnxruntime_cpu(job.graph())
        job.weights.externalize(model, job.component, f".{self.provider}")
        path = f"engines/{self.provider}/{job.component}.onnx"
        data, weights = job.weights.graph_bytes(model), job.weights.files(model)
        job.writer.write(path, data)
        outputs = tuple(tensor.name for tensor in job.record.outputs)

        def open_engine() -> Engine:
            views = {name: np.memmap(job.writer.folder / name, np.uint8, "r").data for name in weights}
            return engine_from_graph(job.component, data, views, outputs)

        return CompiledEngine(path, weights, open_engine)


def engine_from_graph(
    component: str, graph: bytes, weights: Mapping[str, memoryview], outputs: tuple[str, ...]
) -> Engine:
    """An engine that runs a serialized graph with all threads; ``weights`` by the locations that the graph names."""
    from ..runtime.providers.onnxruntime import OnnxRuntimeEngine, session_from_graph

    return OnnxRuntimeEngine(
        component,
        lambda threads: session_from_graph(graph, weights, threads=threads),
        outputs,
        threads=available_threads(),
        split_rows=False,
    )
