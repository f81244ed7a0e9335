"""Closing an engine while others are inside."""

from __future__ import annotations

import threading

import pytest

from latentrt.runtime.errors import EngineError
from latentrt.runtime.providers.usage import Usage


def test_closing_waits_for_those_inside_and_refuses_those_after() -> None:
    usage = Usage("denoiser")
    inside, leave, closed = threading.Event(), threading.Event(), threading.Event()

    def call() -> None:
        with usage:
            inside.set()
            leave.wait(10)

    def close() -> None:
        usage.close()
        closed.set()

    threads = [threading.Thread(target=call), threading.Thread(target=close)]
    threads[0].start()
    inside.wait(10)
    threads[1].start()
    assert not closed.wait(0.1)
    leave.set()
    for thread in threads:
        thread.join(10)
    assert closed.is_set()
    with pytest.raises(EngineError, match=r"denoiser: the engine is closed \| load the bundle again"), usage:
        pass
    usage.close()  # a second time makes no difference
