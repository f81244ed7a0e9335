"""The programs that can be measured side by side, as records, and where on this machine each of them is installed."""

from __future__ import annotations

import contextlib
import os
import shutil
import subprocess
import sys
import tempfile
from collections.abc import Collection, Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from importlib.metadata import Distribution, PackageNotFoundError, distribution
from pathlib import Path
from typing import Literal

from ..runtime.errors import RequestError, RunError

OURS, REFERENCE = "latentrt", "diffusers"

Device = Literal["cpu", "cuda"]


@dataclass(frozen=True)
class Side:
    """A program, and how it is started.

    ``module`` of ``sides`` opens it; ``packages`` are the distributions that it needs, in this environment or in its
    own, which ``environment`` lists; ``programs`` are the commands that it calls; ``component`` is one that the bundle
    must have; ``devices`` are those it runs on. ``options`` go to the module; ``source`` takes the place of the run's
    bundle or checkpoint. A side with ``only_named``, which says why, is measured only if it is named.
    """

    name: str
    title: str
    module: str
    packages: tuple[str, ...]
    reads: Literal["bundle", "checkpoint"] = "checkpoint"
    environment: str | None = None
    programs: tuple[str, ...] = ()
    component: str | None = None
    devices: tuple[Device, ...] = ("cpu", "cuda")
    options: Mapping[str, str] = field(default_factory=dict)
    source: str | None = None
    only_named: str = ""


_OPTIMUM_INTEL = ("optimum-intel", "openvino", "diffusers", "torch")
_SLOW = "slow to start, so measured only if named"
_APPROXIMATE = "an approximation, so measured only if named"

