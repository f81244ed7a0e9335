"""What runs engines: one module per provider, imported only when a bundle is loaded with it."""

from __future__ import annotations

import importlib
import os
from collections.abc import Mapping
from pathlib import Path
from typing import Any, Protocol

from numpy.typing import NDArray

from ..bundle import Bundle
from ..errors import BundleError, MissingDependencyError, RequestError

#: Provider name -> (module of this package, the library it needs, the extra that installs it), in order of preference.
PROVIDERS: dict[str, tuple[str, str, str]] = {
    "onnxruntime-cpu": ("onnxruntime", "onnxruntime", "cpu"),
}


class Engine(Protocol):
    """One loaded engine. Safe to call from several threads at once."""

    component: str

    def run(self, inputs: Mapping[str, NDArray[Any]]) -> dict[str, NDArray[Any]]:
        """Run on the inputs of the component's contract; returns its outputs by name."""

    def close(self) -> None:
        """Release what the engine holds. A closed engine cannot run."""


class Provider(Protocol):
    """What a provider's module offers."""

    def load_engine(self, bundle: Bundle, component: str, *, threads: int) -> Engine:
        """Load one engine of a bundle."""


def choose_provider(bundle: Bundle, provider: str) -> str:
    """The provider to run a bundle with; ``"auto"`` is the first that the bundle has engines for.

    Raises:
        RequestError: a name that is not a provider.
        BundleError: the bundle holds no engines for it.
    """
    if provider not in ("auto", *PROVIDERS):
        raise RequestError("provider", received=repr(provider), expected=f"auto or one of {', '.join(PROVIDERS)}")
    for name in PROVIDERS if provider == "auto" else (provider,):
        if bundle.engines(name):
            return name
    held = sorted({engine.provider for engine in bundle.manifest.engines})
    raise BundleError(
        f"{bundle.path}: no engines for {provider}",
        received=", ".join(held) or "a bundle without engines (--onnx-only)",
        expected=" or ".join(PROVIDERS) if provider == "auto" else provider,
        remedy="build them: latentrt build-engines CHECKPOINT --out BUNDLE --provider PROVIDER",
    )


def import_provider(name: str) -> Provider:
    """The module of a provider.

    Raises:
        MissingDependencyError: its library is not installed.
    """
    module, library, extra = PROVIDERS[name]
    try:
        provider: Provider = importlib.import_module(f".{module}", __name__)
    except ModuleNotFoundError as error:
        if error.name != library:
            raise
        remedy = f"install it: pip install 'latentrt[{extra}]'"
        raise MissingDependencyError(f"the provider {name} needs {library}", remedy=remedy) from None
    return provider


def available_threads() -> int:
    """Processors this process may use: the scheduler's affinity, and the CPU quota of a container (cgroup v2)."""
    count = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
    try:
        quota, period = Path("/sys/fs/cgroup/cpu.max").read_text(encoding="ascii").split()
    except (OSError, ValueError):
        return count
    return count if quota == "max" else max(1, min(count, int(quota) // int(period)))
