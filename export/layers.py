"""The layers of a component's portable graph, for people who look into it."""

from __future__ import annotations

import onnx
from polygraphy.backend.onnx.util import str_from_onnx

from ..runtime.bundle import Bundle


def layers_text(bundle: Bundle, component: str) -> str:
    """Every layer of a component that the bundle holds: operator, and name, dtype and shape of what goes in and out."""
    path = bundle.file(bundle.manifest.components[component].onnx)
    return str(str_from_onnx(onnx.load(path, load_external_data=False), show_layers=True))
