"""Engines that are functions of numpy arrays, on the host: what the loop runs where a test needs no network."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

from numpy.typing import NDArray

from latentrt.runtime.bundles.bundle import Bundle
from latentrt.runtime.bundles.manifest import SCHEMA_VERSION, Component, Defaults, LatentSpace, Manifest
from latentrt.runtime.bundles.spec import AxisRange, TensorSpec
from latentrt.runtime.device.host import HostBuffer, HostDevice, HostStream
from latentrt.runtime.device.interface import Buffer, Stream
from latentrt.runtime.device.runner import DeviceRunner
from latentrt.runtime.engines import Engines
from latentrt.runtime.providers.contract import axis_sizes, check_buffers, output_shapes

Function = Callable[[dict[str, NDArray[Any]]], dict[str, NDArray[Any]]]


class FunctionEngine:
    """A component whose outputs are a function of its inputs, with the counts that tests ask for."""

    def __init__(
        self,
        component: str,
        contract: Component,
        function: Function,
        *,
        capturable: bool = True,
        workspace_bytes: Callable[[int], int] = lambda rows: 0,
    ):
        self.component = component
        self.contract = contract
        self.function = function
        self.capturable = capturable
        self.workspace_bytes = workspace_bytes
        self.rows: list[int] = []  # of each run
        self.open_executions = 0
        self.closed = False

    def prepare(self, shapes: Mapping[str, tuple[int, ...]]) -> FunctionExecution:
        return FunctionExecution(self, shapes)

    def run(self, inputs: Mapping[str, NDArray[Any]]) -> dict[str, NDArray[Any]]:
        return self.function(dict(inputs))

    def close(self) -> None:
        assert self.open_executions == 0, "executions are closed before their engine"
        self.closed = True


class FunctionExecution:
    def __init__(self, engine: FunctionEngine, shapes: Mapping[str, tuple[int, ...]]):
        self._engine = engine
        self._sizes = axis_sizes(engine.component, engine.contract, shapes)
        self._arrays: dict[str, NDArray[Any]] = {}
        self.rows = next(iter(shapes.values()))[0]
        self.outputs = output_shapes(engine.contract, self._sizes)
        self.workspace_bytes = engine.workspace_bytes(self.rows)
        engine.open_executions += 1

    @property
    def capturable(self) -> bool:
        return self._engine.capturable

    def bind(self, buffers: Mapping[str, Buffer], workspace: Buffer | None) -> None:
        check_buffers(self._engine.component, self._engine.contract, self._sizes, buffers)
        assert self.workspace_bytes <= (workspace.nbytes if workspace else 0)
        for name, buffer in buffers.items():
            assert isinstance(buffer, HostBuffer)
            self._arrays[name] = buffer.array

    def enqueue(self, stream: Stream) -> None:
        assert isinstance(stream, HostStream)
        stream.submit(self._work)

    def close(self) -> None:
        self._engine.open_executions -= 1

    def _work(self) -> None:
        self._engine.rows.append(self.rows)
        given = {spec.name: self._arrays[spec.name] for spec in self._engine.contract.inputs}
        for name, value in self._engine.function(given).items():
            self._arrays[name][...] = value


def contract_of(inputs: Mapping[str, str], outputs: Mapping[str, str], **axes: tuple[int, int, int]) -> Component:
    """``contract_of({"latents": "float32 rows 4 height"}, ...)`` with the ranges of its axes."""

    def specs(tensors: Mapping[str, str]) -> tuple[TensorSpec, ...]:
        parts = {name: text.split() for name, text in tensors.items()}
        return tuple(
            TensorSpec(name, dtype, tuple(int(size) if size.isdigit() else size for size in shape))
            for name, (dtype, *shape) in parts.items()
        )

    profile = {name: AxisRange(*sizes) for name, sizes in axes.items()}
    return Component(specs(inputs), specs(outputs), profile, "fp32", 0, 20, "", (), {})


def engines_of(
    *engines: FunctionEngine, device: HostDevice | None = None, limit: int | None = None, channels: int = 4
) -> Engines:
    """The engines of a bundle that is nowhere on a disk; ``limit`` is that of the runner's plans."""
    manifest = Manifest(
        schema_version=SCHEMA_VERSION,
        latentrt="",
        name="functions",
        family="sd1",
        latent_space=LatentSpace(channels, 8, 8),
        text_encodings=(),
        force_zeros_for_empty_prompt=False,
        scheduler={},
        defaults=Defaults(64, 64, 20, 5.0),
        buckets=(),
        components={engine.component: engine.contract for engine in engines},
        engines=(),
        files={},
        tools={},
    )
    loaded = {engine.component: engine for engine in engines}
    runner = DeviceRunner(device or HostDevice(), limit)
    return Engines(Bundle(Path("functions"), manifest, ""), {}, loaded, loaded.__getitem__, runner)
