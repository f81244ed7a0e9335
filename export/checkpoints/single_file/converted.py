"""A component's weights inside a single file: which stored tensor, or which part of one, each of them is."""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

from ..safetensors_header import SafetensorsHeader

#: From a stored tensor to the network's: a function of one torch tensor, meta tensors included.
View = Callable[[Any], Any]

_CHUNK = 1 << 24  # bytes read at a time


@dataclass(frozen=True)
class Source:
    """One weight's place: the name of a stored tensor, and what to make of it. ``view`` None takes it as it is."""

    key: str
    view: View | None = None


@dataclass(frozen=True)
class ConvertedWeights:
    """``sources`` has the names that the component's own file has in a diffusers folder."""

    header: SafetensorsHeader
    sources: Mapping[str, Source]

    def digest(self) -> str:
        """SHA-256 over names, formats, shapes and bytes of the stored tensors that the component uses."""
        total = hashlib.sha256("\n".join(f"{name} {source.key}" for name, source in self.sources.items()).encode())
        with self.header.path.open("rb") as file:
            for key in sorted({source.key for source in self.sources.values()}):
                entry = self.header.tensors[key]
                total.update(f"\n{key} {entry.dtype} {entry.shape}\n".encode())
                file.seek(entry.start)
                for start in range(entry.start, entry.stop, _CHUNK):
                    total.update(file.read(min(_CHUNK, entry.stop - start)))
        return total.hexdigest()


# --- views ------------------------------------------------------------------------------------------------------------


def part(index: int, parts: int) -> View:
    """One of equal parts of a tensor's rows: queries, keys and values are stored as one matrix."""
    return lambda tensor: tensor.chunk(parts)[index]


def transposed(tensor: Any) -> Any:
    """A projection that is multiplied from the right, as OpenCLIP stores it -> a linear layer's."""
    return tensor.T


def linear(tensor: Any) -> Any:
    """A 1x1 convolution ``[out, in, 1, 1]`` -> a linear layer ``[out, in]``; a linear layer stays as it is."""
    return tensor.flatten(1)


def halves_swapped(tensor: Any) -> Any:
    """``(shift, scale)`` rows as the original MMDiT computes them -> ``(scale, shift)`` as diffusers does."""
    return tensor.roll(tensor.shape[0] // 2, 0)


def identity(tensor: Any) -> Any:
    """The identity matrix of a vector's width."""
    return tensor.new_zeros(tensor.shape[0], tensor.shape[0]).fill_diagonal_(1)
