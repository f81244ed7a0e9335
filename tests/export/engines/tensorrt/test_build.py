"""Real engines of TensorRT-RTX, built ahead of time for GPUs that are not here."""

from __future__ import annotations

import multiprocessing
import os
import pickle
import resource
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from dataclasses import replace
from multiprocessing.connection import Connection
from pathlib import Path
from typing import Any

import pytest

from latentrt.export.engines.tensorrt.build import EngineTask, build_engine
from latentrt.runtime.bundles.spec import AxisRange, TensorSpec
from latentrt.runtime.errors import ExportError, OutputError

from .one_convolution import PROFILE, SAMPLE, write_graph

pytest.importorskip("tensorrt_rtx", reason="tensorrt-rtx has no wheel for this machine")


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
    with pytest.raises(ExportError, match="the_convolution in float16, not in the graph"):
        build_engine(replace(task, types={}))
    assert not task.out.exists()


def test_a_contract_that_the_graph_does_not_have(task: EngineTask) -> None:
    wrong = TensorSpec("sample", "float32", SAMPLE.shape)
    with pytest.raises(ExportError, match=r"sample float16\[-1, 4, -1, -1\].*expected: .*sample float32"):
        build_engine(replace(task, inputs=(wrong,)))


def test_an_operator_that_tensorrt_does_not_have_is_named(task: EngineTask, tmp_path: Path) -> None:
    with pytest.raises(ExportError, match=r"the_activation.*NoSuchOperator"):
        build_engine(replace(task, graph=write_graph(tmp_path, "NoSuchOperator")))


def test_a_builder_that_is_killed_is_an_error_with_its_memory_and_its_last_words(task: EngineTask) -> None:
    def kill(phase: str, fraction: float) -> None:
        for child in multiprocessing.active_children():
            child.kill()

    words = r"denoiser: .*tensorrt-rtx engine failed.*SIGKILL, with 0\.[1-9] GB of memory taken of the .*log: .*memory"
    with pytest.raises(ExportError, match=words):
        build_engine(task, kill)
    assert not task.out.parent.exists()


def test_a_builder_that_dies_inside_of_a_message(task: EngineTask, monkeypatch: pytest.MonkeyPatch) -> None:
    def cut_off(connection: Connection) -> object:
        for child in multiprocessing.active_children():
            child.kill()
        raise OSError("got end of file during message")

    monkeypatch.setattr(Connection, "recv", cut_off)
    with pytest.raises(
        ExportError, match=r"denoiser: .*tensorrt-rtx engine failed.*SIGKILL, with .* GB of memory taken"
    ):
        build_engine(task)


def test_an_error_of_who_watches_the_progress_is_not_the_builders(task: EngineTask) -> None:
    def watch(phase: str, fraction: float) -> None:
        raise EOFError("the terminal is gone")

    with pytest.raises(EOFError, match="the terminal is gone"):
        build_engine(task, watch)
    assert not task.out.exists()


def test_any_failure_of_the_builder_is_told_with_the_component_and_the_provider(
    task: EngineTask, capfd: pytest.CaptureFixture[str]
) -> None:
    nonsense: Any = 0
    with pytest.raises(ExportError, match=r"denoiser: .*tensorrt-rtx engine failed .* received: TypeError: .*; log: "):
        build_engine(replace(task, profiles=nonsense))
    assert "Traceback" not in capfd.readouterr().err


def test_an_engine_that_cannot_be_written(task: EngineTask, tmp_path: Path) -> None:
    (tmp_path / "file").touch()
    with pytest.raises(OutputError, match=r"denoiser.engine: cannot be written .* make room"):
        build_engine(replace(task, out=tmp_path / "file" / "denoiser.engine"))


def test_a_disk_that_is_full_leaves_no_half_engine(task: EngineTask) -> None:
    """The builder inherits how large its files may be."""
    before = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (1000, before[1]))
    try:
        with pytest.raises(OutputError, match=r"denoiser.engine: cannot be written .* File too large .* make room"):
            build_engine(task)
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, before)
    assert list(task.out.parent.iterdir()) == []


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
from latentrt.export.engines.tensorrt.build import build_engine

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


def test_sizes_that_no_memory_could_be_set_aside_for_are_built_all_the_same(task: EngineTask, tmp_path: Path) -> None:
    huge = {**PROFILE, "height": AxisRange(8, 16, 1 << 16), "width": AxisRange(8, 16, 1 << 16)}
    figures = build_engine(replace(task, profiles=(huge,), graph=write_graph(tmp_path, "Softmax")))
    assert any("are not recorded as CUDA graphs" in warning for warning in figures.warnings)
    assert not any("CUDA graphs" in warning for warning in build_engine(task).warnings)
