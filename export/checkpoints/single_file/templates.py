"""The configs that ship with the package: of each family's published checkpoint, what tensors do not tell."""

from __future__ import annotations

import json
from importlib.resources import files
from typing import Any


def read_template(name: str) -> dict[str, dict[str, Any]]:
    """``model_index``, ``scheduler`` and the config of every component by its folder."""
    text = files(__package__).joinpath("configs", f"{name}.json").read_text(encoding="utf-8")
    content: dict[str, dict[str, Any]] = json.loads(text)
    return content
