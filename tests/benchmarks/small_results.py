"""A small result with every kind of record, made by hand: nothing in it is measured."""

from __future__ import annotations

import base64
import io

import numpy as np
from PIL import Image

from latentrt.benchmarks.results import (
    SCHEMA_VERSION,
    Absent,
    Bound,
    Build,
    ColdStart,
    Difference,
    Failure,
    Loaded,
    LoadRun,
    Memory,
    Overhead,
    Peaks,
    Phase,
    Picture,
    Present,
    Recognition,
    Record,
    Results,
    Run,
    Size,
    Subject,
)
from latentrt.benchmarks.results_kernels import Operated, StepKernels
from latentrt.benchmarks.workload import Kernel, Workload

WORKLOAD = Workload("a rocket", 128, 128, 20, 5.0, 7)
LARGER = Workload("a rocket", 160, 96, 20, 5.0, 7)


def png(value: int) -> str:
    """A grey picture of 16 by 8 pixels, as results keep it."""
    buffer = io.BytesIO()
    Image.fromarray(np.full((8, 16, 3), value, np.uint8)).save(buffer, "PNG")
    return base64.b64encode(buffer.getvalue()).decode()


def results_with(seconds: float = 0.1, rounds: int = 6, partial: str | None = None) -> Results:
    """LatentRT at ``seconds`` a call, diffusers at three times that, each round a little slower than the one before."""
    records: list[Record] = [
        Absent("openvino-f32", "OpenVINO fp32", "not installed\nand more"),
        Peaks(2e11, "numpy", 3e10, 2),
        Bound(WORKLOAD.label, "denoise", 20, 2e9, 4.5e8, 0.4 * seconds),
    ]
    for side, factor in (("latentrt", 1.0), ("diffusers", 3.0)):
        mine = seconds * factor
        records += [
            Present(side, side.title(), {side: "1.0"}, {"threads": "2"}),
            Loaded(side, 0.3, 0.0, 100_000_000),
            Memory(side, 100_000_000, int(200_000_000 * factor)),
            Picture(side, WORKLOAD.label, "a rocket", png(100 + int(factor))),
            Recognition(side, 226, 0.96, 0.98, 1.0),
            LoadRun(side, 1, None, 1.0, ((0.0, 0.0, mine), (mine, mine, 2 * mine))),
            LoadRun(side, 2, 5.0, 1.0, ((0.0, 0.0, mine), (0.01, mine, 2 * mine))),
        ]
        phases: list[Phase] = ["first", "warm-up", *["measured"] * rounds]  # type: ignore[list-item]
        for i, phase in enumerate(phases):
            taken = mine * (1 + 0.001 * i)
            stages = {"text": 0.01 * mine, "denoise": 0.8 * mine, "decode": 0.1 * mine, "encode": 0.05 * mine}
            records.append(Run(side, WORKLOAD.label, phase, i, 0, taken, stages, 200_000_000))
            records.append(Run(side, LARGER.label, phase, i, 0, 1.5 * taken, stages, 200_000_000))
        records += [Run(side, work.label, "switch", 0, 0, mine, {}, 0) for work in (WORKLOAD, LARGER)]
        records += [ColdStart(side, i, 0, 5 * mine + 0.01 * i) for i in range(3)]
    records += [
        Difference("latentrt", WORKLOAD.label, "a rocket", 1e-5, 1e-9, 1, 60.0, None, None),
        Failure("diffusers", "9 callers", "diffusers failed | received: ValueError: no"),
        Overhead(0, 20, seconds, 0.03 * seconds, 4096, 0, 25),
        Size("bundle", 45_000_000),
        Build("cold", 30.0, {"denoiser": 20.0}, 900_000_000, 45_000_000, {"export": 15.0, "gate": 5.0}),
        StepKernels("latentrt", WORKLOAD.label, 1e-4, 8e-5, (Kernel("conv", 2, 6e-5), Kernel("add", 1, 2e-5)), 3),
        Operated("GEGLU", "torch", "1x2", 3_000, 1e-6),
    ]
    return Results(
        schema_version=SCHEMA_VERSION,
        started="2026-01-01T00:00:00+00:00",
        command=("latentrt", "bench", "build/emoji", "--reference", "examples/emoji", "--out", "a report"),
        partial=partial,
        suites=("latency",),
        subject=Subject("emoji", "ab" * 32, "sdxl", "fp32", "onnxruntime-cpu", True),
        workload=WORKLOAD,
        threads=2,
        machine={"cpu": "a processor", "processors": "2", "system": "Linux", "python": "3.11"},
        records=tuple(records),
    )
