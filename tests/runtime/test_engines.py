"""A bundle's engines: loaded when needed, run within their profiles and in their own number format."""

from __future__ import annotations

import threading
from collections.abc import Mapping
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from pathlib import Path
from typing import Any

import msgspec
import numpy as np
import pytest
from numpy.typing import NDArray

from latentrt.runtime.arguments import CallArguments
from latentrt.runtime.bundle import Bundle, open_bundle
from latentrt.runtime.engines import Engines
from latentrt.runtime.errors import EngineError
from latentrt.runtime.request import request_from_arguments
from latentrt.runtime.spec import TensorSpec
from latentrt.runtime.timing import Timings


class Doubling:
    """An engine whose outputs are twice its first input; it remembers what it was given."""

    def __init__(self, component: str):
        self.component = component
        self.given: list[NDArray[Any]] = []
        self.closed = False

    def run(self, inputs: Mapping[str, NDArray[Any]]) -> dict[str, NDArray[Any]]:
        self.given.append(next(iter(inputs.values())))
        return {"image": 2 * self.given[-1]}

    def close(self) -> None:
        self.closed = True


@pytest.fixture
def bundle(emoji_bundle: Path) -> Bundle:
    return open_bundle(emoji_bundle, verify=False)


def test_an_engine_is_loaded_once_by_whichever_thread_comes_first(bundle: Bundle) -> None:
    loads: list[str] = []
    started = threading.Barrier(4)

    def load(component: str) -> Doubling:
        loads.append(component)
        return Doubling(component)

    engines = Engines(bundle, "onnxruntime-cpu", {}, load)

    def first(_: int) -> object:
        started.wait()
        return engines["vae_decoder"]

    with ThreadPoolExecutor(4) as pool:
        assert len({id(engine) for engine in pool.map(first, range(4))}) == 1
    assert loads == ["vae_decoder"]


def test_closed_engines_load_no_more(bundle: Bundle) -> None:
    held = Doubling("vae_decoder")
    engines = Engines(bundle, "onnxruntime-cpu", {"vae_decoder": held}, Doubling)
    engines.close()
    assert held.closed
    with pytest.raises(EngineError, match="vae_encoder: the engine is closed"):
        engines["vae_encoder"]


def test_more_rows_than_the_profile_allows_run_in_parts(bundle: Bundle) -> None:
    engine = Doubling("vae_decoder")
    limit = bundle.manifest.components["vae_decoder"].profile["images"].max
    values = np.arange((2 * limit + 1) * 4, dtype=np.float32).reshape(-1, 4, 1, 1)
    result = Engines(bundle, "onnxruntime-cpu", {"vae_decoder": engine}, Doubling).run(
        "vae_decoder", {"latents": values}, Timings()
    )
    assert [len(part) for part in engine.given] == [limit, limit, 1]
    assert np.array_equal(result["image"], 2 * values)


def test_half_precision_stays_inside_of_the_engine(bundle: Bundle) -> None:
    def half(tensors: tuple[TensorSpec, ...]) -> tuple[TensorSpec, ...]:
        return tuple(msgspec.structs.replace(tensor, dtype="float16") for tensor in tensors)

    record = bundle.manifest.components["vae_decoder"]
    record = msgspec.structs.replace(record, inputs=half(record.inputs), outputs=half(record.outputs))
    components = {**bundle.manifest.components, "vae_decoder": record}
    changed = replace(bundle, manifest=msgspec.structs.replace(bundle.manifest, components=components))
    engine = Doubling("vae_decoder")
    values = np.ones((1, 4, 2, 2), np.float32)
    result = Engines(changed, "onnxruntime-cpu", {"vae_decoder": engine}, Doubling).run(
        "vae_decoder", {"latents": values}, Timings()
    )
    assert engine.given[0].dtype == np.float16
    assert result["image"].dtype == np.float32


def test_every_argument_of_a_call_is_described_and_understood() -> None:
    described = set(CallArguments.__annotations__)
    understood = set(request_from_arguments.__annotations__) - {"manifest", "prompt", "return"}
    assert described == understood
    assert CallArguments.__doc__ is not None
    for name in described:
        assert f"``{name}``" in CallArguments.__doc__
