"""The runtime works in an environment that has no torch, diffusers, transformers or onnx."""

from __future__ import annotations

import json
import re
import subprocess
import sys
from pathlib import Path

from latentrt import runtime

ROOT = Path(__file__).parents[2]
FORBIDDEN = ("torch", "diffusers", "transformers", "onnx", "onnxscript", "safetensors", "triton", "scipy")

GENERATE = """
import json, sys
from latentrt.runtime import load
with load(sys.argv[1]) as pipe:
    output = pipe("a fox on a blue background", seed=7, num_inference_steps=2)
    output.save(sys.argv[2])
print(json.dumps(sorted({name.partition(".")[0] for name in sys.modules})))
"""


def test_whatever_a_docstring_names_is_there_and_importing_it_costs_nothing() -> None:
    modules = (
        "import sys, latentrt.runtime; print([name for name in ('numpy', 'PIL', 'tokenizers') if name in sys.modules])"
    )
    assert run(Path(sys.executable), "-c", modules).strip() == "[]"
    assert set(runtime.__all__) <= set(dir(runtime))
    for name in runtime.__all__:
        assert getattr(runtime, name) is not None
    for documented in (runtime.Pipeline.__call__, runtime.Pipeline.decode, runtime.RefinedPipeline.__call__):
        for name in re.findall(r"latentrt\.runtime\.(\w+)", str(documented.__doc__)):
            assert name in runtime.__all__


def run(python: Path, *arguments: object) -> str:
    """Run a Python isolated from this folder, PYTHONPATH and user packages."""
    done = subprocess.run(
        [str(python), "-I", *map(str, arguments)], capture_output=True, text=True, check=False, timeout=300
    )
    assert done.returncode == 0, done.stderr
    return done.stdout


def test_generating_imports_none_of_the_export_dependencies(emoji_bundle: Path, tmp_path: Path) -> None:
    modules = set(json.loads(run(Path(sys.executable), "-c", GENERATE, emoji_bundle, tmp_path / "a.png")))
    assert modules.isdisjoint(FORBIDDEN)
    assert {"latentrt", "numpy", "onnxruntime"} <= modules
    assert "rich" not in modules
    assert "typer" not in modules
    assert "email" not in modules, "importlib.metadata, which takes longer to import than most of what is needed"


def test_the_runtime_generates_where_the_export_dependencies_are_not_installed(
    emoji_bundle: Path, tmp_path: Path
) -> None:
    """A new virtual environment with the wheel and its ``cpu`` extra only."""
    subprocess.run([sys.executable, "-m", "venv", str(tmp_path / "venv")], check=True, timeout=120)
    python = tmp_path / "venv" / "bin" / "python"
    pip = ["-m", "pip", "install", "--quiet", "--disable-pip-version-check"]
    run(python, *pip, f"{ROOT}[cpu]")
    for name in FORBIDDEN:
        found = run(python, "-c", f"import importlib.util; print(importlib.util.find_spec({name!r}))")
        assert found.strip() == "None", f"{name} is installed"
    modules = json.loads(run(python, "-c", GENERATE, emoji_bundle, tmp_path / "a.png"))
    assert "latentrt" in modules
    assert (tmp_path / "a.png").stat().st_size > 1000
    cli = subprocess.run(
        [str(python.with_name("latentrt")), "build-engines", str(ROOT / "examples/emoji"), "--out", "y"],
        capture_output=True, text=True, check=False, cwd=tmp_path, timeout=60,
    )  # fmt: skip
    assert cli.returncode == 2
    assert "`latentrt build-engines` needs the export extra" in cli.stderr
    assert "pip install 'latentrt[export]'" in cli.stderr
