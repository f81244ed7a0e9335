"""One side in a process of its own: ``python -P -m latentrt.benchmarks.worker MODULE START [OUT.png]``.

It loads, prints a ``Ready`` line, then does what each line that it reads asks for and prints a reply. So the driver
decides when each side runs, and several can take turns. Given a file, it draws once, writes it, and ends: a cold start.

Nothing here needs more than msgspec, numpy and Pillow, so that it runs in the environments of other programs.
"""

from __future__ import annotations

import base64
import importlib
import io
import queue
import sys
import tempfile
import time
import traceback
from collections import deque
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import msgspec
import numpy as np

from .device_memory import DeviceMemory
from .host_memory import memory
from .sides.drawer import Drawer
from .workload import Ask, Done, Failed, Load, Profile, Ready, Reply, Request, Served, Start


def main() -> None:
    """Serve until standard input ends."""
    begun = time.perf_counter()
    module, encoded, *out = sys.argv[1:]
    start = msgspec.json.decode(encoded, type=Start)
    replies = sys.stdout
    sys.stdout = sys.stderr  # whatever a library prints must not look like a reply
    device = DeviceMemory()
    with device.counted():
        drawer: Drawer = importlib.import_module(f".sides.{module}", __package__).open_side(start)
    if out:
        drawer.draw(Ask(start.workload)).pictures[0].save(out[0])
        return
    seconds = time.perf_counter() - begun - drawer.prepared_seconds
    resident = memory("VmRSS")
    ready = Ready(
        seconds, drawer.prepared_seconds, resident, device.own, drawer.concurrent, drawer.versions, drawer.settings
    )
    print(msgspec.json.encode(ready).decode(), file=replies, flush=True)
    with tempfile.TemporaryDirectory() as folder:
        for line in sys.stdin:
            reply = answer(drawer, msgspec.json.decode(line, type=Request), Path(folder), device)
            print(msgspec.json.encode(reply).decode(), file=replies, flush=True)
    drawer.close()


def answer(drawer: Drawer, ask: Request, folder: Path, device: DeviceMemory) -> Reply | Failed:
    """What came of one request. Whatever an engine or a library raises is told; the next request may do."""
    try:
        with device.counted(watch=isinstance(ask, Ask) and ask.watch):
            reply = _reply(drawer, ask, folder)
    except Exception as error:
        traceback.print_exc()
        return Failed(f"{type(error).__name__}: {error}")
    return msgspec.structs.replace(reply, device_bytes=device.peak) if isinstance(reply, Done) else reply


def _reply(drawer: Drawer, ask: Request, folder: Path) -> Reply:
    if isinstance(ask, Ask):
        return reply_to(drawer, ask, folder)
    if isinstance(ask, Load):
        return serve(drawer, ask)
    if isinstance(ask, Profile):
        from .kernel_profile import profiled  # which needs torch

        return profiled(drawer, ask)
    assert drawer.account is not None  # only LatentRT is asked
    return drawer.account(ask)


def reply_to(drawer: Drawer, ask: Ask, folder: Path) -> Done:
    """One call, timed; then the time that its PNG files take."""
    start = time.perf_counter()
    drawn = drawer.draw(ask)
    seconds = time.perf_counter() - start
    stages = dict(drawn.stages)
    pictures: tuple[str, ...] = ()
    try:
        if drawn.pictures:
            start = time.perf_counter()
            drawn.save(folder)
            stages["encode"] = time.perf_counter() - start
        if ask.give == "pictures":
            paths = sorted(folder.glob("*.png"), key=lambda path: (len(path.name), path.name))  # 2 before 10
            pictures = tuple(base64.b64encode(path.read_bytes()).decode() for path in paths)
    finally:
        for path in folder.glob("*.png"):
            path.unlink()
    return Done(seconds, stages, memory("VmHWM"), pictures=pictures, latents=encoded_array(drawn.latents))


def encoded_array(array: object) -> str:
    """An array as base64 of an .npy file; nothing for None."""
    if array is None:
        return ""
    buffer = io.BytesIO()
    np.save(buffer, np.asarray(array))
    return base64.b64encode(buffer.getvalue()).decode()


def serve(drawer: Drawer, load: Load) -> Served:
    """Callers in a closed loop, or arrivals at a rate. Requests that are under way when time is up are finished; those
    of an open loop that still wait are finished too, because leaving out the slowest would flatter the rest.

    Raises:
        Exception: what a call raised; the callers that it did not happen to finish what they were asked for.
    """
    requests: list[tuple[float, float, float]] = []
    begun = time.perf_counter()

    def now() -> float:
        return time.perf_counter() - begun

    def request(arrival: float) -> None:
        start = now()
        drawer.draw(Ask(load.workload))
        requests.append((arrival, start, now()))

    (_at_once if drawer.concurrent else _one_at_a_time)(load, now, request)
    return Served(tuple(requests), now())


def _at_once(load: Load, now: Callable[[], float], request: Callable[[float], None]) -> None:
    """Each caller in a thread of its own; requests that arrive go to the first thread that is free."""

    def closed() -> None:
        while (arrival := now()) < load.seconds:
            request(arrival)

    waiting: queue.SimpleQueue[float | None] = queue.SimpleQueue()

    def opened() -> None:
        while (arrival := waiting.get()) is not None:
            request(arrival)

    with ThreadPoolExecutor(load.concurrency) as callers:
        calls = [callers.submit(closed if load.rate is None else opened) for _ in range(load.concurrency)]
        if load.rate is not None:
            for arrival in arrivals(load.rate, load.seconds, load.seed):
                time.sleep(max(0.0, arrival - now()))
                waiting.put(arrival)
            for _ in calls:
                waiting.put(None)
    for call in calls:
        call.result()


def _one_at_a_time(load: Load, now: Callable[[], float], request: Callable[[float], None]) -> None:
    """All requests in this thread, in the order they come; a caller whose picture is done is the last in the queue.

    In this thread, because all other calls are: OpenMP (libgomp) keeps workers for each thread that ever called it, and
    with more of them than processors they go to sleep at each barrier, which doubles torch's time for a small model.
    """
    if load.rate is not None:
        for arrival in arrivals(load.rate, load.seconds, load.seed):
            time.sleep(max(0.0, arrival - now()))
            request(arrival)
        return
    waiting = deque([now()] * load.concurrency)
    while waiting:
        request(waiting.popleft())
        if (arrival := now()) < load.seconds:
            waiting.append(arrival)


def arrivals(rate: float, seconds: float, seed: int) -> list[float]:
    """The times of a Poisson process of ``rate`` a second."""
    times = np.cumsum(np.random.default_rng(seed).exponential(1 / rate, int(4 * rate * seconds) + 16))
    return [float(at) for at in times if at < seconds]


if __name__ == "__main__":
    main()
