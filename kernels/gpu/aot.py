"""Kernels compiled ahead of time, without a GPU: a cubin for each target, PTX for newer ones, and how to launch them.

Triton compiles each kernel with its own ptxas. What comes out depends on nothing but the sources and Triton's version:
it holds no paths, no line numbers and no times. Each signature is read back from the code that was made and compared
with the one asked for, since the launch on a machine without Triton has nothing else to go by.

``python -P -m latentrt.kernels.gpu.aot OUT --target sm89 --target ptx --dtype float16`` does it in its own process.
"""

from __future__ import annotations

import argparse
import hashlib
import itertools
import re
import tempfile
from collections.abc import Iterable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import msgspec
import triton
from triton.backends.compiler import GPUTarget
from triton.compiler import ASTSource
from triton.runtime.errors import PTXASError
from triton.runtime.jit import JITFunction

from ...runtime.errors import ExportError
from ..launch import (
    INDEX_NAME,
    PTX,
    PTX_CAPABILITY,
    SCHEMA_VERSION,
    THREADS_PER_WARP,
    Argument,
    CompiledKernel,
    KernelIndex,
)
from ..layout import LAYOUT
from . import denoise_step, guidance_statistics, image_from_decoded, pack_rows, philox_normal, pixels_from_image
from .source import KernelSource

#: Every kernel by its name.
SOURCES: dict[str, KernelSource] = {
    "denoise_step": denoise_step.SOURCE,
    "guidance_statistics": guidance_statistics.SOURCE,
    "image_from_decoded": image_from_decoded.SOURCE,
    "pack_rows": pack_rows.SOURCE,
    "philox_normal": philox_normal.SOURCE,
    "pixels_from_image": pixels_from_image.SOURCE,
}
#: A100; A10 and RTX 30; L4, L40 and RTX 40; H100 and H200; B200; RTX 50. A cubin from sm90 on runs on that one only.
TARGETS = ("sm80", "sm86", "sm89", "sm90", "sm100", "sm120")

_TRITON_DTYPES = {"float16": "fp16", "bfloat16": "bf16", "float32": "fp32"}
_POINTER_BYTES = 16  # what every buffer's address is a multiple of
#: PTX of CUDA 12.0: what newer GPUs and drivers compile for themselves.
_PTX_VERSION = 80
_ENTRY = re.compile(r"\.visible \.entry (\w+)\((.*?)\)", re.DOTALL)
_PARAMETER = re.compile(r"\.param \.([a-z]\d+)( \.ptr)?")
_PTX_TYPES = {"i32": "u32", "i64": "u64"}


def compile_kernels(
    out: Path, targets: Sequence[str] = (), names: Iterable[str] = (), dtypes: Sequence[str] = ()
) -> KernelIndex:
    """Compile kernels into a folder, and write ``kernels.json``.

    Args:
        out: the folder; made where it is missing.
        targets: compute capabilities (``"sm89"``), and ``"ptx"``; empty for ``TARGETS`` and PTX. Beside PTX, which
            newer GPUs run, those that this Triton does not know yet are left out.
        names: keys of ``SOURCES``; empty for all.
        dtypes: of the engine's tensors: float16, bfloat16, float32; empty for all.

    Raises:
        ExportError: Triton interprets kernels in this process, or made something that cannot be launched.
    """
    out.mkdir(parents=True, exist_ok=True)
    targets = targets or (*TARGETS, PTX)
    compiled = []
    with _reproducible():
        for name in sorted(names or SOURCES):
            source = SOURCES[name]
            of_dtypes: list[str | None] = [dtype for dtype in source.dtypes if dtype in dtypes or not dtypes]
            for dtype, target in itertools.product(of_dtypes or [None], targets):
                try:
                    kernel, code = _compile(name, source, dtype, target)
                except PTXASError:
                    if target in TARGETS or PTX not in targets:
                        raise
                    continue
                (out / kernel.file).write_bytes(code)
                compiled.append(kernel)
    index = KernelIndex(
        schema_version=SCHEMA_VERSION, layout=LAYOUT, key=kernels_key(targets, dtypes), kernels=tuple(compiled)
    )
    (out / INDEX_NAME).write_bytes(msgspec.json.format(msgspec.json.encode(index), indent=2) + b"\n")
    return index


def kernels_key(targets: Sequence[str], dtypes: Sequence[str]) -> dict[str, str]:
    """What compiled kernels depend on, by name."""
    folder = Path(__file__).parents[1]
    total = hashlib.sha256()
    for path in sorted(folder.rglob("*.py")):
        total.update(path.read_bytes())
    return {
        "kernel sources": total.hexdigest(),
        "triton": triton.__version__,
        "targets": ", ".join(targets),
        "dtypes": ", ".join(dtypes or _TRITON_DTYPES),
    }


