"""Engines of TensorRT and TensorRT-RTX in a bundle."""

from __future__ import annotations

from dataclasses import dataclass, field

import onnx_ir as ir

from ...runtime.errors import ExportError, RequestError
from ..engine_from_onnx import CompiledEngine, CompileJob
from ..rewrites import for_tensorrt
from ..weights import GRAPH_FOLDER
from .build import BuilderOptions, EngineTask, build_engine
from .library import import_library
from .resources import check_memory

#: The operators whose layers take the time.
_HEAVY = ("Attention", "Conv", "ConvTranspose", "Gemm", "MatMul")

_NOT_RUN = "engines of TensorRT do not run while a bundle is built; the graph was compared with PyTorch instead"


@dataclass(frozen=True)
class TensorRTCompiler:
    """The compiler of ``tensorrt`` and ``tensorrt-rtx``. ``targets`` are compute capabilities such as ``"sm89"``."""

    provider: str
    targets: tuple[str, ...]
    options: BuilderOptions = field(default_factory=BuilderOptions)

    def check_precision(self, precision: str) -> None:
        """Raise RequestError for a precision that the provider does not compute in."""
        if precision not in ("fp16", "bf16", "fp32"):
            raise RequestError("--precision", received=precision, expected=f"fp16, bf16 or fp32 for {self.provider}")

    def key(self) -> dict[str, str]:
        """Version, targets, and the settings that change an engine."""
        options = self.options
        return {
            "provider version": import_library(self.provider).version,
            "targets": ", ".join(self.targets),
            "workspace": str(options.workspace),
            "optimization level": str(options.optimization_level),
            "version compatible": str(options.version_compatible),
        }

    def compile(self, job: CompileJob) -> CompiledEngine:
        """Build the engine from the portable graph, in a process of its own.

        Raises:
            RunError: there is not enough memory.
            ExportError: the graph is refused, or computes in other types than it says.
        """
        weights = sum(job.writer.files[name].size for name in job.record.weights)
        check_memory(job.component, weights)
        path = f"engines/{self.provider}/{job.component}.engine"
        model = for_tensorrt(job.graph())
        # Beside the portable graph, because the parser refuses weights that are not in a folder below.
        graph = job.writer.folder / GRAPH_FOLDER / f"{job.component}.{self.provider}.onnx"
        graph.write_bytes(job.weights.graph_bytes(model, relative_to=GRAPH_FOLDER))
        task = EngineTask(
            provider=self.provider,
            component=job.component,
            graph=graph,
            out=job.writer.folder / path,
            inputs=job.record.inputs,
            outputs=job.record.outputs,
            profiles=job.profiles,
            targets=self.targets,
            types=heavy_types(model),
            options=self.options,
        )
        figures = build_engine(task, job.progress)
        graph.unlink()
        job.writer.add(path)
        return CompiledEngine(path, (), None, _NOT_RUN, figures.peak_memory, figures.warnings)


def heavy_types(model: ir.Model) -> dict[str, str]:
    """The type, by numpy's name, in which each convolution, product and attention of a graph computes, by its node."""
    return {node.name or "": _type(node) for node in model.graph if node.op_type in _HEAVY}


def _type(node: ir.Node) -> str:
    """The type of a node whose inputs and outputs all have the same: graphs need not state each of them."""
    for value in (*node.outputs, *node.inputs):
        if value is not None and value.dtype is not None:
            return "bfloat16" if value.dtype == ir.DataType.BFLOAT16 else str(value.dtype.numpy().name)
    raise ExportError(f"{node.name}: the graph does not say in which type it computes")