SIDES = (
    Side(OURS, "LatentRT", "latentrt_pipeline", ("msgspec",), reads="bundle"),
    Side("latentrt-interval", "LatentRT, guided in 60 % of the steps", "latentrt_pipeline", ("msgspec",),
         reads="bundle", options={"guidance_interval": "0.2:0.8"}, only_named=_APPROXIMATE),
    Side("latentrt-tiny-decoder", "LatentRT, tiny decoder", "latentrt_pipeline", ("msgspec",), reads="bundle",
         component="tiny_decoder", options={"decoder": "tiny"}, only_named=_APPROXIMATE),
    Side(REFERENCE, "diffusers", "diffusers_pipeline", ("diffusers", "torch")),
    Side("diffusers-compile", "diffusers, torch.compile", "diffusers_pipeline", ("diffusers", "torch"),
         programs=("g++",), options={"compile": "inductor"}, only_named=_SLOW),
    Side("optimum-onnx", "optimum-onnx", "optimum_onnx_pipeline", ("optimum-onnx", "onnxruntime", "diffusers", "torch"),
         environment="optimum-onnx", devices=("cpu",)),
    Side("openvino-f32", "OpenVINO fp32", "optimum_intel_pipeline", _OPTIMUM_INTEL, environment="openvino",
         devices=("cpu",), options={"hint": "f32"}),
    Side("openvino-bf16", "OpenVINO bf16", "optimum_intel_pipeline", _OPTIMUM_INTEL, environment="openvino",
         devices=("cpu",), options={"hint": "bf16"}),
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


def sides_named(names: tuple[str, ...], also: Mapping[str, Path], providers: Sequence[str] = ()) -> list[Side]:
    """The sides to measure, in the order of ``SIDES``: LatentRT and the reference always, those that need not be named
    if none is, every one for ``all``. More sides of LatentRT's: ``also``, other bundles, and ``providers``, others than
    that of the first side.

    Raises:
        RequestError: a name that is not a side's, or one for a bundle that is.
    """
    known = {side.name for side in SIDES}
    for name in names:
        if name not in known | {"all"}:
            raise RequestError("--side", received=name, expected=", ".join(("all", *sorted(known))))
    wanted = names or tuple(side.name for side in SIDES if not side.only_named)
    chosen = [side for side in SIDES if "all" in wanted or side.name in (OURS, REFERENCE, *wanted)]
    for name, bundle in also.items():
        if name in known:
            raise RequestError("--also", received=name, expected="a name that is not a side's")
        chosen.append(replace(SIDES[0], name=name, title=f"LatentRT {name}", source=str(bundle)))
    return chosen + [provider_side(provider) for provider in providers]


def provider_side(provider: str) -> Side:
    """LatentRT with another provider than that of the run."""
    return replace(SIDES[0], name=f"{OURS}-{provider}", title=f"LatentRT {provider}", options={"provider": provider})


def left_out(names: tuple[str, ...]) -> list[Missing]:
    """The other programs that were not asked for, so that a report can say so."""
    chosen = {side.name for side in sides_named(names, {})}
    return [
        Missing(side, side.only_named if side.only_named and not names else "not asked for")
        for side in SIDES
        if side.name not in chosen and side.reads == "checkpoint"
    ]


def find(side: Side, environments: Path, device: Device, components: Collection[str]) -> Installed | Missing:
    """Where a side is installed, for a bundle with these components on that device: in this environment, or in its own
    below ``environments``."""
    if device not in side.devices:
        return Missing(side, f"runs on {' and '.join(side.devices)} only")
    if side.component is not None and side.component not in components:
        return Missing(side, f"the bundle has no {side.component}")
    for program in side.programs:
        if shutil.which(program) is None:
            return Missing(side, f"needs {program}, which is not on the PATH")
    lacking = [name for name in side.packages if not _installed_here(name)]
    if not lacking:
        return Installed(side, sys.executable)
    if side.environment is None:
        return Missing(side, f"needs {', '.join(lacking)}")
    python = python_of(environments / side.environment)
    if python.exists():
        lacking = [name for name in side.packages if not _installed_in(environments / side.environment, name)]
    if not lacking:
        return Installed(side, str(python))
    remedy = f"make its environment: latentrt bench setup {side.environment}"
    return Missing(side, f"{', '.join(lacking)} not installed; {remedy}")


def environment_file(name: str) -> Path:
    """What an environment is made from: requirements for pip."""
    return Path(__file__).parent / "environments" / f"{name}.txt"


def set_up(name: str, environments: Path) -> Path:
    """Make the environment of baselines that need other versions than ours; returns its Python.

    Raises:
        RequestError: no environment of that name.
        RunError: pip failed, or what it installed cannot be imported; the end of what was printed is in the message.
    """
    known = sorted({side.environment for side in SIDES if side.environment is not None})
    if name not in known:
        raise RequestError("environment", received=name, expected=", ".join(known))
    python = python_of(environments / name)
    if not python.exists():
        run_command([sys.executable, "-m", "venv", str(environments / name)])
    pip = [str(python), "-m", "pip", "--quiet", "--disable-pip-version-check"]
    run_command([*pip, "install", "--requirement", str(environment_file(name))])
    # None of the sides needs it, and transformers cannot be imported beside one that was built for another torch.
    run_command([*pip, "uninstall", "--yes", "torchvision"])
    for module in sorted({side.module for side in SIDES if side.environment == name}):
        with importable() as folder:
            command = [str(python), "-P", "-c", f"import latentrt.benchmarks.sides.{module}"]
            run_command(command, env={**os.environ, "PYTHONPATH": str(folder)})
    return python


@contextlib.contextmanager
def importable() -> Iterator[Path]:
    """A folder that holds nothing but this package, under its import name, for the Pythons of other environments."""
    with tempfile.TemporaryDirectory(prefix="latentrt-") as folder:
        (Path(folder) / "latentrt").mkdir()
        (Path(folder) / "latentrt" / "benchmarks").symlink_to(Path(__file__).resolve().parent)
        yield Path(folder)


def python_of(environment: Path) -> Path:
    """The interpreter of a virtual environment."""
    return environment / "bin" / "python"


def cache_folder() -> Path:
    """Where environments and other programs' exports are kept between runs."""
    return Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache") / "latentrt" / "bench"


def run_command(command: list[str], env: Mapping[str, str] | None = None) -> None:
    """Run a command to its end.

    Raises:
        RunError: it failed; the end of what it printed is in the message.
    """
    done = subprocess.run(command, capture_output=True, text=True, env=env, check=False)
    if done.returncode != 0:
        raise RunError(f"{' '.join(command)} failed", received=(done.stderr or done.stdout)[-1000:])


def _installed_here(name: str) -> bool:
    try:
        distribution(name)
    except PackageNotFoundError:
        return False
    return True


def _installed_in(environment: Path, name: str) -> bool:
    folders = [str(folder) for folder in environment.glob("lib/python*/site-packages")]
    return any(True for _ in Distribution.discover(name=name, path=folders))
