"""LatentRT beside diffusers' eager pipeline: warm latency, cold start, stages, memory, on the same machine in one run.

The two sides are processes of their own that take turns, run by run, so that whatever else the machine does falls on
both. Figures are medians; ratios are medians of the ratios of neighbouring runs.
"""

from __future__ import annotations

import base64
import io
import os
import platform
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Sequence
from pathlib import Path
from types import TracebackType

import msgspec
import numpy as np
from PIL import Image

from ..runtime.errors import RunError
from .workload import Loaded, Run, Workload

#: Idle OpenMP and ONNX Runtime workers spin for some milliseconds after a run.
_PAUSE_SECONDS = 0.05


class Spread(msgspec.Struct, frozen=True):
    """Median, smallest and largest of some runs, in seconds (or as a ratio)."""

    median: float
    min: float
    max: float
    runs: int


class Side(msgspec.Struct, frozen=True):
    """What one side was measured to take. ``stages`` are medians in seconds; times in seconds, memory in bytes."""

    warm: Spread
    cold: Spread
    load: float
    first_call: float
    stages: dict[str, float]
    peak_bytes: int
    versions: dict[str, str]


class Comparison(msgspec.Struct, frozen=True):
    """The result: both sides, the ratios (reference over ours), and what they were measured on."""

    workload: Workload
    machine: dict[str, str]
    latentrt: Side
    diffusers: Side
    warm_ratio: Spread
    cold_ratio: Spread
    memory_ratio: float
    overhead: float
    picture_max_difference: int
    warm_up_runs: int


class _Worker:
    """A side's process; ``run`` asks it for one picture."""

    def __init__(self, side: str, source: str, work: Workload):
        command = [sys.executable, "-P", "-m", "latentrt.benchmarks.worker", side, source, encoded(work)]
        self._side = side
        self._errors = tempfile.TemporaryFile("w+")  # noqa: SIM115  # closed when the worker is left
        self._process = subprocess.Popen(
            command,
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=self._errors,
            text=True,
            env=environment(work),
        )
        self.loaded = msgspec.json.decode(self._line(), type=Loaded)

    def __enter__(self) -> _Worker:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._process.communicate()
        self._errors.close()

    def run(self) -> Run:
        """Ask for a picture, after a pause in which the other side's threads come to rest."""
        time.sleep(_PAUSE_SECONDS)
        assert self._process.stdin is not None
        self._process.stdin.write("\n")
        self._process.stdin.flush()
        return msgspec.json.decode(self._line(), type=Run)

    def _line(self) -> str:
        assert self._process.stdout is not None
        line = self._process.stdout.readline()
        if not line:
            self._process.wait()
            self._errors.seek(0)
            raise RunError(f"the {self._side} side ended early", received=self._errors.read()[-2000:])
        return line


def compare(
    bundle: str,
    checkpoint: str,
    work: Workload,
    *,
    runs: int = 15,
    cold_runs: int = 5,
    warm_up: int = 3,
    progress: Callable[[str], None] = lambda text: None,
) -> Comparison:
    """Measure both sides.

    Raises:
        RunError: a side's process failed; the end of what it printed is in the message.
    """
    progress("loading both sides")
    with _Worker("latentrt", bundle, work) as ours, _Worker("diffusers", checkpoint, work) as theirs:
        first = ours.run(), theirs.run()
        for i in range(warm_up):
            progress(f"warm-up {i + 1} of {warm_up}")
            ours.run(), theirs.run()
        pairs = []
        for i in range(runs):
            progress(f"warm run {i + 1} of {runs}")
            pairs.append((ours.run(), theirs.run()))
        loaded = ours.loaded, theirs.loaded
    cold = []
    with tempfile.TemporaryDirectory() as folder:
        for i in range(cold_runs):
            progress(f"cold start {i + 1} of {cold_runs}")
            cold.append((_cold_latentrt(bundle, work, folder), _cold_diffusers(checkpoint, work, folder)))
    mine, reference = (
        Side(
            warm=spread([pair[i].seconds for pair in pairs]),
            cold=spread([pair[i] for pair in cold]),
            load=loaded[i].seconds,
            first_call=first[i].seconds,
            stages={name: statistics.median(pair[i].stages[name] for pair in pairs) for name in pairs[0][i].stages},
            peak_bytes=pairs[-1][i].peak_bytes,
            versions=loaded[i].versions,
        )
        for i in (0, 1)
    )
    return Comparison(
        workload=work,
        machine=machine(),
        latentrt=mine,
        diffusers=reference,
        warm_ratio=spread([b.seconds / a.seconds for a, b in pairs]),
        cold_ratio=spread([b / a for a, b in cold]),
        memory_ratio=reference.peak_bytes / mine.peak_bytes,
        overhead=statistics.median(1 - a.stages["engines"] / a.stages["total"] for a, _ in pairs),
        picture_max_difference=_picture_difference(*pairs[-1]),
        warm_up_runs=warm_up,
    )


def spread(values: Sequence[float]) -> Spread:
    """Median, smallest and largest."""
    return Spread(statistics.median(values), min(values), max(values), len(values))


def encoded(work: Workload) -> str:
    """A workload as a command-line argument."""
    return msgspec.json.encode(work).decode()


def environment(work: Workload) -> dict[str, str]:
    """The environment of a side: the same number of threads for every library, and no network."""
    threads = {name: str(work.threads) for name in ("OMP_NUM_THREADS", "MKL_NUM_THREADS")}
    return {**os.environ, **threads, "HF_HUB_OFFLINE": "1", "TRANSFORMERS_VERBOSITY": "error"}


def machine() -> dict[str, str]:
    """What the numbers were measured on."""
    model = platform.processor() or platform.machine()
    for line in (
        Path("/proc/cpuinfo").read_text(encoding="utf-8").splitlines() if Path("/proc/cpuinfo").exists() else ()
    ):
        if line.startswith("model name"):
            model = line.partition(":")[2].strip()
            break
    return {
        "cpu": model,
        "processors": str(len(os.sched_getaffinity(0))),
        "system": f"{platform.system()} {platform.release()}",
        "python": platform.python_version(),
    }


def _cold_latentrt(bundle: str, work: Workload, folder: str) -> float:
    command = [
        str(Path(sys.executable).with_name("latentrt")), "generate", bundle, work.prompt, "-o", f"{folder}/ours.png",
        "--size", f"{work.width}x{work.height}", "--steps", str(work.num_inference_steps),
        "--guidance-scale", str(work.guidance_scale), "--seed", str(work.seed), "--threads", str(work.threads),
    ]  # fmt: skip
    return _timed(command, work)


def _cold_diffusers(checkpoint: str, work: Workload, folder: str) -> float:
    module = "latentrt.benchmarks.cold_diffusers"
    return _timed([sys.executable, "-P", "-m", module, checkpoint, encoded(work), f"{folder}/theirs.png"], work)


def _timed(command: Sequence[str], work: Workload) -> float:
    start = time.perf_counter()
    done = subprocess.run(command, capture_output=True, text=True, env=environment(work), check=False)
    seconds = time.perf_counter() - start
    if done.returncode != 0:
        raise RunError(f"{command[0]} failed with status {done.returncode}", received=done.stderr[-2000:])
    return seconds


def _picture_difference(ours: Run, theirs: Run) -> int:
    """The largest difference of any channel of any pixel, in 0..255."""
    a, b = (
        np.asarray(Image.open(io.BytesIO(base64.b64decode(run.picture))).convert("RGB"), np.int16)
        for run in (ours, theirs)
    )
    return int(np.abs(a - b).max())
