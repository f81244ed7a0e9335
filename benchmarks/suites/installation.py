"""``installation``: what LatentRT needs on a container's disk to run the bundle, beside what the reference needs."""

from __future__ import annotations

import shutil
import sys
import tempfile
from collections.abc import Iterator, Sequence
from importlib.metadata import Distribution, PackageNotFoundError, distribution
from pathlib import Path

from packaging.requirements import Requirement
from packaging.utils import canonicalize_name

from ...runtime.providers import PROVIDERS
from ...runtime.version import __version__
from ..baselines import python_of, run_command
from ..plan import Plan
from ..results import Size
from ..turns import Worker
from .memory import bytes_of

#: Of a checkout: what is not part of an installation.
_NOT_INSTALLED = frozenset({"build", "dist", "examples", "node_modules", "results", "tests", "__pycache__"})

#: What diffusers' own documentation says to install.
_REFERENCE = ("diffusers", "transformers", "torch")


def measure(plan: Plan, workers: Sequence[Worker]) -> Iterator[Size]:
    """Ours, by installing it; the reference's, by the files of what is installed here.

    Raises:
        RunError: pip failed.
    """
    plan.progress("the reference's installation")
    yield Size(f"installation of {', '.join(_REFERENCE)}", sum(map(_bytes_of, required(_REFERENCE))))
    plan.progress("installing into a fresh environment")
    yield fresh_installation(PROVIDERS[plan.provider].extra)


def amount(plan: Plan) -> int:
    """How often ``measure`` reports progress."""
    return 2


def required(names: Sequence[str]) -> list[Distribution]:
    """Installed distributions, and all that they require and what that requires, optional ones left out."""
    found: dict[str, Distribution] = {}
    open_names = list(names)
    while open_names:
        name = canonicalize_name(open_names.pop())
        if name in found:
            continue
        try:
            found[name] = distribution(name)
        except PackageNotFoundError:
            continue
        wanted = [Requirement(text) for text in found[name].requires or ()]
        open_names += [one.name for one in wanted if one.marker is None or one.marker.evaluate({"extra": ""})]
    return list(found.values())


def _bytes_of(installed: Distribution) -> int:
    paths = (Path(str(file.locate())) for file in installed.files or () if file.suffix != ".pyc")
    return sum(path.stat().st_size for path in paths if path.is_file())


def fresh_installation(extra: str) -> Size:
    """What installing LatentRT adds to a fresh environment: what a container has on top of its Python. From a copy of
    the checkout that this runs from, if it does: pip builds in the folder it is given."""
    checkout = Path(__file__).resolve().parents[2]
    with tempfile.TemporaryDirectory() as folder:
        wanted = f"latentrt[{extra}]=={__version__}"
        if (checkout / "pyproject.toml").exists():
            wanted = f"{shutil.copytree(checkout, Path(folder) / 'source', ignore=_no_source)}[{extra}]"
        environment = Path(folder) / "environment"
        run_command([sys.executable, "-m", "venv", str(environment)])
        before = bytes_of(environment)
        run_command([str(python_of(environment)), "-m", "pip", "install", "--quiet", "--no-compile", wanted])
        return Size(f"installation with the {extra} extra", bytes_of(environment) - before)


def _no_source(folder: str, names: list[str]) -> set[str]:
    """What no installation needs: builds, environments, tests, hidden files."""
    return {name for name in names if name.startswith(".") or name in _NOT_INSTALLED or name.endswith(".egg-info")}
