"""Everything that the export names of TensorRT exists, in each of the libraries that are installed."""

from __future__ import annotations

import ast
import re
from pathlib import Path
from typing import Any

import pytest

from latentrt.export.engines import tensorrt

FOLDER = Path(tensorrt.__file__).parent

#: What the variables of the code are, by name.
CLASSES = {
    "builder": "Builder",
    "cache": "ITimingCache",
    "config": "IBuilderConfig",
    "layer": "ILayer",
    "network": "INetworkDefinition",
    "parser": "OnnxParser",
    "profile": "IOptimizationProfile",
    "tensor": "ITensor",
}


class Names(ast.NodeVisitor):
    """The names that a file asks the library and its objects for, and those that are not there."""

    def __init__(self, module: Any):
        self.module = module
        self.found: set[str] = set()
        self.missing: set[str] = set()

    def visit_Attribute(self, node: ast.Attribute) -> None:
        self._resolved(node)
        self.generic_visit(node)

    def _resolved(self, node: ast.expr) -> Any:
        match node:
            case ast.Name(id="trt") | ast.Attribute(attr="module"):
                return self.module
            case ast.Name(id=name) if name in CLASSES:
                return getattr(self.module, CLASSES[name])
            case ast.Attribute(value=value, attr=name) if (owner := self._resolved(value)) is not None:
                where = f"{ast.unparse(value)}.{name}"
                (self.found if hasattr(owner, name) else self.missing).add(where)
                found = getattr(owner, name, None)
                return found if isinstance(found, type) else None
        return None


@pytest.mark.parametrize("name", ["tensorrt", "tensorrt_rtx"])
def test_every_name_of_the_library_is_there(name: str) -> None:
    module = pytest.importorskip(name, reason=f"{name} is not installed")
    names = Names(module)
    for path in FOLDER.glob("*.py"):
        names.visit(ast.parse(path.read_text()))
    assert {"config.set_timing_cache", "network.get_input", "library.module.MemoryPoolType.WORKSPACE"} <= names.found
    assert not names.missing


def test_keywords_of_the_library_are_spelt_as_it_spells_them() -> None:
    """Bindings tell their signatures in their documentation only."""
    trt = pytest.importorskip("tensorrt_rtx", reason="tensorrt-rtx has no wheel for this machine")
    for method, arguments in (
        (trt.IBuilderConfig.set_timing_cache, ("cache", "ignore_mismatch")),
        (trt.IProgressMonitor.phase_start, ("phase_name", "parent_phase", "num_steps")),
        (trt.IProgressMonitor.step_complete, ("phase_name", "step")),
        (trt.IProgressMonitor.phase_finish, ("phase_name",)),
    ):
        assert re.findall(r"(\w+): ", method.__doc__.partition(")")[0])[1:] == list(arguments)
