"""ONNX Runtime on the CPU: in place on buffers, row by row, and closed while it runs."""

from __future__ import annotations

import threading
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from numpy.typing import NDArray

from latentrt.runtime.bundles.bundle import Bundle, open_bundle
from latentrt.runtime.bundles.spec import resolve_shape
from latentrt.runtime.device.host import HostDevice
from latentrt.runtime.errors import EngineError
from latentrt.runtime.providers.onnxruntime import OnnxRuntimeEngine, load_engine

SIZES = {"height": 8, "width": 12, "tokens": 77}


@pytest.fixture
def bundle(emoji_bundle: Path) -> Bundle:
    return open_bundle(emoji_bundle, verify=False)


def load(bundle: Bundle, component: str, threads: int) -> OnnxRuntimeEngine:
    record = bundle.engines("onnxruntime-cpu")[component]
    return load_engine(bundle, record, device=HostDevice(), threads=threads, options={})


@pytest.fixture(params=[1, 2, 3])
def denoiser(bundle: Bundle, request: pytest.FixtureRequest) -> Iterator[OnnxRuntimeEngine]:
    """With as many threads as the parameter says, so that rows are split among some of them."""
    engine = load(bundle, "denoiser", request.param)
    yield engine
    engine.close()


def inputs(bundle: Bundle, rows: int) -> dict[str, NDArray[Any]]:
    random = np.random.default_rng(rows)
    record = bundle.manifest.components["denoiser"]
    shapes = {spec.name: resolve_shape(spec, {"rows": rows, **SIZES}) for spec in record.inputs}
    return {name: random.standard_normal(shape, np.float32) for name, shape in shapes.items()}


@pytest.mark.parametrize("rows", [1, 2, 5])
def test_a_run_gives_what_a_session_gives(denoiser: OnnxRuntimeEngine, bundle: Bundle, rows: int) -> None:
    given = inputs(bundle, rows)
    session, _ = denoiser.parts(1)
    (expected,) = session.run(["model_output"], given)
    received = denoiser.run(given)
    assert received.keys() == {"model_output"}
    np.testing.assert_allclose(received["model_output"], expected, rtol=1e-4, atol=1e-4)


def test_an_execution_is_bound_once_and_run_often(denoiser: OnnxRuntimeEngine, bundle: Bundle) -> None:
    device, first, second = HostDevice(), inputs(bundle, 2), inputs(bundle, 3)
    second = {name: value[:2] for name, value in second.items()}
    execution = denoiser.prepare({name: value.shape for name, value in first.items()})
    assert (execution.workspace_bytes, execution.capturable) == (0, False)
    buffers = {name: device.allocate(value.shape, value.dtype) for name, value in first.items()}
    for name, (shape, dtype) in execution.outputs.items():
        buffers[name] = device.allocate(shape, dtype)
    execution.bind(buffers, None)
    before = device.counts.allocations
    for given in (first, second, first):
        for name, value in given.items():
            device.stream.upload(buffers[name], value)
        execution.enqueue(device.stream)
        expected = denoiser.run(given)["model_output"]
        np.testing.assert_array_equal(buffers["model_output"].array, expected)
    assert device.counts.allocations == before
    execution.close()


def test_sizes_outside_of_the_contract(denoiser: OnnxRuntimeEngine) -> None:
    with pytest.raises(EngineError, match="denoiser: the shapes of its inputs"):
        denoiser.prepare({"sample": (2, 4, 8, 8)})


def test_what_onnx_runtime_refuses_is_told_with_the_sizes(bundle: Bundle) -> None:
    engine = load(bundle, "text_encoder", 1)
    with pytest.raises(EngineError, match=r"text_encoder: ONNX Runtime failed: .*received: texts 1"):
        engine.run({"input_ids": np.full((1, 77), 10**6)})
    engine.close()


def test_a_part_that_fails_leaves_no_other_one_running(bundle: Bundle) -> None:
    """Whoever is told of it may free the buffers that the others write into."""
    engine = load(bundle, "denoiser", 2)
    ended: list[float] = []

    def fail() -> float:
        raise ValueError("the first part")

    def write() -> float:
        time.sleep(0.2)
        ended.append(time.perf_counter())
        return ended[-1]

    with pytest.raises(ValueError, match="the first part"):
        engine.call_parts([fail, write])
    assert len(ended) == 1
    engine.close()


def test_closing_while_others_run_ends_their_calls_cleanly(bundle: Bundle) -> None:
    """Before, the workers' executor was shut down under them."""
    given = inputs(bundle, 2)

    def call(engine: OnnxRuntimeEngine, running: threading.Barrier, ended: list[Exception]) -> None:
        running.wait()
        try:
            for _ in range(1000):
                engine.run(given)
        except Exception as error:
            ended.append(error)

    for _ in range(5):
        engine = load(bundle, "denoiser", 2)
        execution = engine.prepare({name: value.shape for name, value in given.items()})
        ended: list[Exception] = []
        running = threading.Barrier(4)
        threads = [threading.Thread(target=call, args=(engine, running, ended)) for _ in range(3)]
        for thread in threads:
            thread.start()
        running.wait()
        engine.close()
        for thread in threads:
            thread.join(30)
        assert [type(error) for error in ended] == [EngineError] * 3
        assert {str(error) for error in ended} == {"denoiser: the engine is closed | load the bundle again"}
        with pytest.raises(EngineError, match="denoiser: the engine is closed"):
            execution.enqueue(HostDevice().stream)
        with pytest.raises(EngineError, match="denoiser: the engine is closed"):
            engine.run(given)
        engine.close()
