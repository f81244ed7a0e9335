"""A bundle's engines: loaded when needed, run within their profiles and in their own number format."""

from __future__ import annotations

import threading
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from numpy.typing import NDArray

from latentrt.runtime.bundles.bundle import Bundle, open_bundle
from latentrt.runtime.device.host import HostDevice
from latentrt.runtime.device.runner import DeviceRunner
from latentrt.runtime.engines import Engines
from latentrt.runtime.errors import EngineError
from latentrt.runtime.timing import Timings

from .function_engine import FunctionEngine, contract_of, engines_of


class Doubling(FunctionEngine):
    """An engine whose outputs are twice its input; it remembers what it was given."""

    def __init__(self, component: str, dtype: str = "float32", limit: int = 8):
        self.given: list[NDArray[Any]] = []
        tensor = f"{dtype} images 4 height width"
        sides = (1, 8, 64)
        contract = contract_of({"latents": tensor}, {"image": tensor}, images=(1, 1, limit), height=sides, width=sides)
        super().__init__(component, contract, self._double)

    def _double(self, inputs: dict[str, NDArray[Any]]) -> dict[str, NDArray[Any]]:
        self.given.append(inputs["latents"].copy())
        return {"image": 2 * self.given[-1]}


@pytest.fixture
def bundle(emoji_bundle: Path) -> Bundle:
    return open_bundle(emoji_bundle, verify=False)


def test_an_engine_is_loaded_once_by_whichever_thread_comes_first(bundle: Bundle) -> None:
    loads: list[str] = []
    started = threading.Barrier(4)

    def load(component: str) -> Doubling:
        loads.append(component)
        return Doubling(component)

    engines = Engines(bundle, {}, {}, load, DeviceRunner(HostDevice()))

    def first(_: int) -> object:
        started.wait()
        return engines["vae_decoder"]

    with ThreadPoolExecutor(4) as pool:
        assert len({id(engine) for engine in pool.map(first, range(4))}) == 1
    assert loads == ["vae_decoder"]


def test_closed_engines_load_no_more(bundle: Bundle) -> None:
    held = Doubling("vae_decoder")
    engines = Engines(bundle, {}, {"vae_decoder": held}, Doubling, DeviceRunner(HostDevice()))
    engines.close()
    assert held.closed
    with pytest.raises(EngineError, match="the pipeline is closed"):
        engines["vae_encoder"]


def test_plans_make_room_for_an_engine_that_is_loaded_late(bundle: Bundle) -> None:
    values = {"latents": np.ones((1, 4, 8, 8), np.float32)}
    device = HostDevice(limit=5000)

    def load(component: str) -> Doubling:
        device.allocate((4000,), np.uint8)  # its weights, which it keeps
        return Doubling(component)

    held = Doubling("vae_decoder")
    runner = DeviceRunner(device, limit=5000)
    with Engines(bundle, {}, {"vae_decoder": held}, load, runner) as engines:
        engines.run("vae_decoder", values, Timings())
        assert held.open_executions == 1
        assert engines["vae_encoder"].component == "vae_encoder"
        assert held.open_executions == 0, "its plan was dropped"


def test_more_rows_than_the_profile_allows_run_in_parts() -> None:
    engine = Doubling("vae_decoder", limit=8)
    values = np.arange(17 * 4, dtype=np.float32).reshape(-1, 4, 1, 1)
    with engines_of(engine) as engines:
        result = engines.run("vae_decoder", {"latents": values}, Timings())
    assert [len(part) for part in engine.given] == [8, 8, 1]
    assert np.array_equal(result["image"], 2 * values)


def test_half_precision_stays_inside_of_the_engine() -> None:
    engine = Doubling("vae_decoder", "float16")
    with engines_of(engine) as engines:
        result = engines.run("vae_decoder", {"latents": np.ones((1, 4, 2, 2), np.float32)}, Timings())
    assert engine.given[0].dtype == np.float16
    assert result["image"].dtype == np.float32


def test_results_belong_to_the_caller() -> None:
    with engines_of(Doubling("vae_decoder")) as engines:
        first, second = (
            engines.run("vae_decoder", {"latents": np.full((1, 4, 2, 2), value, np.float32)}, Timings())["image"]
            for value in (1, 2)
        )
    assert first.max() == 2
    assert second.min() == 4


def test_a_released_engine_is_loaded_again_when_it_is_needed(bundle: Bundle) -> None:
    loaded: list[Doubling] = []

    def load(component: str) -> Doubling:
        loaded.append(Doubling(component))
        return loaded[-1]

    values = {"latents": np.ones((1, 4, 2, 2), np.float32)}
    with Engines(bundle, {}, {}, load, DeviceRunner(HostDevice())) as engines:
        engines.run("vae_decoder", values, Timings())
        free = engines.runner.device.memory()[0]
        engines.release("vae_decoder")
        assert loaded[0].closed
        assert engines.runner.device.memory()[0] > free, "what it left on the device goes with it"
        engines.release("vae_decoder")
        engines.run("vae_decoder", values, Timings())
    assert len(loaded) == 2
