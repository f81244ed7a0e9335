"""What is built from the repository holds what it must."""

from __future__ import annotations

import tomllib
from pathlib import Path

ROOT = Path(__file__).parents[1]
PYPROJECT = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))
FOLDERS = ("export", "runtime", "kernels", "benchmarks")


def test_every_licence_named_is_there() -> None:
    for name in PYPROJECT["project"]["license-files"]:
        assert (ROOT / name).is_file(), name
    shipped = {path.relative_to(ROOT) for folder in FOLDERS for path in (ROOT / folder).rglob("LICENSE*")}
    assert shipped <= set(map(Path, PYPROJECT["project"]["license-files"]))


def test_every_folder_of_modules_and_data_is_packed() -> None:
    named = set(PYPROJECT["tool"]["setuptools"]["packages"])
    with_modules = {
        "latentrt." + ".".join(path.parent.relative_to(ROOT).parts)
        for folder in FOLDERS
        for path in (ROOT / folder).rglob("__init__.py")
    }
    assert with_modules <= named
    for name in named:
        assert (ROOT / Path(*name.split(".")[1:])).is_dir(), name
