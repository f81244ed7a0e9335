"""Weights in the bundle: each distinct tensor once, in files named by their content, referred to by ONNX graphs."""

from __future__ import annotations

import hashlib
import itertools
import os
from collections.abc import Iterable, Iterator
from dataclasses import dataclass, field, replace

import onnx_ir as ir

from ..store import BundleWriter

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
    """The tensors that the bundle under construction already holds, by SHA-256 of their bytes.

    In memory, a graph refers to a file of the bundle by its absolute path; ``graph_bytes`` makes that relative.
    """

    writer: BundleWriter
    _places: dict[str, _Place] = field(default_factory=dict)
    _component: str = ""
    _unread: list[tuple[str, str]] = field(default_factory=list)  # (graph, component)

    def externalize(self, model: ir.Model, component: str, variant: str = "") -> None:
        """Move a graph's large initializers into the bundle; those that are there already are only referred to.

        New ones go, one at a time, to ``onnx/weights/<component><variant>-<hash>.bin``.
        """
        self._enter(component)
        large = [
            value
            for value in model.graph.initializers.values()
            if value.const_value is not None
            and value.const_value.nbytes >= _INLINE_BYTES
            and not isinstance(value.const_value, ir.ExternalTensor)
        ]
        keys: dict[ir.Value, str] = {}
        new: dict[str, _Place] = {}
        chunks = self._new(large, keys, new)
        first = next(chunks, None)
        if first is not None:
            written = f"{WEIGHT_FOLDER}/{component}{variant}.bin"
            self.writer.write(written, itertools.chain([first], chunks))
            file = f"{WEIGHT_FOLDER}/{component}{variant}-{hashlib.sha256(''.join(new).encode()).hexdigest()[:12]}.bin"
            self.writer.rename(written, file)
            self._places |= {key: replace(place, file=file) for key, place in new.items()}
        for value in large:
            value.const_value = self._external(value, self._places[keys[value]])

    def _new(self, values: Iterable[ir.Value], keys: dict[ir.Value, str], new: dict[str, _Place]) -> Iterator[bytes]:
        """The content of tensors that are not in the bundle yet, each of which is read once. Fills in the key of every
        value, and the places of the new ones in their file."""
        end = 0
        for value in values:
            content = value.const_value.tobytes()
            key = keys[value] = hashlib.sha256(content).hexdigest()
            if key in self._places or key in new:
                continue
            new[key] = _Place("", end, len(content))
            padding = -len(content) % _ALIGNMENT
            end += len(content) + padding
            yield content
            yield b"\0" * padding

    def taken_over(self, graph: str, component: str) -> None:
        """Say that a portable graph was taken over with its weights; they are hashed when a graph is written."""
        self._unread.append((graph, component))

    def load(self, graph: str) -> ir.Model:
        """Read a portable graph of the bundle under construction."""
        model = ir.load(self.writer.folder / graph)
        for value in model.graph.initializers.values():
            tensor = value.const_value
            if isinstance(tensor, ir.ExternalTensor):
                file = f"{GRAPH_FOLDER}/{tensor.location}"
                value.const_value = self._external(value, _Place(file, tensor.offset or 0, tensor.nbytes))
        return model

    def graph_bytes(self, model: ir.Model, *, relative_to: str = "") -> bytes:
        """A graph serialized with external weights, whose locations are relative to a folder of the bundle."""
        proto = ir.to_proto(model)
        for tensor in proto.graph.initializer:
            for entry in tensor.external_data:
                if entry.key == "location":
                    entry.value = os.path.relpath(entry.value, self.writer.folder / relative_to)
        data: bytes = proto.SerializeToString(deterministic=True)
        return data

    def files(self, model: ir.Model) -> tuple[str, ...]:
        """The bundle-relative weight files that a graph refers to."""
        tensors = (value.const_value for value in model.graph.initializers.values())
        locations = {tensor.location for tensor in tensors if isinstance(tensor, ir.ExternalTensor)}
        return tuple(sorted(os.path.relpath(location, self.writer.folder) for location in locations))

    def _enter(self, component: str) -> None:
        """Forget the small tensors of other components, and learn those of graphs that were taken over."""
        if component != self._component:
            self._places = {key: place for key, place in self._places.items() if place.length >= _SHARED_BYTES}
            self._component = component
        while self._unread:
            graph, owner = self._unread.pop()
            for value in self.load(graph).graph.initializers.values():
                tensor = value.const_value
                if not isinstance(tensor, ir.ExternalTensor):
                    continue
                if owner == component or tensor.nbytes >= _SHARED_BYTES:
                    key = hashlib.sha256(tensor.tobytes()).hexdigest()
                    file = os.path.relpath(tensor.location, self.writer.folder)
                    self._places.setdefault(key, _Place(file, tensor.offset or 0, tensor.nbytes))
                    tensor.release()

    def _external(self, value: ir.Value, place: _Place) -> ir.ExternalTensor:
        tensor = value.const_value
        # An absolute path without a base: with one, onnx_ir refuses files that have several links, as those that were
        # taken over do until the previous bundle is removed.
        return ir.ExternalTensor(
            str(self.writer.folder / place.file), place.offset, place.length, tensor.dtype,
            shape=tensor.shape, name=value.name, base_dir="",
        )  # fmt: skip


def parameter_count(model: ir.Model) -> int:
    """How many floating-point weights a graph uses; what a component does not need was left out of it."""
    tensors = (value.const_value for value in model.graph.initializers.values())
    return sum(tensor.size for tensor in tensors if tensor is not None and tensor.dtype.is_floating_point())
