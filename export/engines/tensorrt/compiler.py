"""Engines of TensorRT and TensorRT-RTX in a bundle."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field

import numpy as np
import onnx_ir as ir

from ....runtime.device.interface import Device
from ....runtime.errors import ExportError, RequestError
from ....runtime.providers import Engine
from ...estimates import check_memory, engine_size
from ...graphs.precision import MATRIX_OPERATORS
from ...graphs.rewrites import for_tensorrt
from ...graphs.weights import GRAPH_FOLDER
from ..engine_from_onnx import CompiledEngine, CompileJob
from ..engine_on_gpu import opener_on_gpu
from .build import BuilderOptions, EngineTask, build_engine
from .library import import_library

#: Precision -> numpy's name of what its products are computed in.
_TYPES = {"fp32": "float32", "fp16": "float16", "bf16": "bfloat16"}


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

    @property
    def only_here(self) -> bool:
        """TensorRT-RTX builds for GPUs that are elsewhere, TensorRT for the one it runs on."""
        return not import_library(self.provider).targets

    def check_memory(self, component: str, weights: int) -> None:
        """Raise RunError if building the engine would take more memory than there is."""
        check_memory(component, weights)

    def engine_size(self, weights: int) -> int:
        """Bytes that the engine file is estimated to have."""
        return engine_size(weights)

    def key(self) -> dict[str, str]:
        """Version, targets, and the settings that change an engine."""
        options = self.options
        return {
            "provider version": import_library(self.provider).version,
            "targets": ", ".join(self.targets),
            "workspace": _setting(None if options.workspace is None else f"{options.workspace / (1 << 20):g} MB"),
            "optimization level": _setting(options.optimization_level),
            "version compatible": str(options.version_compatible),
        }

    def compile(self, job: CompileJob) -> CompiledEngine:
        """Build the engine from the portable graph, in a process of its own.

        Raises:
            RunError: there is not enough memory.
            ExportError: the graph is refused, or computes in other types than it says.
        """
        check_memory(job.component, sum(job.writer.files[name].size for name in job.record.weights))
        folder = f"{self.provider}/{self.targets[0]}" if self.only_here else self.provider
        path = f"engines/{folder}/{job.component}.engine"
        portable = job.graph()
        model = for_tensorrt(portable)
        # Beside the portable graph, because the parser refuses weights that are not in a folder below.
        graph = job.writer.write_unlisted(
            f"{GRAPH_FOLDER}/{job.component}.{self.provider}.onnx",
            job.weights.graph_bytes(model, relative_to=GRAPH_FOLDER),
        )
        task = EngineTask(
            provider=self.provider,
            component=job.component,
            graph=graph,
            out=job.writer.folder / path,
            inputs=job.record.inputs,
            outputs=job.record.outputs,
            profiles=job.profiles,
            targets=self.targets,
            types=expected_types(portable, model, job.record.precision),
            tf32=job.record.precision != "fp32",  # where it is asked for, it is fp32
            options=self.options,
        )
        figures = build_engine(task, job.progress)
        graph.unlink()
        job.writer.add(path)
        return CompiledEngine(path, (), figures.peak_memory, figures.warnings, self.options.version_compatible)

    def opener(self, job: CompileJob, path: str, weights: tuple[str, ...]) -> Callable[[], Engine] | str:
        """A way to run an engine, where there is one of the GPUs that it is for."""

        def load(device: Device) -> Engine:
            from ....runtime.providers.tensorrt import TensorRTEngine
            from ....runtime.providers.tensorrt_library import Library

            data = np.memmap(job.writer.folder / path, np.uint8, "r").data
            library = Library(import_library(self.provider).module)
            return TensorRTEngine(job.component, job.record, job.profiles, data, library, device)

        return opener_on_gpu(self.targets, load)


def _setting(value: object) -> str:
    return "TensorRT's own" if value is None else str(value)


def expected_types(portable: ir.Model, rewritten: ir.Model, precision: str) -> dict[str, str]:
    """The type in which each heavy node of a rewritten graph must compute: what the portable graph says, which was
    checked against its precision plan. Nodes that only the rewritten one has stand for others in ``precision``.
    """
    stated = heavy_types(portable)
    return {name: stated.get(name, _TYPES[precision]) for name in heavy_types(rewritten)}


def heavy_types(model: ir.Model) -> dict[str, str]:
    """The type, by numpy's name, in which each convolution, product and attention of a graph computes, by its node."""
    return {node.name or "": _type(node) for node in model.graph if node.op_type in MATRIX_OPERATORS}


def _type(node: ir.Node) -> str:
    """The type of a node whose inputs and outputs all have the same: graphs need not state each of them."""
    for value in (*node.outputs, *node.inputs):
        if value is not None and value.dtype is not None:
            return "bfloat16" if value.dtype == ir.DataType.BFLOAT16 else str(value.dtype.numpy().name)
    raise ExportError(f"{node.name}: the graph does not say in which type it computes")
