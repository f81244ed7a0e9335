"""Prints ``docs/files.md``: a line for every source file, which is the first sentence of its docstring."""

from __future__ import annotations

import ast
import subprocess
from pathlib import Path

ROOT = Path(__file__).parents[1]
PACKAGES = ("export", "runtime", "kernels", "benchmarks")


def listing() -> str:
    """The text of ``docs/files.md``."""
    tracked = subprocess.run(
        ["git", "ls-files", "--cached", "--others", "--exclude-standard", *PACKAGES],
        capture_output=True, text=True, check=True, cwd=ROOT,
    ).stdout.split()  # fmt: skip
    lines = ["# Source files", ""]
    folder = ""
    for name in sorted((name for name in tracked if name.endswith(".py") and (ROOT / name).is_file()), key=_order):
        path = Path(name)
        if str(path.parent) != folder:
            folder = str(path.parent)
            lines += ["", f"## {folder}", ""]
        sentence = _first_sentence(ROOT / name)
        lines.append(f"{sentence}." if path.name == "__init__.py" else f"- `{path.name}`: {sentence}")
        if path.name == "__init__.py":
            lines.append("")
    return "\n".join(lines).replace("\n\n\n", "\n\n") + "\n"


def _order(name: str) -> tuple[int, str, bool, str]:
    """By package in the order data flows, then folder by folder, its description first."""
    path = Path(name)
    return PACKAGES.index(path.parts[0]), str(path.parent), path.name != "__init__.py", path.name


def _first_sentence(path: Path) -> str:
    docstring = " ".join((ast.get_docstring(ast.parse(path.read_text(encoding="utf-8"))) or "").split())
    end = docstring.find(". ")
    return docstring[: end if end >= 0 else None].rstrip(".").replace("``", "`")


if __name__ == "__main__":
    print(listing(), end="")
