"""Where a GPU's time goes: steps by their kernels, and operations alone, as far as a processor can tell."""

from __future__ import annotations

import importlib.util
import os
import sys
from collections.abc import Callable, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import msgspec
import numpy as np
import pytest
import torch

from latentrt.benchmarks import kernel_profile
from latentrt.benchmarks.kernel_profile import one_step, profiled
from latentrt.benchmarks.plan import Plan
from latentrt.benchmarks.prepare import Prepared
from latentrt.benchmarks.results import Failure
from latentrt.benchmarks.results_kernels import Operated, StepKernels
from latentrt.benchmarks.suites import kernels
from latentrt.benchmarks.tables_kernels import operations as operation_table
from latentrt.benchmarks.tables_kernels import step_kernels
from latentrt.benchmarks.workload import Kernel, OperationsTask, Profile, Profiled, Workload
from latentrt.runtime.errors import RunError

from .fake_sides import FakeWorker
from .small_results import results_with

if importlib.util.find_spec("triton") is None:
    pytest.skip("triton has no wheel for this machine", allow_module_level=True)
from latentrt.benchmarks import gpu_clock, operations, own_kernels
from latentrt.benchmarks.provider_operations import Operation, geglu, group_norm_silu, prepared, write_bundle

interpreted = pytest.mark.skipif(
    os.environ.get("TRITON_INTERPRET") != "1", reason="where there is a GPU, Triton's interpreter is off"
)
WORK = Workload("a fox", 64, 64, 20, 5.0, 1)
SMALL = (group_norm_silu(2, 64, 9, 11), geglu(2, 3, 1100))


def event(name: str, start: float, duration: float) -> dict[str, Any]:
    return {"name": name, "ts": start, "dur": duration, "cat": "kernel"}


def call(steps: int) -> list[dict[str, Any]]:
    """A text of 30 us, steps of a convolution, two additions and a pause of 5 us, a picture of 200 us."""
    events = [event("text", 100, 30)]
    for step in range(steps):
        start = 130 + 45 * step
        events += [event("conv", start, 20), event("add", start + 20, 10), event("add", start + 30, 10)]
    return [*events, event("picture", 130 + 45 * steps, 200)]


def test_what_happens_once_is_no_part_of_a_step() -> None:
    found = one_step(call(2), call(6), 4)
    assert [(kernel.name, kernel.calls) for kernel in found.kernels] == [("conv", 1), ("add", 2)]
    assert [kernel.seconds for kernel in found.kernels] == pytest.approx([20e-6, 20e-6])
    assert found.seconds == pytest.approx(45e-6)


def test_a_profile_without_kernels_is_an_error() -> None:
    with pytest.raises(RunError, match="the profiler saw nothing on the GPU"):
        one_step([], [], 4)


def test_two_calls_are_profiled_after_one_that_is_not_counted(monkeypatch: pytest.MonkeyPatch) -> None:
    asked: list[int] = []

    def traced(work: Callable[[], object]) -> list[dict[str, Any]]:
        work()
        return call(asked[-1]) if len(asked) > 1 else [event("a slow first one", 0, 1e6)]

    class Drawer:
        def draw(self, ask: Any) -> None:
            asked.append(ask.workload.num_inference_steps)

    monkeypatch.setattr(kernel_profile, "traced", traced)
    drawer: Any = Drawer()
    found = profiled(drawer, Profile(WORK))
    assert asked == [2, 2, 6]
    assert found == one_step(call(2), call(6), 4)


def test_the_profiler_is_torch_s_and_gives_a_trace() -> None:
    assert kernel_profile.traced(lambda: torch.ones(3) + 1) == []  # there is no GPU


@interpreted
@pytest.mark.parametrize("operation", SMALL, ids=lambda operation: operation.what)
def test_the_plain_kernels_and_the_provider_compute_what_torch_does(operation: Operation, tmp_path: Path) -> None:
    x = np.random.default_rng(0).standard_normal(operation.shape, np.float32).astype(np.float16)
    by = operations.in_torch(operation, x, "cpu")
    fused, expected = (by[name]().float() for name in (operations.TRITON, operations.TORCH))
    assert fused.shape == operation.output_shape
    torch.testing.assert_close(fused, expected, rtol=2e-3, atol=1e-2)
    write_bundle(operation, tmp_path / "bundle")
    with prepared(tmp_path / "bundle", "onnxruntime-cpu", x) as (run, stream):
        run()
        assert stream == 0


