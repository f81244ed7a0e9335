"""One denoising step by its kernels, whoever launched them: torch's profiler (CUPTI) sees all of a process.

Profiled are two calls that differ in their steps alone. What the longer one has more of, divided by its additional
steps, is one step: encoding the text, decoding and whatever else happens once goes away by itself.
"""

from __future__ import annotations

import json
import os
import tempfile
from collections import Counter, defaultdict
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

import msgspec

from ..runtime.errors import RunError
from .sides.drawer import Drawer
from .workload import Ask, Kernel, Profile, Profiled

#: How the profiler's trace calls what runs on the GPU.
_ON_GPU = ("kernel", "gpu_memcpy", "gpu_memset")

#: Characters of a name that are kept: some have a page of template arguments.
_NAME = 200


def profiled(drawer: Drawer, ask: Profile) -> Profiled:
    """Two calls under the profiler, after one that is not: a profile's first call takes longer than others.

    Raises:
        RunError: the profiler saw no kernels.
    """
    fewer, more = (msgspec.structs.replace(ask.workload, num_inference_steps=n) for n in (ask.fewer, ask.more))
    traced(lambda: drawer.draw(Ask(fewer)))
    before, after = traced(lambda: drawer.draw(Ask(fewer))), traced(lambda: drawer.draw(Ask(more)))
    return one_step(before, after, ask.more - ask.fewer)


def traced(work: Callable[[], object]) -> list[dict[str, Any]]:
    """What ran on the GPU meanwhile: name ("name"), microseconds since some time ("ts") and how many ("dur")."""
    # Otherwise it lets go of CUPTI after each profile, and graphs that are launched while it does so may fail.
    os.environ.setdefault("TEARDOWN_CUPTI", "0")
    os.environ.setdefault("DISABLE_CUPTI_LAZY_REINIT", "1")
    import torch

    on_gpu, kinds = torch.cuda.is_available(), torch.profiler.ProfilerActivity
    with torch.profiler.profile(activities=[kinds.CUDA if on_gpu else kinds.CPU]) as profile:
        work()
        if on_gpu:
            torch.cuda.synchronize()
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "trace.json"
        profile.export_chrome_trace(str(path))
        trace: Mapping[str, Any] = json.loads(path.read_bytes())
    return [event for event in trace["traceEvents"] if event.get("cat") in _ON_GPU]


def one_step(fewer: Sequence[Mapping[str, Any]], more: Sequence[Mapping[str, Any]], steps: int) -> Profiled:
    """What one of so many additional steps is made of.

    Raises:
        RunError: no kernels.
    """
    if not more:
        expected = "CUPTI, which comes with torch for CUDA"
        raise RunError("the profiler saw nothing on the GPU", expected=expected)
    calls: Counter[str] = Counter()
    seconds: defaultdict[str, float] = defaultdict(float)
    for sign, events in ((-1, fewer), (1, more)):
        for event in events:
            name = str(event["name"])[:_NAME]
            calls[name] += sign
            seconds[name] += sign * float(event["dur"]) / 1e6
    kernels = [
        Kernel(name, calls[name] / steps, max(0.0, seconds[name]) / steps) for name in seconds if calls[name] > 0
    ]
    kernels.sort(key=lambda kernel: -kernel.seconds)
    return Profiled(tuple(kernels), max(0.0, _span(more) - _span(fewer)) / steps)


def _span(events: Sequence[Mapping[str, Any]]) -> float:
    """Seconds from the beginning of the first to the end of the last."""
    if not events:
        return 0.0
    ends = max(float(event["ts"]) + float(event["dur"]) for event in events)
    return (ends - min(float(event["ts"]) for event in events)) / 1e6
