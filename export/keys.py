"""Keys: what a graph or an engine depends on, by name, so that a rebuild can say which part of it changed."""

from __future__ import annotations

import functools
import hashlib
from collections.abc import Callable, Iterable, Mapping
from pathlib import Path

from ..runtime.bundles.manifest import Component, FileRecord
from .events import DAMAGED, FORCED, NEW

_PACKAGE = Path(__file__).parent

#: What makes a portable graph of a checkpoint: files and folders of this package.
GRAPH_SOURCES = (
    "build_graph.py",
    "checkpoints",
    "gate/examples.py",
    "graphs/onnx_from_torch.py",
    "graphs/precision.py",
    "graphs/typed_graph.py",
    "graphs/weights.py",
    "networks",
)

#: What makes an engine of a portable graph, whose content is a part of the engine's key by itself.
ENGINE_SOURCES = (
    "engines/engine_from_onnx.py",
    "engines/onnxruntime_compiler.py",
    "engines/tensorrt",
    "graphs/editing.py",
    "graphs/flops.py",
    "graphs/group_normalization.py",
    "graphs/onnxruntime_cuda.py",
    "graphs/precision.py",
    "graphs/rewrites.py",
    "graphs/weights.py",
)


def reason_to_build(
    old: Mapping[str, str] | None, new: Callable[[], Mapping[str, str]], *, force: bool, intact: Callable[[], bool]
) -> str:
    """Why something has to be built; empty if what was built with the key ``old`` can be taken over.

    ``new`` and ``intact`` read files, for the key that it would have now and whether it is what it was: they are asked
    where that decides.
    """
    if force or old is None:
        return FORCED if force else NEW
    return "; ".join(changed_parts(old, new())) or ("" if intact() else DAMAGED)


def changed_parts(old: Mapping[str, str], new: Mapping[str, str]) -> list[str]:
    """What differs between two keys, as ``name changed old -> new``; hashes are shortened."""
    names = [*new, *(name for name in old if name not in new)]
    return [
        f"{name} changed {_short(old.get(name, 'none'))} -> {_short(new.get(name, 'none'))}"
        for name in names
        if old.get(name) != new.get(name)
    ]


def _short(text: str) -> str:
    return text[:12] if len(text) == 64 and all(c in "0123456789abcdef" for c in text) else text


@functools.cache
def graph_code(package: Path = _PACKAGE) -> str:
    """SHA-256 of the sources and the data that portable graphs are made with."""
    return _digest(package, GRAPH_SOURCES)


@functools.cache
def engine_code(package: Path = _PACKAGE) -> str:
    """SHA-256 of the sources that engines are made with."""
    return _digest(package, ENGINE_SOURCES)


def _digest(package: Path, names: Iterable[str]) -> str:
    total = hashlib.sha256()
    for name in names:
        path = package / name
        for file in sorted(path.rglob("*")) if path.is_dir() else [path]:
            if file.suffix in (".py", ".json"):
                total.update(file.read_bytes())
    return total.hexdigest()


def graph_digest(record: Component, files: Mapping[str, FileRecord]) -> str:
    """SHA-256 over that of a portable graph and its weights."""
    return hashlib.sha256("".join(files[name].sha256 for name in (record.onnx, *record.weights)).encode()).hexdigest()