def _compile(name: str, source: KernelSource, dtype: str | None, target: str) -> tuple[CompiledKernel, bytes]:
    if not isinstance(source.function, JITFunction):
        raise ExportError(f"{name}: kernels are interpreted in this process", remedy="unset TRITON_INTERPRET")
    io = "" if dtype is None else _TRITON_DTYPES[dtype]
    arguments = tuple(
        Argument(argument, kind.replace("io", io), _multiple_of(source, argument, kind))
        for argument, kind in source.types.items()
    )
    options: dict[str, Any] = {"num_warps": source.num_warps, "enable_fp_fusion": False}
    if target == PTX:
        options["ptx_version"] = _PTX_VERSION
    capability = PTX_CAPABILITY if target == PTX else int(target.removeprefix("sm"))
    made = triton.compile(
        _ast(source, arguments),
        target=GPUTarget("cuda", capability, THREADS_PER_WARP),
        options=options,
    )
    suffix = PTX if target == PTX else f"{target}.cubin"
    kernel = CompiledKernel(
        name=name,
        dtype=dtype,
        target=target,
        file=".".join(filter(None, [name, dtype, suffix])),
        symbol=made.metadata.name,
        tile=source.tile,
        num_warps=made.metadata.num_warps,
        shared_bytes=made.metadata.shared,
        arguments=arguments,
        hidden_pointers=_hidden_pointers(name, made.asm["ptx"], arguments),
    )
    if made.metadata.global_scratch_size or made.metadata.profile_scratch_size or made.metadata.num_ctas != 1:
        raise ExportError(f"{name}: the kernel wants scratch memory or clusters", expected="neither")
    return kernel, made.asm["ptx"].encode() if target == PTX else made.asm["cubin"]


def _multiple_of(source: KernelSource, argument: str, kind: str) -> int:
    return _POINTER_BYTES if kind.startswith("*") else (source.divisible or {}).get(argument, 1)


def _ast(source: KernelSource, arguments: Sequence[Argument]) -> ASTSource:
    names = source.function.arg_names
    attributes = {
        (names.index(argument.name),): [["tt.divisibility", argument.multiple_of]]
        for argument in arguments
        if argument.multiple_of > 1
    }
    signature = {argument.name: argument.type for argument in arguments} | {"TILE": "constexpr"}
    if list(signature) != list(names):
        raise ExportError(source.function.__name__, received=f"types of {list(signature)}", expected=f"of {names}")
    return ASTSource(source.function, signature, {"TILE": source.tile}, attributes)


def _hidden_pointers(name: str, ptx: str, arguments: Sequence[Argument]) -> int:
    """How many pointers Triton put behind the arguments, after the parameters of the code were compared with them."""
    ((_, declared),) = _ENTRY.findall(ptx)
    parameters = [(kind, bool(pointer)) for kind, pointer in _PARAMETER.findall(declared)]
    asked = [
        ("u64", True) if argument.type.startswith("*") else (_PTX_TYPES[argument.type], False) for argument in arguments
    ]
    hidden = parameters[len(asked) :]
    if parameters[: len(asked)] != asked or any(parameter != ("u64", True) for parameter in hidden):
        raise ExportError(f"{name}: parameters of the compiled kernel", received=parameters, expected=asked)
    return len(hidden)


@contextmanager
def _reproducible() -> Iterator[None]:
    """Compile anew, and leave out what differs from machine to machine."""
    knobs = triton.knobs
    with tempfile.TemporaryDirectory() as cache, knobs.cache.scope(), knobs.compilation.scope():
        knobs.cache.dir = cache
        knobs.compilation.disable_line_info = True
        yield


def main() -> None:
    """The command line; see ``compile_kernels``."""
    parser = argparse.ArgumentParser(prog="latentrt.kernels.gpu.aot", description="Compile kernels into a folder.")
    parser.add_argument("out", type=Path)
    parser.add_argument("--target", action="append", default=[], help=f"one of {', '.join(TARGETS)}, {PTX}; all")
    parser.add_argument("--kernel", action="append", default=[], choices=SOURCES)
    parser.add_argument("--dtype", action="append", default=[], choices=_TRITON_DTYPES)
    given = parser.parse_args()
    compile_kernels(given.out, given.target, given.kernel, given.dtype)


if __name__ == "__main__":
    main()
