"""Keys: what a graph or an engine depends on, by name, so that a rebuild can say which part of it changed."""

from __future__ import annotations

import functools
import hashlib
from collections.abc import Mapping
from pathlib import Path

from ..runtime.bundles.manifest import Component, FileRecord


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
def export_code() -> str:
    """SHA-256 of this package's sources and of its data: what they produce may change with any of them."""
    total = hashlib.sha256()
    for path in sorted(path for path in Path(__file__).parent.rglob("*") if path.suffix in (".py", ".json")):
        total.update(path.read_bytes())
    return total.hexdigest()


def graph_digest(record: Component, files: Mapping[str, FileRecord]) -> str:
    """SHA-256 over that of a portable graph and its weights."""
    return hashlib.sha256("".join(files[name].sha256 for name in (record.onnx, *record.weights)).encode()).hexdigest()
