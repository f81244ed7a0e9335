"""Single operations on this machine's GPU: LatentRT's own kernels, and what providers could be slow at.

``python -P -m latentrt.benchmarks.operations TASK`` prints a line of JSON for each: a process of its own, so that the
one that asks needs neither a GPU nor the libraries.
"""

from __future__ import annotations

import sys
import tempfile
from collections.abc import Callable, Iterator, Sequence
from itertools import chain
from pathlib import Path

import msgspec
import numpy as np
import torch
from numpy.typing import NDArray

from . import fused_kernels
from .baselines import Device
from .gpu_clock import seconds_of
from .own_kernels import launches
from .provider_operations import Operation, geglu, group_norm_silu, prepared, write_bundle
from .results import Failure
from .results_kernels import Operated
from .workload import OperationsTask

TRITON, TORCH, OURS = "a plain Triton kernel", "torch", "LatentRT"


def main() -> None:
    """Measure and print."""
    task = msgspec.json.decode(sys.argv[1], type=OperationsTask)
    for record in chain(own(task), theirs(task, operations_of(task.family, task.height, task.width))):
        print(msgspec.json.encode(record).decode(), flush=True)


def own(task: OperationsTask) -> Iterator[Operated | Failure]:
    """LatentRT's kernels, for one picture and for as many as do not fit into any cache."""
    for images in (1, task.many):
        try:
            for launch in launches(task.device, images, task.channels, task.height, task.width):
                yield _timed(task, launch.kernel, OURS, launch.shape, launch.bytes, launch.run)
        except Exception as error:  # such as no memory for so many
            yield Failure(OURS, f"kernels for {images} pictures", f"{type(error).__name__}: {error}")


def operations_of(family: str, height: int, width: int) -> list[Operation]:
    """Those of a guided picture with such latents: of the UNet where the family has one, else of the decoder."""
    quarter = (height // 4, width // 4)
    if family == "sd1":
        gated = [geglu(2, height * width, 1280), geglu(2, quarter[0] * quarter[1], 5120)]
    elif family == "sdxl":
        gated = [geglu(2, height * width // 4, 2560), geglu(2, quarter[0] * quarter[1], 5120)]
    else:
        return [group_norm_silu(1, 512, height, width), group_norm_silu(1, 128, 8 * height, 8 * width)]
    return [group_norm_silu(2, 320, height, width), group_norm_silu(2, 1280, *quarter), *gated]


def theirs(task: OperationsTask, operations: Sequence[Operation]) -> Iterator[Operated | Failure]:
    """Each operation by a plain fused kernel, by torch, and by every provider."""
    for operation in operations:
        shape = "x".join(map(str, operation.shape))
        x = np.random.default_rng(0).standard_normal(operation.shape, np.float32).astype(np.float16)
        for by, run in in_torch(operation, x, task.device).items():
            yield _timed(task, operation.what, by, shape, operation.bytes, run)
        with tempfile.TemporaryDirectory() as folder:
            path = Path(folder) / "bundle"
            write_bundle(operation, path)
            for provider in task.providers:
                try:
                    with prepared(path, provider, x) as (run, stream):
                        yield _timed(task, operation.what, provider, shape, operation.bytes, run, stream)
                except Exception as error:  # of a library: the next provider may do better
                    yield Failure(provider, f"{operation.what}, {shape}", f"{type(error).__name__}: {error}")


def _timed(
    task: OperationsTask, what: str, by: str, shape: str, moved: int, run: Callable[[], object], stream: int = 0
) -> Operated | Failure:
    try:
        return Operated(what, by, shape, moved, seconds_of(run, task.device, stream))
    except Exception as error:  # whatever it is, the next one may do better
        return Failure(by, f"{what}, {shape}", f"{type(error).__name__}: {error}")


def in_torch(operation: Operation, x: NDArray[np.float16], device: Device) -> dict[str, Callable[[], object]]:
    """The operation on a tensor ``x``, by a plain Triton kernel, which writes to the same memory each time, and by
    torch: what it is called -> what gives the result."""
    given, y = torch.from_numpy(x).to(device), torch.empty(operation.output_shape, dtype=torch.float16, device=device)
    functional = torch.nn.functional
    if operation.weights:
        weight, bias = (torch.from_numpy(value).to(device) for value in operation.weights.values())

        def fused() -> torch.Tensor:
            fused_kernels.group_norm_silu(given, weight, bias, y)
            return y

        def plain() -> torch.Tensor:
            return functional.silu(
                functional.group_norm(given, fused_kernels.GROUPS, weight, bias, fused_kernels.EPSILON)
            )
    else:

        def fused() -> torch.Tensor:
            fused_kernels.geglu(given, y)
            return y

        def plain() -> torch.Tensor:
            value, gate = given.chunk(2, dim=-1)
            return value * functional.gelu(gate)

    return {TRITON: fused, TORCH: plain}


if __name__ == "__main__":
    main()
