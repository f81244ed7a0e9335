"""Seconds of a pipeline's stages, on whatever it runs."""

from __future__ import annotations

import time
from collections.abc import Callable
from typing import Any

import torch


class StageClock:
    """Times the calls of a pipeline's parts. On a GPU, which works behind the host's back, a call's time is what lies
    between two events on its stream: they cost nothing, where waiting for each call would."""

    def __init__(self, device: str):
        self._on_gpu = device == "cuda"
        self._seconds: dict[str, float] = {}
        self._events: list[tuple[str, Any, Any]] = []

    def start(self) -> None:
        """Forget the last run."""
        self._seconds.clear()
        self._events.clear()

    def seconds(self) -> dict[str, float]:
        """Seconds by stage, once the run is done."""
        found = dict(self._seconds)
        if self._on_gpu:
            torch.cuda.synchronize()
        for name, begin, end in self._events:
            found[name] = found.get(name, 0.0) + begin.elapsed_time(end) / 1e3
        return found

    def timed(self, name: str, call: Callable[..., object]) -> Callable[..., object]:
        """``call``, its time counted as that of a stage which computes."""
        return self._by_events(name, call) if self._on_gpu else self.on_host(name, call)

    def on_host(self, name: str, call: Callable[..., object]) -> Callable[..., object]:
        """The same for what runs on the host, and would wait for the GPU first: that time is another stage's."""

        def run(*arguments: object, **options: object) -> object:
            if self._on_gpu:
                torch.cuda.synchronize()
            start = time.perf_counter()
            try:
                return call(*arguments, **options)
            finally:
                self._seconds[name] = self._seconds.get(name, 0.0) + time.perf_counter() - start

        return run

    def _by_events(self, name: str, call: Callable[..., object]) -> Callable[..., object]:
        def run(*arguments: object, **options: object) -> object:
            begin, end = (torch.cuda.Event(enable_timing=True) for _ in range(2))
            begin.record()
            result = call(*arguments, **options)
            end.record()
            self._events.append((name, begin, end))
            return result

        return run
