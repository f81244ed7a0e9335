"""Sides that are measured without being there."""

from __future__ import annotations

from collections.abc import Callable
from typing import ClassVar

from latentrt.benchmarks.baselines import REFERENCE, Installed
from latentrt.benchmarks.workload import Account, Accounted, Ask, Done, Load, Ready, Served, Start

DONE = Done(0.1, {"denoise": 0.05}, 1)


class FakeWorker:
    """As much of a side's process as being measured needs; ``answers`` says what comes of a call, ``loads`` keeps what
    was asked. The reference finishes one request a second, others two, whatever the load."""

    answers: ClassVar[Callable[[str, Ask], Done]] = staticmethod(lambda name, ask: DONE)

    def __init__(self, installed: Installed, start: Start):
        self.side = installed.side
        self.ended = False
        self.ready = Ready(0.1, 0.0, 1, 0, True, {}, {})
        self.loads: list[Load] = []

    def __enter__(self) -> FakeWorker:
        return self

    def __exit__(self, *_: object) -> None:
        self.ended = True

    def draw(self, ask: Ask) -> Done:
        return type(self).answers(self.side.name, ask)

    def load(self, load: Load) -> Served:
        self.loads.append(load)
        taken = 1.0 if self.side.name == REFERENCE else 0.5
        return Served(tuple((i * taken, i * taken, (i + 1) * taken) for i in range(4)), 4 * taken)

    def account(self, account: Account) -> Accounted:
        return Accounted(0.1, 0.01, 0, 3, 4096 if account.traced else 0)
