"""Weights in the bundle: each distinct tensor once, in files named by their content, referred to by ONNX graphs."""

from __future__ import annotations

import hashlib
from collections.abc import Iterable
from dataclasses import dataclass, field

import numpy as np
import onnx_ir as ir
from numpy.typing import NDArray

from .store import BundleWriter

#: Tensors smaller than this stay inside the graph, where shape arithmetic and constant folding find them.
_INLINE_BYTES = 1024

#: Tensors at least this large are shared between components. Smaller ones (position ids, masks) stay with each, so
#: that a component does not depend on another's file for a few kilobytes.
_SHARED_BYTES = 1 << 20

#: Offsets are multiples of this, which suits every vector unit and costs nothing.
_ALIGNMENT = 64

#: Where portable graphs are, in the bundle; ONNX wants the location of weights relative to the graph's own folder.
GRAPH_FOLDER = "onnx"
WEIGHT_FOLDER = "onnx/weights"


@dataclass(frozen=True)
class _Place:
    file: str  # bundle-relative
    offset: int
    length: int


@dataclass
class WeightStore:
    """The tensors that the bundle under construction already holds, by SHA-256 of their bytes."""

    writer: BundleWriter
    _places: dict[str, _Place] = field(default_factory=dict)
    _component: str = ""

    def externalize(self, model: ir.Model, name: str) -> None:
        """Move a graph's large initializers into the bundle; those that are there already are only referred to.

        New ones go to ``onnx/weights/<name>-<hash>.bin``. Afterwards the initializers are external tensors whose
        locations are bundle-relative; ``graph_bytes`` makes them relative to another folder.
        """
        self._enter(name.partition(".")[0])
        new: list[tuple[str, bytes]] = []
        keys: dict[str, str] = {}
        for value in model.graph.initializers.values():
            tensor = value.const_value
            if tensor is None or tensor.nbytes < _INLINE_BYTES:
                continue
            data = tensor.tobytes()
            keys[str(value.name)] = key = hashlib.sha256(data).hexdigest()
            if key not in self._places:
                self._places[key] = _Place("", 0, len(data))  # claimed; placed below
                new.append((key, data))
        self._write(name, new)
        for value in model.graph.initializers.values():
            if value.name not in keys or value.const_value is None:
                continue
            place, tensor = self._places[keys[value.name]], value.const_value
            value.const_value = ir.ExternalTensor(
                place.file, place.offset, place.length, tensor.dtype, shape=tensor.shape, name=value.name,
                base_dir=self.writer.folder,
            )  # fmt: skip

    def load(self, graph: str, component: str) -> ir.Model:
        """Read a portable graph that was taken over with its weights, and learn its tensors.

        The tensors are views of mapped files: ONNX tools refuse to open files with several links themselves, which
        these are until the previous bundle is removed.
        """
        self._enter(component)
        model = ir.load(self.writer.folder / graph)
        files: dict[str, NDArray[np.uint8]] = {}
        for value in model.graph.initializers.values():
            tensor = value.const_value
            if not isinstance(tensor, ir.ExternalTensor) or tensor.offset is None or tensor.length is None:
                continue
            file = f"{GRAPH_FOLDER}/{tensor.location}"
            if file not in files:
                files[file] = np.memmap(self.writer.folder / file, np.uint8, "r")
            data = files[file][tensor.offset : tensor.offset + tensor.length]
            self._places.setdefault(hashlib.sha256(data.data).hexdigest(), _Place(file, tensor.offset, tensor.length))
            array = data.view(tensor.dtype.numpy()).reshape(tensor.shape.numpy())
            value.const_value = ir.Tensor(array, dtype=tensor.dtype, name=str(value.name))
        return model

    def _enter(self, component: str) -> None:
        """Forget the small tensors of other components."""
        if component != self._component:
            self._places = {key: place for key, place in self._places.items() if place.length >= _SHARED_BYTES}
            self._component = component

    def _write(self, name: str, tensors: list[tuple[str, bytes]]) -> None:
        if not tensors:
            return
        offsets, end = [], 0
        for _, data in tensors:
            offsets.append(end)
            end += -(-len(data) // _ALIGNMENT) * _ALIGNMENT
        total = hashlib.sha256("".join(key for key, _ in tensors).encode()).hexdigest()
        file = f"{WEIGHT_FOLDER}/{name}-{total[:12]}.bin"
        self.writer.write(file, _padded(data for _, data in tensors))
        for (key, data), offset in zip(tensors, offsets, strict=True):
            self._places[key] = _Place(file, offset, len(data))


def _padded(chunks: Iterable[bytes]) -> Iterable[bytes]:
    for chunk in chunks:
        yield chunk
        yield b"\0" * (-len(chunk) % _ALIGNMENT)


def weight_files(model: ir.Model) -> tuple[str, ...]:
    """The bundle-relative weight files that a graph refers to."""
    tensors = (value.const_value for value in model.graph.initializers.values())
    return tuple(sorted({str(tensor.location) for tensor in tensors if isinstance(tensor, ir.ExternalTensor)}))


def parameter_count(model: ir.Model) -> int:
    """How many floating-point weights a graph uses; what a component does not need was left out of it."""
    tensors = (value.const_value for value in model.graph.initializers.values())
    return sum(tensor.size for tensor in tensors if tensor is not None and tensor.dtype.is_floating_point())


def graph_bytes(model: ir.Model, *, relative_to: str = "") -> bytes:
    """A graph serialized with external weights, whose locations are given relative to a folder of the bundle."""
    proto = ir.to_proto(model)
    prefix = f"{relative_to}/" if relative_to else ""
    for tensor in proto.graph.initializer:
        for entry in tensor.external_data:
            if entry.key == "location":
                entry.value = entry.value.removeprefix(prefix)
    data: bytes = proto.SerializeToString(deterministic=True)
    return data
