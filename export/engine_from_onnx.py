"""From a portable ONNX graph to an engine of one provider."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import onnx_ir as ir

from ..runtime.errors import EngineError, RequestError
from ..runtime.manifest import Component
from ..runtime.providers import PROVIDERS, Engine, available_threads
from .rewrites import for_onnxruntime_cpu


@dataclass(frozen=True)
class Compiler:
    """How export builds for a provider: which precisions it runs, its version, the rewrite, and a way to run it."""

    provider: str
    precisions: tuple[str, ...]
    version: Callable[[], str]
    rewrite: Callable[[ir.Model], ir.Model]
    open: Callable[[str, Component, Path, bytes, tuple[str, ...]], Engine]


def _onnxruntime_version() -> str:
    import onnxruntime

    return str(onnxruntime.__version__)


def _open_onnxruntime(name: str, record: Component, folder: Path, graph: bytes, weights: tuple[str, ...]) -> Engine:
    from ..runtime.providers.onnxruntime import OnnxRuntimeEngine, session_from_graph

    views = {file: memoryview((folder / file).read_bytes()) for file in weights}
    try:
        session = session_from_graph(graph, views, threads=available_threads())
    except Exception as error:  # ONNX Runtime's errors share no base class
        raise EngineError(f"{name}: ONNX Runtime cannot load the engine: {error}") from error
    return OnnxRuntimeEngine(name, session, tuple(tensor.name for tensor in record.outputs))


COMPILERS: dict[str, Compiler] = {
    "onnxruntime-cpu": Compiler(
        provider="onnxruntime-cpu",
        precisions=("fp32",),
        version=_onnxruntime_version,
        rewrite=for_onnxruntime_cpu,
        open=_open_onnxruntime,
    ),
}


def compiler_for(provider: str, precision: str) -> Compiler:
    """The compiler of a provider.

    Raises:
        RequestError: an unknown provider, or a precision that it does not compute in.
    """
    if provider not in COMPILERS:
        raise RequestError("--provider", received=provider, expected=" or ".join(PROVIDERS))
    compiler = COMPILERS[provider]
    if precision not in compiler.precisions:
        raise RequestError(
            "--precision",
            received=precision,
            expected=f"{' or '.join(compiler.precisions)} for {provider}",
            remedy="or use --onnx-only to export the graphs in that precision",
        )
    return compiler
