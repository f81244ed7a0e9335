"""Weights by name, read from their file when their content is wanted and not before."""

from __future__ import annotations

import functools
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch

from ...runtime.errors import CheckpointError
from .safetensors_header import TensorEntry, read_header
from .single_file.converted import ConvertedWeights, View

#: Number formats by the names that safetensors gives them.
DTYPES: dict[str, torch.dtype] = {
    "F64": torch.float64,
    "F32": torch.float32,
    "F16": torch.float16,
    "BF16": torch.bfloat16,
    "I64": torch.int64,  # positions, which files of older libraries hold
    "I32": torch.int32,
}


@dataclass(frozen=True)
class LazyWeight:
    """A tensor of known shape and dtype. ``read()`` gives its content: a copy, which the caller may change."""

    shape: tuple[int, ...]
    dtype: torch.dtype
    read: Callable[[], torch.Tensor]


#: A network's weights by the names of its ``state_dict()``.
Weights = Mapping[str, LazyWeight]


def weights_from_safetensors(files: Iterable[Path]) -> dict[str, LazyWeight]:
    """The tensors of whole safetensors files.

    Raises:
        CheckpointError: a tensor in a format that is not a network's weight: a quantized one.
    """
    headers = (read_header(file) for file in files)
    return {
        name: stored_weight(header.path, name, entry) for header in headers for name, entry in header.tensors.items()
    }


def weights_from_converted(stored: ConvertedWeights) -> dict[str, LazyWeight]:
    """The tensors of a component inside a single file.

    Raises:
        CheckpointError: a tensor in a format that is not a network's weight.
    """
    path, tensors = stored.header.path, stored.header.tensors
    return {
        name: _viewed(stored_weight(path, source.key, tensors[source.key]), source.view)
        for name, source in stored.sources.items()
    }


def stored_weight(file: Path, name: str, entry: TensorEntry) -> LazyWeight:
    """One tensor of a safetensors file.

    Each read copies it out of the file. Nothing stays mapped, so that memory holds what is in use and no more.

    Raises:
        CheckpointError: it is in a format that is not a network's weight.
    """
    if entry.dtype not in DTYPES:
        raise quantized(str(file), name, entry.dtype)
    dtype = DTYPES[entry.dtype]
    read = functools.partial(_read, file, entry.start, entry.stop - entry.start, dtype, entry.shape)
    return LazyWeight(entry.shape, dtype, read)


def quantized(where: str, name: str, dtype: object) -> CheckpointError:
    """The error for a weight that is not stored as a float."""
    return CheckpointError(
        f"{where}: quantized weights, which LatentRT does not read",
        received=f"{name} in {dtype}",
        expected="weights in F32, F16 or BF16",
        remedy="use the checkpoint that it was quantized from",
    )


def _viewed(weight: LazyWeight, view: View | None) -> LazyWeight:
    if view is None:
        return weight
    shape = tuple(view(torch.empty(weight.shape, device="meta")).shape)
    # A copy, so that a part does not keep the whole alive.
    return LazyWeight(shape, weight.dtype, lambda: view(weight.read()).clone(memory_format=torch.contiguous_format))


def _read(file: Path, offset: int, size: int, dtype: torch.dtype, shape: tuple[int, ...]) -> torch.Tensor:
    return torch.from_numpy(np.fromfile(file, np.uint8, size, offset=offset)).view(dtype).reshape(shape)
