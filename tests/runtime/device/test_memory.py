"""What plans take of the device, and give back where they cannot have it all."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np
import pytest

from latentrt.runtime.device.host import HostBuffer, HostDevice
from latentrt.runtime.device.memory import Memory, taken_since
from latentrt.runtime.errors import DeviceMemoryError
from latentrt.runtime.timing import Timings

from ...kernels.slot_runs import RUNS
from ..function_engine import FunctionEngine, contract_of, engines_of
from ..table_loop import linear_engine, run_through


def test_what_a_part_took_in_vain_is_freed_and_the_rest_is_kept() -> None:
    device = HostDevice(limit=1000)
    memory = Memory(device)
    memory.buffer((100,), np.uint8)

    def take_too_much() -> None:
        memory.buffer((500,), np.uint8)
        memory.buffer((500,), np.uint8)

    with pytest.raises(DeviceMemoryError), memory.filled():
        take_too_much()
    assert (memory.nbytes, device.memory()[0]) == (100, 900)
    with memory.filled():
        memory.buffer((500,), np.uint8)
    assert (memory.nbytes, device.memory()[0]) == (600, 400)
    memory.close()
    assert device.memory()[0] == 1000


class Context:
    """What an engine takes of the device for one execution."""

    component = "denoiser"

    def __init__(self, device: HostDevice):
        self._device = device
        self.taken: list[HostBuffer] = []

    def prepare(self, shapes: Mapping[str, tuple[int, ...]]) -> Any:
        self.taken.append(self._device.allocate(shapes["sample"], np.uint8))

    def close(self) -> None:
        raise AssertionError("nobody asked for it")


def test_what_an_engine_takes_for_itself_counts_and_what_others_take_meanwhile_does_not() -> None:
    device = HostDevice(limit=1 << 40)
    memory, engine = Memory(device), Context(device)
    memory.execution(engine, {"sample": (1000,)})
    assert memory.nbytes == 1000
    memory.execution(engine, {"sample": (1 << 32,)})
    assert memory.nbytes < 1 << 30
    free, _ = device.memory()
    engine.taken.clear()
    assert taken_since(device, free) == 0, "others gave back more than was taken"


def test_an_execution_whose_buffers_do_not_fit_is_closed() -> None:
    contract = contract_of(
        {"latents": "float32 images 4 side side"}, {"image": "float32 images 4 side side"},
        images=(1, 1, 4), side=(1, 8, 64),
    )  # fmt: skip
    engine = FunctionEngine("vae_decoder", contract, lambda inputs: {"image": inputs["latents"]})
    with engines_of(engine, device=HostDevice(limit=2000)) as engines:
        with pytest.raises(DeviceMemoryError):
            engines.run("vae_decoder", {"latents": np.ones((1, 4, 16, 16), np.float32)}, Timings())
        assert engine.open_executions == 0
        small = np.ones((1, 4, 4, 4), np.float32)
        np.testing.assert_array_equal(engines.run("vae_decoder", {"latents": small}, Timings())["image"], small)


def test_rows_that_cannot_run_in_parts_take_nothing() -> None:
    run, roomy = RUNS["euler"], HostDevice(limit=10**8)
    with engines_of(linear_engine(), device=roomy) as engines:
        run_through(engines, run)
        plan = 10**8 - roomy.memory()[0]
    device = HostDevice(limit=plan + 2000)  # less than the copies of a row
    with engines_of(linear_engine(rows=1), device=device, limit=10**9) as engines:
        for _ in range(2):
            with pytest.raises(DeviceMemoryError):
                run_through(engines, run)
            assert device.memory()[0] == 2000
