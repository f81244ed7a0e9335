"""Steps that cannot be recorded, or whose engine refuses: what is said of them, and what comes next."""

from __future__ import annotations

import logging
from collections.abc import Iterator, Mapping
from contextlib import contextmanager

import numpy as np
import pytest

from latentrt.runtime.device.host import HostCapture
from latentrt.runtime.errors import CaptureError, DeviceError, DeviceMemoryError, EngineError

from ...kernels.slot_runs import RUNS
from ..function_engine import FunctionEngine, FunctionExecution, engines_of
from ..table_loop import linear, linear_contract, linear_engine, run_through

SIZES = [(4, 6, 10), (4, 6, 4)]


class TooLarge(FunctionEngine):
    """Its provider records runs, and not those of these sizes."""

    def __init__(self) -> None:
        super().__init__("denoiser", linear_contract(), linear)
        self.asked = 0

    def prepare(self, shapes: Mapping[str, tuple[int, ...]]) -> FunctionExecution:
        return TooLargeExecution(self, shapes)


class TooLargeExecution(FunctionExecution):
    @property
    def capturable(self) -> bool:
        assert isinstance(self._engine, TooLarge)
        self._engine.asked += 1
        raise CaptureError("denoiser: too large to be recorded")


def test_what_is_not_recorded_is_said_once_and_asked_once(caplog: pytest.LogCaptureFixture) -> None:
    with engines_of(engine := TooLarge()) as engines, caplog.at_level(logging.INFO):
        for size in (*SIZES, *SIZES):
            run_through(engines, RUNS["euler"], shape=size)
        assert engine.asked == len(SIZES)
    (said,) = caplog.messages
    assert "not recorded, so its work is put on the stream one by one: denoiser: too large to be recorded" in said


def test_nothing_is_said_where_a_provider_records_nothing(caplog: pytest.LogCaptureFixture) -> None:
    with engines_of(linear_engine(capturable=False)) as engines, caplog.at_level(logging.DEBUG):
        run_through(engines, RUNS["euler"])
    assert caplog.messages == []


def test_plans_make_room_for_a_graph_and_one_without_room_is_tried_again_when_there_may_be_some(
    monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    with engines_of(linear_engine()) as engines:
        runner, stream = engines.runner, engines.device.stream
        record, tries = stream.capture, list[int]()

        @contextmanager
        def capture() -> Iterator[HostCapture]:
            tries.append(runner.dropped)
            if runner.dropped == 0:
                raise DeviceMemoryError("GPU 0: CUDA_ERROR_OUT_OF_MEMORY")
            with record() as recorded:
                yield recorded  # type: ignore[misc]  # the host's

        monkeypatch.setattr(stream, "capture", capture)
        for _ in range(2):
            run_through(engines, RUNS["euler"], shape=SIZES[0])
        assert tries == [0], "there is nothing to drop, and nothing has changed since"
        assert len(caplog.messages) == 1
        assert "CUDA_ERROR_OUT_OF_MEMORY: " in caplog.text
        assert " GB free; lower width" in caplog.text
        run_through(engines, RUNS["euler"], shape=SIZES[1])
        assert tries == [0, 0, 1], "the first plan was dropped"
        run_through(engines, RUNS["euler"], shape=SIZES[0])
        assert engines.device.counts.captures == 2


def test_a_graph_is_recorded_once_somebody_else_gave_memory_back(monkeypatch: pytest.MonkeyPatch) -> None:
    with engines_of(linear_engine()) as engines:

        def capture() -> None:
            raise DeviceMemoryError("GPU 0: CUDA_ERROR_OUT_OF_MEMORY")

        with monkeypatch.context() as short:
            short.setattr(engines.device.stream, "capture", capture)
            run_through(engines, RUNS["euler"])
        run_through(engines, RUNS["euler"])
        assert engines.device.counts.captures == 0
        engines.runner.dropped += 1
        run_through(engines, RUNS["euler"])
        assert engines.device.counts.captures == 1


def test_a_failure_of_the_device_that_an_engine_takes_for_its_own_breaks_the_pipeline(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    engine = linear_engine()

    def refuse(inputs: object) -> dict[str, np.ndarray]:
        raise EngineError("denoiser: the run cannot be put on the stream")

    def fail() -> None:
        raise DeviceError("GPU 0: CUDA_ERROR_ILLEGAL_ADDRESS")

    with engines_of(engine) as engines:
        engine.function = refuse
        monkeypatch.setattr(engines.device.stream, "synchronize", fail)
        with pytest.raises(DeviceError, match="ILLEGAL_ADDRESS"):
            run_through(engines, RUNS["euler"])
        with pytest.raises(EngineError, match="broken since an earlier call: GPU 0: CUDA_ERROR_ILLEGAL_ADDRESS"):
            run_through(engines, RUNS["euler"])
