"""What a runner keeps, and gives back: when memory is short, and at the end."""

from __future__ import annotations

import numpy as np
import pytest

from latentrt.runtime.device.host import HostDevice
from latentrt.runtime.device.runner import DeviceRunner
from latentrt.runtime.errors import DeviceMemoryError


class Noted:
    """A plan that notes its end."""

    nbytes = 0

    def __init__(self, name: str, closed: list[str]):
        self._name, self._closed = name, closed

    def close(self) -> None:
        self._closed.append(self._name)
        if self._name == "broken":
            raise ZeroDivisionError


def test_everything_is_closed_even_after_something_that_fails() -> None:
    device, closed = HostDevice(limit=10_000), list[str]()
    runner = DeviceRunner(device)
    runner.before_close(lambda: closed.append("engines"))
    with runner.turn():
        for name in ("one", "broken", "another"):
            with runner.plan((name,), lambda name=name: Noted(name, closed)):  # type: ignore[misc]
                runner.workspace(1000)
    with pytest.raises(ZeroDivisionError):
        runner.close()
    assert sorted(closed[:3]) == ["another", "broken", "one"]
    assert closed[3:] == ["engines"]
    assert device.memory()[0] == 10_000, "the workspace too"


def test_the_workspace_is_given_up_last_and_never_under_a_plan_at_work() -> None:
    device, closed = HostDevice(limit=5000), list[str]()
    with DeviceRunner(device) as runner, runner.turn():
        with runner.plan(("plan",), lambda: Noted("plan", closed)):
            runner.workspace(4000)
            with pytest.raises(DeviceMemoryError):
                runner.with_room(lambda: device.allocate((4000,), np.uint8))
        assert (closed, runner.dropped) == ([], 0)
        buffer = runner.with_room(lambda: device.allocate((4000,), np.uint8))
        assert (closed, runner.dropped) == (["plan"], 2)
        with pytest.raises(DeviceMemoryError):
            runner.workspace(4000)
        buffer.close()
        workspace = runner.workspace(4000)
        assert workspace is not None
        assert workspace.nbytes == 4000
