"""Real engines of TensorRT-RTX, built ahead of time for GPUs that are not here."""

from __future__ import annotations

import multiprocessing
import os
import pickle
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import onnx_ir as ir
import pytest

from latentrt.export.tensorrt.build import BuilderOptions, EngineTask, build_engine
from latentrt.export.tensorrt.compiler import heavy_types
from latentrt.runtime.errors import ExportError, RequestError
from latentrt.runtime.spec import AxisRange, TensorSpec

pytest.importorskip("tensorrt_rtx", reason="tensorrt-rtx has no wheel for this machine")

SAMPLE = TensorSpec("sample", "float16", ("rows", 4, "height", "width"))
OUTPUT = TensorSpec("model_output", "float16", ("rows", 8, "height", "width"))
PROFILE = {"rows": AxisRange(1, 2, 4), "height": AxisRange(8, 16, 24), "width": AxisRange(8, 16, 24)}

HALF = "14336"  # the bits of 0.5, which is what the text format wants of float16

GRAPH = """<ir_version: 10, opset_import: ["" : 23]>
graph (float16[rows, 4, height, width] sample) => (float16[rows, 8, height, width] model_output)
<float16[8, 4, 3, 3] kernel = {KERNEL}> {
   [the_convolution] hidden = Conv <pads = [1, 1, 1, 1]> (sample, kernel)
   [the_activation] model_output = OPERATOR (hidden)
}"""


def write_graph(folder: Path, operator: str = "Relu") -> Path:
    text = GRAPH.replace("KERNEL", ", ".join([HALF] * 8 * 4 * 9)).replace("OPERATOR", operator)
    path = folder / "denoiser.onnx"
    ir.save(ir.from_onnx_text(text), path)
    return path


@pytest.fixture
def task(tmp_path: Path) -> EngineTask:
    return EngineTask(
        provider="tensorrt-rtx",
        component="denoiser",
        graph=write_graph(tmp_path),
        out=tmp_path / "engines" / "denoiser.engine",
        inputs=(SAMPLE,),
        outputs=(OUTPUT,),
        profiles=(PROFILE,),
        targets=("sm89",),
        types={"the_convolution": "float16"},
    )


def test_an_engine_is_written_and_its_build_is_measured(task: EngineTask) -> None:
    phases: list[tuple[str, float]] = []
    figures = build_engine(task, lambda *progress: phases.append(progress))
    assert task.out.stat().st_size > 1000
    assert figures.seconds > 0
    assert figures.peak_memory > 50 << 20
    assert figures.heavy_layers == 1
    assert phases
    assert all(0 <= fraction <= 1 for _, fraction in phases)


def test_one_engine_for_several_gpus_holds_its_weights_once(task: EngineTask, tmp_path: Path) -> None:
    build_engine(task)
    several = replace(task, out=tmp_path / "several.engine", targets=("sm86", "sm89", "sm120"))
    build_engine(several)
    assert several.out.stat().st_size < 1.1 * task.out.stat().st_size


def test_the_same_build_twice_gives_the_same_bytes(task: EngineTask, tmp_path: Path) -> None:
    again = replace(task, out=tmp_path / "again.engine")
    build_engine(task)
    build_engine(again)
    assert again.out.read_bytes() == task.out.read_bytes()


def test_several_profiles(task: EngineTask) -> None:
    fixed = {axis: AxisRange(allowed.opt, allowed.opt, allowed.opt) for axis, allowed in PROFILE.items()}
    build_engine(replace(task, profiles=(PROFILE, fixed)))
    assert task.out.is_file()


def test_a_graph_that_computes_in_another_type_than_it_should_is_named(task: EngineTask) -> None:
    with pytest.raises(ExportError, match="the_convolution in float16, not float32"):
        build_engine(replace(task, types={"the_convolution": "float32"}))
    with pytest.raises(ExportError, match="no layer for another_node"):
        build_engine(replace(task, types={**task.types, "another_node": "float16"}))
    assert not task.out.exists()


def test_a_contract_that_the_graph_does_not_have(task: EngineTask) -> None:
    wrong = TensorSpec("sample", "float32", SAMPLE.shape)
    with pytest.raises(ExportError, match=r"sample float16\[-1, 4, -1, -1\].*expected: .*sample float32"):
        build_engine(replace(task, inputs=(wrong,)))


def test_an_operator_that_tensorrt_does_not_have_is_named(task: EngineTask, tmp_path: Path) -> None:
    with pytest.raises(ExportError, match=r"the_activation.*NoSuchOperator"):
        build_engine(replace(task, graph=write_graph(tmp_path, "NoSuchOperator")))


def test_a_builder_that_is_killed_is_an_error(task: EngineTask) -> None:
    def kill(phase: str, fraction: float) -> None:
        for child in multiprocessing.active_children():
            child.kill()

    with pytest.raises(ExportError, match=r"SIGKILL.*memory"):
        build_engine(task, kill)
    assert not task.out.exists()


def test_the_builder_ends_with_a_build_that_is_killed(task: EngineTask) -> None:
    """Else it would go on writing into a folder that the next build of the same bundle uses."""
    script = task.out.parent.with_name("build.py")
    script.write_text(BUILD_UNTIL_KILLED)
    script.with_suffix(".pickle").write_bytes(pickle.dumps(task))
    parent = subprocess.Popen([sys.executable, "-P", script])
    children = Path(f"/proc/{parent.pid}/task/{parent.pid}/children")
    builder = wait_for(lambda: [pid for pid in children.read_text().split() if is_builder(pid)])[0]
    os.kill(int(builder), signal.SIGSTOP)  # so that it cannot end by itself
    parent.kill()
    parent.wait()
    assert wait_for(lambda: not Path(f"/proc/{builder}").exists() or state(builder) == "Z")
    assert not task.out.exists()


BUILD_UNTIL_KILLED = """
import pickle
from pathlib import Path
from latentrt.export.tensorrt.build import build_engine

if __name__ == "__main__":
    while True:
        build_engine(pickle.loads(Path(__file__).with_suffix(".pickle").read_bytes()))
"""


def is_builder(pid: str) -> bool:
    """Whether a process has loaded TensorRT. (One that has ended has loaded nothing.)"""
    try:
        return "libtensorrt" in Path(f"/proc/{pid}/maps").read_text()
    except OSError:
        return False


def state(pid: str) -> str:
    return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0]


def wait_for(condition: Callable[[], Any]) -> Any:
    deadline = time.monotonic() + 60
    while not (found := condition()):
        assert time.monotonic() < deadline
        time.sleep(0.02)
    return found


def test_rtx_has_no_version_compatible_engines(task: EngineTask) -> None:
    with pytest.raises(RequestError, match=r"--version-compatible.*tensorrt-rtx.*--provider tensorrt"):
        build_engine(replace(task, options=BuilderOptions(version_compatible=True)))


def test_heavy_types_are_those_of_the_graph(task: EngineTask) -> None:
    assert heavy_types(ir.load(task.graph)) == {"the_convolution": "float16"}
