"""The engines of one bundle: owned, run within their profiles, and loaded when first needed where a start should not
wait for them."""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterable, Mapping
from typing import Any

import numpy as np
from numpy.typing import NDArray

from .bundles.bundle import Bundle
from .bundles.manifest import EngineRecord
from .bundles.spec import axis_and_factor
from .device.interface import Device
from .device.runner import DeviceRunner
from .errors import BundleError
from .providers import Engine
from .timing import Timings


class Engines:
    """Engines by component. Safe to use from several threads; ``close`` releases them."""

    def __init__(
        self,
        bundle: Bundle,
        provider: str,
        loaded: Mapping[str, Engine],
        load: Callable[[str], Engine],
        runner: DeviceRunner,
    ):
        self.bundle = bundle
        self.provider = provider
        self.runner = runner
        self._loaded = dict(loaded)
        self._load = load
        self._loading = threading.Lock()
        runner.holds(self._close)

    @property
    def device(self) -> Device:
        """What the engines run on."""
        return self.runner.device

    def run(self, component: str, inputs: Mapping[str, NDArray[Any]], timings: Timings) -> dict[str, NDArray[Any]]:
        """Run an engine, in parts where there are more rows than its profile allows.

        Floating-point arrays are float32 on this side of an engine, whatever its contract says.
        """
        engine = self[component]
        record = self.bundle.manifest.components[component]
        rows = len(next(iter(inputs.values())))
        limit = record.profile[axis_and_factor(str(record.inputs[0].shape[0]))[0]].max
        half = [tensor.name for tensor in record.inputs if tensor.dtype == "float16"]
        if half:
            inputs = {name: value.astype(np.float16) if name in half else value for name, value in inputs.items()}
        if rows <= limit:
            outputs = self.runner.run(engine, inputs, timings)
        else:
            parts = [
                self.runner.run(engine, {name: value[i : i + limit] for name, value in inputs.items()}, timings)
                for i in range(0, rows, limit)
            ]
            outputs = {name: np.concatenate([part[name] for part in parts]) for name in parts[0]}
        if any(tensor.dtype == "float16" for tensor in record.outputs):
            outputs = {name: value.astype(np.float32) for name, value in outputs.items()}
        return outputs

    def __getitem__(self, component: str) -> Engine:
        """A component's engine, loaded now if it was not.

        Raises:
            BundleError: the bundle has none.
            EngineError: the engines were closed, or this one cannot be loaded.
            DeviceMemoryError: there is no memory for it, even without the plans of others.
        """
        engine = self._loaded.get(component)
        if engine is not None:
            return engine
        with self.runner.turn(), self._loading:
            if component not in self._loaded:
                self._loaded[component] = self.runner.make(lambda: self._load(component))
            return self._loaded[component]

    def require(self, component: str) -> None:
        """Refuse a component that neither is loaded nor can be.

        Raises:
            BundleError: the bundle has no engine for it.
        """
        held = self.bundle.engines(self.provider)
        if component not in held:
            raise no_engine(self.bundle, component, held)

    def get(self, component: str) -> Engine | None:
        """A component's engine if it is loaded."""
        return self._loaded.get(component)

    def release(self, component: str) -> None:
        """Close a component's engine, if it is loaded; it is loaded again when it is needed."""
        with self._loading:
            engine = self._loaded.pop(component, None)
        if engine is not None:
            with self.runner.turn():
                self.runner.release(engine)
                engine.close()

    def close(self) -> None:
        """Release the engines and their device, once the calls inside have ended; with them others' of the same runner.

        Raises:
            EngineError: the calling thread is inside of a call.
        """
        self.runner.close()

    def _close(self) -> None:
        with self._loading:
            for engine in self._loaded.values():
                engine.close()


def content(bundle: Bundle, record: EngineRecord) -> tuple[str, ...]:
    """What an engine is made of: its provider, and the SHA-256 of its file and of each of its weight files.

    Two engines of the same content are one, whatever bundles and components they belong to.

    Raises:
        BundleError: a file that the manifest does not list.
    """
    names = (record.path, *record.weights)
    for name in names:
        bundle.file(name)
    return (record.provider, *(bundle.manifest.files[name].sha256 for name in names))


def no_engine(bundle: Bundle, component: str, held: Iterable[str]) -> BundleError:
    """The error for a component that has no engine."""
    return BundleError(
        f"{bundle.path}: no engine for {component}",
        received="engines for " + ", ".join(held),
        remedy=f"build it: latentrt build-engines CHECKPOINT --out {bundle.path}",
    )
