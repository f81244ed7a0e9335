"""The engines of one bundle: owned, run within their profiles, and loaded when first needed where a start should not
wait for them."""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterable, Mapping
from contextlib import ExitStack
from typing import Any

import numpy as np
from numpy.typing import NDArray

from .bundles.bundle import Bundle
from .bundles.manifest import EngineRecord
from .bundles.spec import axis_and_factor
from .device.engine_plan import run_engine
from .device.interface import Device
from .device.runner import DeviceRunner
from .errors import BundleError
from .owner import Owner
from .providers import Engine
from .timing import Timings

#: What makes an engine another one: see ``content``.
Content = tuple[str, ...]


class Engines(Owner):
    """Engines by component. Safe to use from several threads; ``close`` releases them.

    ``contents`` tells of each component that the bundle has an engine for what that is made of.
    """

    def __init__(
        self,
        bundle: Bundle,
        contents: Mapping[str, Content],
        loaded: Mapping[str, Engine],
        load: Callable[[str], Engine],
        runner: DeviceRunner,
    ):
        self.bundle = bundle
        self.contents = contents
        self.runner = runner
        self._loaded = dict(loaded)
        self._load = load
        self._loading = threading.Lock()
        runner.before_close(self._close)

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
        parts = [
            run_engine(self.runner, engine, record, {n: value[i : i + limit] for n, value in inputs.items()}, timings)
            for i in range(0, rows, limit)
        ]
        if len(parts) == 1:
            return parts[0]
        return {name: np.concatenate([part[name] for part in parts]) for name in parts[0]}

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
                self._loaded[component] = self.runner.with_room(lambda: self._load(component))
            return self._loaded[component]

    def require(self, component: str) -> None:
        """Refuse a component that neither is loaded nor can be.

        Raises:
            BundleError: the bundle has no engine for it.
        """
        if component not in self.contents:
            raise no_engine(self.bundle, component, self.contents)

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
        with self._loading, ExitStack() as closing:
            for engine in self._loaded.values():
                closing.callback(engine.close)


def content(bundle: Bundle, record: EngineRecord) -> Content:
    """What an engine is made of: its provider, and the SHA-256 of its file and of each of its weight files.

    Two engines of the same content are one, whatever bundles and components they belong to.

    Raises:
        BundleError: a file that the manifest does not list.
    """
    return (record.provider, *(bundle.sha256(name) for name in (record.path, *record.weights)))


def no_engine(bundle: Bundle, component: str, held: Iterable[str]) -> BundleError:
    """The error for a component that has no engine."""
    return BundleError(
        f"{bundle.path}: no engine for {component}",
        received="engines for " + ", ".join(held),
        remedy=f"build it: latentrt build-engines CHECKPOINT --out {bundle.path}",
    )
