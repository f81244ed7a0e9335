"""Keys say which part of them changed, and which of the package's own sources they depend on."""

from __future__ import annotations

import ast
import shutil
from pathlib import Path

import pytest

from latentrt import export
from latentrt.export.keys import (
    ENGINE_SOURCES,
    GRAPH_SOURCES,
    changed_parts,
    engine_code,
    graph_code,
    reason_to_build,
)

PACKAGE = Path(*export.__path__)


def test_changed_parts_are_named_with_both_values() -> None:
    old = {"weights": "a" * 64, "precision": "fp32", "gone": "1"}
    new = {"weights": "b" * 64, "precision": "fp32", "opset": "23"}
    assert changed_parts(old, new) == [
        f"weights changed {'a' * 12} -> {'b' * 12}",
        "opset changed none -> 23",
        "gone changed 1 -> none",
    ]
    assert changed_parts(new, new) == []


@pytest.mark.parametrize(
    ("old", "force", "intact", "expected"),
    [
        (None, False, True, "new"),
        (None, True, True, "forced"),
        ({"opset": "23"}, True, True, "forced"),
        ({"opset": "20"}, False, False, "opset changed 20 -> 23"),
        ({"opset": "23"}, False, False, "its files were damaged"),
        ({"opset": "23"}, False, True, ""),
    ],
)
def test_reasons_to_build(old: dict[str, str] | None, force: bool, intact: bool, expected: str) -> None:
    assert reason_to_build(old, lambda: {"opset": "23"}, force=force, intact=lambda: intact) == expected


@pytest.mark.parametrize(
    ("changed", "graphs", "engines"),
    [
        ("cli.py", False, False),
        ("gate/verify.py", False, False),
        ("engines/kernels_in_bundle.py", False, False),
        ("networks/denoisers.py", True, False),
        ("graphs/typed_graph.py", True, False),
        ("checkpoints/single_file/configs/sdxl.json", True, False),
        ("graphs/rewrites.py", False, True),
        ("engines/tensorrt/builder.py", False, True),
        ("graphs/weights.py", True, True),
    ],
)
def test_graphs_and_engines_depend_on_what_they_are_made_with(
    tmp_path: Path, changed: str, graphs: bool, engines: bool
) -> None:
    copy = Path(shutil.copytree(PACKAGE, tmp_path / "export"))
    with (copy / changed).open("a") as file:
        file.write(" ")
    assert (graph_code(copy) != graph_code(), engine_code(copy) != engine_code()) == (graphs, engines)


#: Imported by what makes graphs and engines, and of no influence on them: where files lie, what an estimate or the gate
#: needs, and sizes, which are a part of keys by themselves.
INDIFFERENT = {"buckets.py", "engines/engine_on_gpu.py", "estimates.py", "events.py", "memory.py", "store.py"}


@pytest.mark.parametrize(
    ("makers", "sources"),
    [
        (["graphs/onnx_from_torch.py", "graphs/weights.py", "networks/components_from_checkpoint.py"], GRAPH_SOURCES),
        (["engines/onnxruntime_compiler.py", "engines/tensorrt/compiler.py"], ENGINE_SOURCES),
    ],
)
def test_nothing_that_takes_part_is_left_out(makers: list[str], sources: tuple[str, ...]) -> None:
    found, left = set[str](), makers
    while left:
        name = left.pop()
        if name not in found | INDIFFERENT:
            found.add(name)
            left += imported(PACKAGE / name)
    assert [name for name in sorted(found) if not name.startswith(sources)] == []
    assert [name for name in sources if not (PACKAGE / name).exists()] == []


def imported(module: Path) -> list[str]:
    """The package's own modules that a module imports."""
    names = []
    for node in ast.walk(ast.parse(module.read_text())):
        if isinstance(node, ast.ImportFrom) and node.level:
            place = module.parents[node.level - 1].joinpath(*(node.module or "").split("."))
            files = [place.with_suffix(".py"), *(place / f"{alias.name}.py" for alias in node.names)]
            names += [str(file.relative_to(PACKAGE)) for file in files if PACKAGE in file.parents and file.is_file()]
    return names
