"""From a portable ONNX graph to an engine of one provider."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import onnx_ir as ir

from ..runtime.errors import RequestError
from ..runtime.manifest import Component
from ..runtime.providers import Engine, available_threads
from .rewrites import for_onnxruntime_cpu


@dataclass(frozen=True)
class Compiler:
    """How export builds for a provider: which precisions it runs, its version, the rewrite, and a way to run it."""

    provider: str
    precisions: tuple[str, ...]
    version: Callable[[], str]
    rewrite: Callable[[ir.Model], ir.Model]
    open: Callable[[str, Component, Path, bytes, tuple[str, ...]], Engine]

    def check_precision(self, precision: str) -> None:
        """Raise RequestError for a precision that the provider does not compute in."""
        if precision not in self.precisions:
            raise RequestError(
                "--precision",
                received=precision,
                expected=f"{' or '.join(self.precisions)} for {self.provider}",
                remedy="or use --onnx-only to export the graphs in that precision",
            )


def _onnxruntime_version() -> str:
    import onnxruntime

    return str(onnxruntime.__version__)


def _open_onnxruntime(name: str, record: Component, folder: Path, graph: bytes, weights: tuple[str, ...]) -> Engine:
    from ..runtime.providers.onnxruntime import OnnxRuntimeEngine, session_from_graph

    views = {file: np.memmap(folder / file, np.uint8, "r").data for file in weights}
    outputs = tuple(tensor.name for tensor in record.outputs)
    return OnnxRuntimeEngine(
        name,
        lambda threads: session_from_graph(graph, views, threads=threads),
        outputs,
        threads=available_threads(),
        split_rows=False,
    )


COMPILERS: dict[str, Compiler] = {
    "onnxruntime-cpu": Compiler(
        provider="onnxruntime-cpu",
        precisions=("fp32",),
        version=_onnxruntime_version,
        rewrite=for_onnxruntime_cpu,
        open=_open_onnxruntime,
    ),
}


def compiler_for(provider: str) -> Compiler:
    """The compiler of a provider.

    Raises:
        RequestError: an unknown provider.
    """
    if provider not in COMPILERS:
        raise RequestError("--provider", received=provider, expected=" or ".join(COMPILERS))
    return COMPILERS[provider]
