"""The programs that can be measured side by side, as records, and where on this machine each of them is installed."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from importlib.metadata import PackageNotFoundError, distribution
from pathlib import Path
from typing import Literal

from ..runtime.errors import RequestError, RunError

OURS, REFERENCE = "latentrt", "diffusers"


@dataclass(frozen=True)
class Side:
    """A program, and how it is started.

    ``module`` of ``sides`` opens it; ``packages`` are the distributions that it needs, in this environment or in its
    own, which ``environment`` lists; ``programs`` are the commands that it calls. ``options`` go to the module;
    ``source`` takes the place of the run's bundle or checkpoint; a ``slow`` one is measured only if it is named.
    """

    name: str
    title: str
    module: str
    packages: tuple[str, ...]
    reads: Literal["bundle", "checkpoint"] = "checkpoint"
    environment: str | None = None
    programs: tuple[str, ...] = ()
    options: Mapping[str, str] = field(default_factory=dict)
    source: str | None = None
    slow: bool = False


_OPTIMUM_INTEL = ("optimum-intel", "openvino", "diffusers", "torch")

SIDES = (
    Side(OURS, "LatentRT", "latentrt_pipeline", ("msgspec",), reads="bundle"),
    Side(REFERENCE, "diffusers", "diffusers_pipeline", ("diffusers", "torch")),
    Side("diffusers-compile", "diffusers, torch.compile", "diffusers_pipeline", ("diffusers", "torch"),
         programs=("g++",), options={"compile": "inductor"}, slow=True),
    Side("optimum-onnx", "optimum-onnx", "optimum_onnx_pipeline", ("optimum-onnx", "onnxruntime", "diffusers", "torch"),
         environment="optimum-onnx"),
    Side("openvino-f32", "OpenVINO fp32", "optimum_intel_pipeline", _OPTIMUM_INTEL, environment="openvino",
         options={"precision": "f32"}),
    Side("openvino-bf16", "OpenVINO bf16", "optimum_intel_pipeline", _OPTIMUM_INTEL, environment="openvino",
         options={"precision": "bf16"}),
)  # fmt: skip


@dataclass(frozen=True)
class Installed:
    """A side that can be started here, with which Python."""

    side: Side
    python: str


@dataclass(frozen=True)
class Missing:
    """A side that cannot be started here."""

    side: Side
    reason: str


def sides_named(names: tuple[str, ...], also: Mapping[str, Path]) -> list[Side]:
    """The sides to measure, in the order of ``SIDES``: LatentRT and the reference always, those that are not slow if
    none is named, every one for ``all``. ``also``: more bundles, each a side of LatentRT's.

    Raises:
        RequestError: a name that is not a side's, or one for a bundle that is.
    """
    known = {side.name for side in SIDES}
    for name in names:
        if name not in known | {"all"}:
            raise RequestError("--side", received=name, expected=", ".join(("all", *sorted(known))))
    wanted = names or tuple(side.name for side in SIDES if not side.slow)
    chosen = [side for side in SIDES if "all" in wanted or side.name in (OURS, REFERENCE, *wanted)]
    for name, bundle in also.items():
        if name in known:
            raise RequestError("--also", received=name, expected="a name that is not a side's")
        chosen.append(replace(SIDES[0], name=name, title=f"LatentRT {name}", source=str(bundle)))
    return chosen


def left_out(names: tuple[str, ...]) -> list[Missing]:
    """The sides that were not asked for, so that a report can say so."""
    chosen = {side.name for side in sides_named(names, {})}
    return [
        Missing(side, "slow to start, so measured only if named" if side.slow and not names else "not asked for")
        for side in SIDES
        if side.name not in chosen
    ]


def find(side: Side, environments: Path) -> Installed | Missing:
    """Where a side is installed: in this environment, or in its own below ``environments``."""
    for program in side.programs:
        if shutil.which(program) is None:
            return Missing(side, f"needs {program}, which is not on the PATH")
    lacking = [name for name in side.packages if not _installed_here(name)]
    if not lacking:
        return Installed(side, sys.executable)
    if side.environment is None:
        return Missing(side, f"needs {', '.join(lacking)}")
    python = python_of(environments / side.environment)
    if not python.exists():
        remedy = f"make its environment: latentrt bench setup {side.environment}"
        return Missing(side, f"{', '.join(lacking)} not installed; {remedy}")
    return Installed(side, str(python))


def set_up(name: str, environments: Path) -> Path:
    """Make the environment of baselines that need other versions than ours; returns its Python.

    Raises:
        RequestError: no environment of that name.
        RunError: pip failed; the end of what it printed is in the message.
    """
    files = {path.stem: path for path in (Path(__file__).parent / "environments").glob("*.txt")}
    if name not in files:
        raise RequestError("environment", received=name, expected=", ".join(sorted(files)))
    python = python_of(environments / name)
    if not python.exists():
        _call([sys.executable, "-m", "venv", str(environments / name)])
    _call([str(python), "-m", "pip", "install", "--quiet", "--requirement", str(files[name])])
    return python


def python_of(environment: Path) -> Path:
    """The interpreter of a virtual environment."""
    return environment / "bin" / "python"


def cache_folder() -> Path:
    """Where environments and other programs' exports are kept between runs."""
    return Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache") / "latentrt" / "bench"


def _installed_here(name: str) -> bool:
    try:
        distribution(name)
    except PackageNotFoundError:
        return False
    return True


def _call(command: list[str]) -> None:
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    if done.returncode != 0:
        raise RunError(f"{' '.join(command)} failed", received=(done.stderr or done.stdout)[-1000:])
