"""The process that a side runs in: loads in closed and open loops, with a side that is quick and known."""

from __future__ import annotations

import subprocess
import sys
import threading
import time
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from latentrt.benchmarks import device_memory
from latentrt.benchmarks.device_memory import DeviceMemory
from latentrt.benchmarks.host_memory import memory, memory_of_session
from latentrt.benchmarks.processes import process_group
from latentrt.benchmarks.sides.drawer import Drawer, Drawn, initial_latents
from latentrt.benchmarks.suites.quality import pixels_from_png
from latentrt.benchmarks.worker import answer, arrivals, encoded_array, reply_to, serve
from latentrt.benchmarks.workload import Account, Ask, Failed, Load

from .small_results import WORKLOAD


def drawer(seconds: float, concurrent: bool) -> tuple[Drawer, list[int]]:
    """A side that waits, and how many calls were under way at once."""
    under_way, most, lock = 0, [0], threading.Lock()

    def draw(ask: Ask) -> Drawn:
        nonlocal under_way
        with lock:
            under_way += 1
            most[0] = max(most[0], under_way)
        time.sleep(seconds)
        with lock:
            under_way -= 1
        return Drawn({}, [], None, lambda folder: None)

    return Drawer(draw, {}, {}, concurrent=concurrent), most


@pytest.mark.parametrize("concurrent", [True, False])
def test_callers_run_at_once_only_where_a_side_allows_it(concurrent: bool) -> None:
    side, most = drawer(0.02, concurrent)
    served = serve(side, Load(WORKLOAD, 0.2, 3))
    assert most[0] == (3 if concurrent else 1)
    assert len(served.requests) >= 3
    assert all(arrival <= start < end for arrival, start, end in served.requests)


@pytest.mark.parametrize("rate", [None, 40.0])
def test_a_side_that_takes_one_caller_is_called_by_one_thread(rate: float | None) -> None:
    callers = set()

    def draw(ask: Ask) -> Drawn:
        callers.add(threading.get_ident())
        time.sleep(0.01)
        return Drawn({}, [], None, lambda folder: None)

    load = Load(WORKLOAD, 0.2, 3, rate, seed=3)
    served = serve(Drawer(draw, {}, {}), load).requests
    assert callers == {threading.main_thread().ident}
    if rate is None:
        assert [start for _, start, _ in served[:4]] == sorted(start for _, start, _ in served[:4])
        assert [arrival for arrival, _, _ in served[:3]] == [served[0][0]] * 3  # three callers, there from the start
        assert served[3][0] >= served[0][2]  # and each asks again once it has been served
        assert all(arrival < load.seconds for arrival, _, _ in served)
    else:
        assert [arrival for arrival, _, _ in served] == arrivals(rate, load.seconds, load.seed)


@pytest.mark.parametrize("concurrent", [True, False])
def test_an_open_loop_counts_from_the_arrival_and_leaves_nobody_out(concurrent: bool) -> None:
    side, _ = drawer(0.05, concurrent)
    load = Load(WORKLOAD, 0.3, 1, rate=40.0, seed=3)
    served = serve(side, load)
    assert [arrival for arrival, _, _ in served.requests] == arrivals(40.0, 0.3, 3)
    waits = [start - arrival for arrival, start, _ in served.requests]
    assert waits[-1] > 0.1  # 40 a second arrive where 20 can be served


@pytest.mark.parametrize("concurrent", [True, False])
@pytest.mark.parametrize("rate", [None, 40.0])
def test_what_a_call_raises_is_not_lost_in_its_thread(rate: float | None, concurrent: bool) -> None:
    calls = 0

    def draw(ask: Ask) -> Drawn:
        nonlocal calls
        calls += 1
        if calls == 3:
            raise MemoryError("no more")
        return Drawn({}, [], None, lambda folder: None)

    with pytest.raises(MemoryError, match="no more"):
        serve(Drawer(draw, {}, {}, concurrent), Load(WORKLOAD, 0.2, 2, rate))


def test_a_failed_call_is_an_answer(tmp_path: Path) -> None:
    def draw(ask: Ask) -> Drawn:
        raise ValueError("no such size")

    reply = answer(Drawer(draw, {}, {}), Ask(WORKLOAD), tmp_path, DeviceMemory())
    assert reply == Failed("ValueError: no such size")
    reply = answer(Drawer(draw, {}, {}), Account(WORKLOAD), tmp_path, DeviceMemory())
    assert isinstance(reply, Failed)  # what it costs is asked of LatentRT only


def test_pictures_are_given_in_the_order_they_were_drawn(tmp_path: Path) -> None:
    shades = [Image.new("L", (1, 1), i) for i in range(12)]

    def save(folder: Path) -> None:
        for i, shade in enumerate(shades):
            shade.save(folder / f"picture-{i}.png")

    drawer = Drawer(lambda ask: Drawn({}, shades, None, save), {}, {})
    pictures = reply_to(drawer, Ask(WORKLOAD, give="pictures"), tmp_path).pictures
    assert [int(pixels_from_png(png)[0, 0, 0]) for png in pictures] == list(range(12))
    assert not list(tmp_path.iterdir())


def test_memory_of_a_gpu_is_what_this_process_took_of_it(monkeypatch: pytest.MonkeyPatch) -> None:
    used = 500
    monkeypatch.setattr(device_memory, "used_bytes", lambda: used)
    memory_of = DeviceMemory()
    with memory_of.counted():
        used += 100
    used += 7  # another process's
    with memory_of.counted(watch=True):
        used += 50
        time.sleep(0.05)
        used -= 30
    assert (memory_of.own, memory_of.peak) == (120, 150)


def test_arrivals_are_a_poisson_process() -> None:
    times = arrivals(100.0, 50.0, 0)
    gaps = np.diff(times)
    assert len(times) == pytest.approx(5000, rel=0.05)
    assert float(gaps.std() / gaps.mean()) == pytest.approx(1, abs=0.05)
    assert times == arrivals(100.0, 50.0, 0)


def test_initial_latents_are_the_same_for_everyone() -> None:
    a, b = (initial_latents(Ask(WORKLOAD, noise="numpy"), 4, 8) for _ in range(2))
    assert a.shape == (1, 4, 16, 16)
    assert a.dtype == np.float32
    assert np.array_equal(a, b)


def test_arrays_are_told() -> None:
    assert encoded_array(None) == ""
    assert encoded_array(np.zeros(2)) != ""


def test_memory_is_that_of_a_process_and_of_all_that_it_started_until_an_interruption_ends_them() -> None:
    holding = "import time; held = bytearray(50_000_000); print(flush=True); time.sleep(60)"
    starting = f"import subprocess, sys; subprocess.run([sys.executable, '-c', {holding!r}])"
    seen = []

    def interrupted() -> None:
        pipe = subprocess.PIPE
        with process_group([sys.executable, "-c", starting], stdout=pipe, stderr=subprocess.DEVNULL) as process:
            assert process.stdout is not None
            seen.append(process)
            assert process.stdout.readline() == "\n"
            own = memory("VmRSS", Path(f"/proc/{process.pid}"))
            assert 0 < own < 50_000_000 < memory_of_session(process.pid) < 50_000_000 + 3 * own
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        interrupted()
    (process,) = seen
    assert process.stdout.closed
    patience = time.monotonic() + 10
    while memory_of_session(process.pid) and time.monotonic() < patience:
        time.sleep(0.01)
    assert memory_of_session(process.pid) == memory("VmRSS", Path(f"/proc/{process.pid}")) == 0
    assert 0 < memory("VmRSS") <= memory("VmHWM")
