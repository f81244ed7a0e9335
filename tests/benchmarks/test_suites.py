"""Every suite, of sides that are not there: what it asks for, what comes of it, and how often it says where it is."""

from __future__ import annotations

import base64
import io
import json
import sys
from collections.abc import Iterable
from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace

import msgspec
import numpy as np
import pytest

from latentrt.benchmarks.baselines import SIDES, Installed
from latentrt.benchmarks.plan import Plan
from latentrt.benchmarks.prepare import Prepared
from latentrt.benchmarks.results import (
    Build,
    ColdStart,
    Difference,
    Failure,
    LoadRun,
    Memory,
    Overhead,
    Picture,
    Recognition,
    Record,
    Run,
    Size,
)
from latentrt.benchmarks.run import SUITES, amount
from latentrt.benchmarks.suites import latency
from latentrt.benchmarks.workload import Ask, Done
from latentrt.runtime.bundles.bundle import open_bundle
from latentrt.runtime.errors import RunError

from .fake_sides import FakeWorker
from .small_results import png
from .test_bad_input import changed

PYTHON = sys.executable

#: A program in the place of Python: it writes a picture, wherever in the command that stands.
DRAWS = '#!/bin/sh\nfor one; do case "$one" in *.png) echo > "$one";; esac; done\n'


def program(path: Path, text: str) -> str:
    """An executable file."""
    path.write_text(text, encoding="utf-8")
    path.chmod(0o755)
    return str(path)