@pytest.fixture
def quick(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("_WARM_UP", "_MEASUREMENTS", "_RUNS"):
        monkeypatch.setattr(gpu_clock, name, 1)


@interpreted
def test_every_operation_is_a_line_and_one_that_fails_keeps_no_other_from_being_timed(
    quick: None, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    task = OperationsTask("cpu", "sd1", 4, 4, 4, 2, ("no-such-provider", "onnxruntime-cpu"))
    monkeypatch.setattr(sys, "argv", ["operations", msgspec.json.encode(task).decode()])
    monkeypatch.setattr(operations, "operations_of", lambda *sizes: SMALL)
    operations.main()
    records = [msgspec.json.decode(line, type=Operated | Failure) for line in capsys.readouterr().out.splitlines()]
    timed = [record for record in records if isinstance(record, Operated)]
    assert all(record.seconds > 0 and record.bytes > 0 for record in timed)
    ours = [(record.what, record.shape) for record in timed if record.by == operations.OURS]
    assert {name for name, _ in ours} == {
        "denoise_step", "guidance_statistics", "philox_normal", "pack_rows", "image_from_decoded", "pixels_from_image",
    }  # fmt: skip
    assert len(ours) == 12
    assert ("denoise_step", "1x4x4x4") in ours
    assert ("denoise_step", "2x4x4x4") in ours
    theirs = [(record.what, record.by) for record in timed if record.by != operations.OURS]
    names = [operations.TRITON, operations.TORCH, "onnxruntime-cpu"]
    assert theirs == [(operation.what, name) for operation in SMALL for name in names]
    failures = [record for record in records if isinstance(record, Failure)]
    assert [record.side for record in failures] == ["no-such-provider"] * 2
    assert "no-such-provider" in failures[0].reason


@interpreted
def test_a_kernel_that_goes_on_along_its_table_has_a_row_for_every_run() -> None:
    (launch,) = (one for one in own_kernels.launches("cpu", 1, 4, 2, 2) if one.kernel == "denoise_step")
    slots = launch.run.__closure__[0].cell_contents[0]  # type: ignore[index]
    for _ in range(3):
        launch.run()
    assert int(slots.position[0]) == 3
    assert len(slots.table) > gpu_clock.RUNS_OF_ALL
    assert launch.bytes == 24 * 16


@pytest.mark.parametrize(("family", "names"), [("sd1", 2), ("sdxl", 2), ("sd3", 1)])
def test_operations_are_those_of_the_family_s_networks(family: str, names: int) -> None:
    found = operations.operations_of(family, 128, 128)
    assert len({operation.what for operation in found}) == names
    assert all(operation.bytes > 2 * np.prod(operation.output_shape) for operation in found)


@pytest.fixture
def plan_on_gpu(prepared: Prepared) -> Plan:
    """The shortest run, as if LatentRT ran on a GPU."""
    return replace(prepared.plan, provider="onnxruntime-cuda")


class ProfiledWorker(FakeWorker):
    def profile(self, profile: Profile) -> Profiled:
        if self.side.name == "diffusers":
            raise RunError("the profiler saw nothing on the GPU")
        return Profiled(tuple(Kernel(f"k{i}", 1, 1e-6) for i in range(60)), 1e-4)


def test_the_suite_names_a_step_s_longest_kernels_and_goes_on_without_a_side_s(
    plan_on_gpu: Plan, monkeypatch: pytest.MonkeyPatch
) -> None:
    plan = plan_on_gpu
    asked: list[OperationsTask] = []

    def timed(task: OperationsTask, threads: int) -> Sequence[Operated]:
        asked.append(task)
        return [Operated("GEGLU", "torch", "1x2", 8, 1e-6)]

    monkeypatch.setattr(kernels, "operations", timed)
    workers: Any = [ProfiledWorker(installed, plan.start_of(installed)) for installed in plan.sides]
    told: list[str] = []
    found = list(kernels.measure(replace(plan, progress=told.append), workers))
    (step,) = (record for record in found if isinstance(record, StepKernels))
    assert (step.side, len(step.kernels), step.others) == ("latentrt", 40, 20)
    assert step.busy_seconds == pytest.approx(60e-6)
    assert [record.side for record in found if isinstance(record, Failure)] == ["diffusers"]
    assert isinstance(found[-1], Operated)
    (task,) = asked
    assert (task.device, task.family, task.channels, task.height, task.width) == ("cuda", "sdxl", 4, 16, 16)
    assert task.providers == ("onnxruntime-cuda",)
    assert len(told) == kernels.amount(plan)


def test_there_is_nothing_to_see_on_a_processor(prepared: Prepared) -> None:
    assert list(kernels.measure(prepared.plan, [])) == []
    assert kernels.amount(prepared.plan) == 0


def test_operations_that_end_early_leave_what_they_measured(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    line = msgspec.json.encode(Operated("GEGLU", "torch", "1x2", 8, 1e-6)).decode()
    program = tmp_path / "python"
    program.write_text(f"#!/bin/sh\necho '{line}'\necho died >&2\nexit 3\n", encoding="utf-8")
    program.chmod(0o755)
    monkeypatch.setattr(sys, "executable", str(program))
    found = kernels.operations(OperationsTask("cuda", "sdxl", 4, 8, 8, 2, ()), 1)
    assert next(iter(found)) == Operated("GEGLU", "torch", "1x2", 8, 1e-6)
    with pytest.raises(RunError, match="died"):
        list(found)


def test_a_report_shows_both() -> None:
    results = results_with()
    assert step_kernels(results).rows == (
        ("Latentrt", "conv", "2", "60.0", "60.0%"),
        ("", "add", "1", "20.0", "20.0%"),
        ("", "between kernels", "", "20.0", "20.0%"),
        ("", "all of it", "", "100.0", "100.0%"),
    )
    assert operation_table(results).rows == (("GEGLU", "torch", "1x2", "1.0", "3", "10%"),)
