"""Fixtures of the single-file tests: tiny checkpoints of every family, saved both ways."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import pytest

#: Family -> the folder and the file of one tiny checkpoint.
Saved = Callable[[str], tuple[Path, Path]]


@pytest.fixture(scope="session")
def saved(once: Callable[[str, Callable[[Path], object]], Path]) -> Saved:
    """Tests must not change what it returns: copy it first."""
    from . import tiny_families

    def get(family: str) -> tuple[Path, Path]:
        root = once(f"single-file-{family}", lambda path: tiny_families.make(family).save(path))
        return root / "folder", root / "model.safetensors"

    return get