@pytest.fixture
def plan(prepared: Prepared, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Plan:
    """Two of everything; a cold start is over at once."""
    plan = prepared.plan
    python = program(tmp_path / "python", DRAWS)
    monkeypatch.setattr(sys, "executable", python)
    return replace(
        plan,
        sides=tuple(Installed(installed.side, python) for installed in plan.sides),
        variations=(msgspec.structs.replace(plan.workload, images=2),),
        sizes=((128, 128), (160, 96)),
        prompts=("a fox", "a rocket"),
        runs=2,
        variation_runs=2,
        cold_runs=2,
        load_seconds=3.0,
    )


def workers_of(plan: Plan) -> list[FakeWorker]:
    return [FakeWorker(installed, plan.start_of(installed)) for installed in plan.sides]


def measured(plan: Plan, suite: str, workers: list[FakeWorker] | None = None) -> list[Record]:
    """A suite's records, after it has reported progress as often as it said that it would."""
    told: list[str] = []
    watched = replace(plan, progress=told.append)
    records = list(SUITES[suite].measure(watched, workers or workers_of(plan)))  # type: ignore[arg-type]
    assert len(told) == SUITES[suite].amount(plan)
    return records


def of(kind: type[Record], records: Iterable[Record]) -> list[Record]:
    return [record for record in records if isinstance(record, kind)]


def test_the_amount_of_work_is_known_beforehand(prepared: Prepared) -> None:
    assert amount(prepared.plan, prepared.suites) == 2 + 2 * 2 + 2


def test_memory_is_that_of_each_process_and_sizes_are_those_of_files(plan: Plan) -> None:
    memories, sizes = (of(kind, measured(plan, "memory")) for kind in (Memory, Size))
    assert memories == [Memory(name, 1, 1) for name in ("latentrt", "diffusers")]
    assert [size.what for size in sizes] == ["bundle", "engines and their weights", "checkpoint"]
    assert all(size.bytes > 10_000_000 for size in sizes)


def test_latency_is_of_calls_in_turn_and_of_starts_in_turn(plan: Plan) -> None:
    records = measured(plan, "latency")
    runs = of(Run, records)
    two = plan.variations[0].label
    assert [(run.side, run.phase, run.round, run.order) for run in runs if run.case == two] == [
        ("latentrt", "first", 0, 0), ("diffusers", "first", 0, 1),
        ("latentrt", "measured", 1, 0), ("diffusers", "measured", 1, 1),
        ("diffusers", "measured", 2, 0), ("latentrt", "measured", 2, 1),
    ]  # fmt: skip
    switches = [run for run in runs if run.phase == "switch"]
    assert [(run.side, run.case.partition(",")[0], run.round) for run in switches] == [
        (side, size, i) for i in range(2) for size in ("128x128", "160x96") for side in ("latentrt", "diffusers")
    ]
    starts = of(ColdStart, records)
    assert [(start.side, start.round, start.order) for start in starts] == [
        ("latentrt", 0, 0), ("diffusers", 0, 1), ("diffusers", 1, 0), ("latentrt", 1, 1),
    ]  # fmt: skip
    assert all(0 < start.seconds < 5 for start in starts)


@pytest.mark.parametrize(
    ("text", "reason"),
    [("echo no memory >&2; exit 1", "its cold start failed | received: no memory"), ("sleep 60", "does not end")],
)
def test_a_cold_start_that_fails_or_hangs_is_recorded(
    text: str, reason: str, plan: Plan, monkeypatch: pytest.MonkeyPatch
) -> None:
    program(Path(sys.executable), f"#!/bin/sh\n{text}\n")
    monkeypatch.setattr(latency, "PATIENCE_SECONDS", 0.3)
    failures = of(Failure, measured(plan, "latency"))
    assert [(failure.side, failure.what) for failure in failures] == [
        (side, "cold start") for side in ("latentrt", "diffusers", "diffusers", "latentrt")
    ]
    assert all(reason in failure.reason for failure in failures)


def test_requests_arrive_at_rates_that_were_found_with_one_caller(plan: Plan) -> None:
    workers = workers_of(plan)
    records = of(LoadRun, measured(plan, "throughput", workers))
    loads = [(1, None), (2, None), (4, None), (1, 0.7), (1, 1.4)]
    assert [(record.side, record.concurrency, record.rate) for record in records] == [
        (side, concurrency, rate) for concurrency, rate in loads for side in ("latentrt", "diffusers")
    ]
    assert [load.seconds for load in workers[0].loads] == pytest.approx([3, 3, 3, 10 / 0.7, 10 / 1.4])


def test_overhead_is_asked_of_latentrt_alone(plan: Plan) -> None:
    assert measured(plan, "overhead") == [Overhead(i, 1, 0.1, 0.01, 4096, 0, 3) for i in range(2)]


def test_quality_is_the_distance_from_the_reference(plan: Plan, monkeypatch: pytest.MonkeyPatch) -> None:
    def drawn(name: str, ask: Ask) -> Done:
        buffer = io.BytesIO()
        np.save(buffer, np.full((1, 4, 2, 2), 1.0 if name == "diffusers" else 1.5, np.float32))
        latents, shade = base64.b64encode(buffer.getvalue()).decode(), 100 if name == "diffusers" else 103
        return Done(0.1, {}, 1, pictures=(png(shade),), latents=latents)

    monkeypatch.setattr(FakeWorker, "answers", staticmethod(drawn))
    records = measured(plan, "quality")
    assert [(one.side, one.prompt) for one in of(Picture, records)] == [
        (side, prompt) for prompt in ("a fox", "a rocket", "a fox") for side in ("latentrt", "diffusers")
    ]
    differences = of(Difference, records)
    assert [one.case.partition(",")[0] for one in differences] == ["128x128", "128x128", "160x96"]
    assert {(one.side, one.latents_max_abs, one.pixels_max) for one in differences} == {("latentrt", 0.5, 3)}


def test_recognition_is_what_the_judge_says(plan: Plan, monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    def found(pictures: list[object], names: list[str], colors: list[str]) -> dict[str, float]:
        return {"prompts": len(pictures), "top1": 0.5, "top5": 1.0, "background_accuracy": 0.25}

    colors = {"red": 0, "blue": 1}
    words = SimpleNamespace(NAMES=("fox", "owl"), COLORS=colors, prompt=lambda name, color: f"a {name} on {color}")
    monkeypatch.setitem(sys.modules, "vocabulary", words)
    monkeypatch.setitem(sys.modules, "retrieval", SimpleNamespace(measure=found))
    asked = []

    def drawn(name: str, ask: Ask) -> Done:
        asked.append((name, ask.workload.prompt, ask.workload.seed))
        return Done(0.1, {}, 1, pictures=(png(100),))

    monkeypatch.setattr(FakeWorker, "answers", staticmethod(drawn))
    records = measured(replace(plan, judge=tmp_path), "recognition")
    assert records == [Recognition(side, 2, 0.5, 1.0, 0.25) for side in ("latentrt", "diffusers")]
    assert asked[:2] == [("latentrt", "a fox on red", 0), ("latentrt", "a owl on blue", 1)]


#: ``build-engines`` as far as it is watched: it copies a bundle, and what it starts holds 60 MB for a while.
BUILDS = """#!{python}
import shutil, subprocess, sys
arguments = sys.argv[sys.argv.index("build-engines"):]
shutil.copytree({bundle!r}, arguments[arguments.index("--out") + 1], dirs_exist_ok=True)
open({told!r}, "w").write(" ".join(arguments))
subprocess.run([{python!r}, "-c", "import time; held = bytearray(60_000_000); time.sleep(0.5)"])
"""


def test_a_build_is_of_the_bundle_that_is_measured(plan: Plan, emoji_bundle: Path, tmp_path: Path) -> None:
    ours = changed(emoji_bundle, tmp_path / "ours", lambda manifest: manifest)
    (ours / "build.json").unlink()
    options = {"parts": {"tiny_vae": "taesdxl"}, "prediction_type": "epsilon", "skip_layers": [], "force": True}
    (ours / "build.json").write_text(json.dumps({"options": options}), encoding="utf-8")
    told = tmp_path / "told"
    program(Path(sys.executable), BUILDS.format(python=PYTHON, bundle=str(emoji_bundle), told=str(told)))
    builds = of(Build, measured(replace(plan, bundle=open_bundle(ours)), "build"))
    assert [build.kind for build in builds] == ["cold", "warm"]
    assert all(set(build.components) >= {"denoiser", "vae_decoder"} for build in builds)
    assert all(60_000_000 < build.peak_bytes < 200_000_000 for build in builds)
    assert {
        "--batch 1:1:8", "--precision fp32", "--provider onnxruntime-cpu", "--profiles span", "--tiny-vae taesdxl",
        "--prediction-type epsilon", "--skip-layers none",
    } <= {option.strip() for option in told.read_text().replace(" --", "\n--").splitlines()}  # fmt: skip
    half = changed(
        emoji_bundle,
        tmp_path / "half",
        lambda manifest: msgspec.structs.replace(
            manifest,
            components={
                name: msgspec.structs.replace(component, precision="fp16")
                for name, component in manifest.components.items()
            },
        ),
    )
    with pytest.raises(RunError, match=r"another bundle than the one that is measured \| received: denoiser"):
        measured(replace(plan, bundle=open_bundle(half)), "build")


def test_an_export_belongs_to_what_made_it(plan: Plan, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    sides = [side for side in SIDES if side.environment == "openvino"]
    (folder,) = {plan.start_of(Installed(side, "python")).cache for side in sides}
    requirements = tmp_path / "openvino.txt"
    requirements.write_text("openvino==1\n", encoding="utf-8")
    monkeypatch.setattr("latentrt.benchmarks.plan.environment_file", lambda name: requirements)
    (another,) = {plan.start_of(Installed(side, "python")).cache for side in sides}
    assert folder != another
