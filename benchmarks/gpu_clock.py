"""How long work takes on a device that works behind the host's back."""

from __future__ import annotations

import contextlib
import statistics
import time
from collections.abc import Callable
from typing import Any

import torch

#: Runs that are not counted, then so many measurements of so many runs each.
_WARM_UP, _MEASUREMENTS, _RUNS = 3, 7, 20

#: Clock cycles, some milliseconds, that the GPU is kept waiting: meanwhile the host puts all runs on the stream, so
#: that none of them waits for the host.
_HEAD_START = 20_000_000


def seconds_of(work: Callable[[], object], device: str, stream: int = 0) -> float:
    """Seconds of one run, the median: on a GPU by its own clock.

    Args:
        work: puts a run on the current stream of torch, or on ``stream``. At most ``RUNS_OF_ALL`` of them are made.
        device: ``"cuda"``, or ``"cpu"`` for work that is done when it returns.
        stream: the address of the CUDA stream that it goes to, if that is not torch's.
    """
    timed = _timed_on_gpu if device == "cuda" else _timed_on_host
    where: Any = contextlib.nullcontext()
    if device == "cuda" and stream:
        where = torch.cuda.stream(torch.cuda.ExternalStream(stream))
    with where:
        for _ in range(_WARM_UP):
            work()
        return statistics.median(timed(work) for _ in range(_MEASUREMENTS))


#: How often ``seconds_of`` does the work in all.
RUNS_OF_ALL = _WARM_UP + _MEASUREMENTS * _RUNS


def _timed_on_gpu(work: Callable[[], object]) -> float:
    begin, end = (torch.cuda.Event(enable_timing=True) for _ in range(2))
    torch.cuda.synchronize()
    torch.cuda._sleep(_HEAD_START)
    begin.record()
    for _ in range(_RUNS):
        work()
    end.record()
    end.synchronize()
    return float(begin.elapsed_time(end)) / 1e3 / _RUNS


def _timed_on_host(work: Callable[[], object]) -> float:
    start = time.perf_counter()
    for _ in range(_RUNS):
        work()
    return (time.perf_counter() - start) / _RUNS
