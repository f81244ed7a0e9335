"""Sides that take turns, and what happens when one does not come back."""

from __future__ import annotations

import sys
import time
from pathlib import Path

import msgspec
import pytest

from latentrt.benchmarks import baselines, turns
from latentrt.benchmarks.baselines import SIDES, Installed, Missing, Side, find, left_out, sides_named
from latentrt.benchmarks.host_memory import memory
from latentrt.benchmarks.results import Failure
from latentrt.benchmarks.turns import Worker, alive, failure, in_turn
from latentrt.benchmarks.workload import Account, Ask, Load, Ready, Start
from latentrt.runtime.errors import RunError

from .small_results import WORKLOAD


class Idle:
    """As much of a worker as taking turns needs."""

    def __init__(self, name: str):
        self.side = Side(name, name, "none", ())
        self.ended = False


def test_the_order_turns_around_from_round_to_round() -> None:
    workers = [Idle("a"), Idle("b"), Idle("c")]
    order = [(i, k, worker.side.name) for i, k, worker in in_turn(workers, 2)]  # type: ignore[arg-type]
    assert order == [(0, 0, "a"), (0, 1, "b"), (0, 2, "c"), (1, 0, "c"), (1, 1, "b"), (1, 2, "a")]


def test_the_others_go_on_without_a_side_that_ended() -> None:
    workers = [Idle("a"), Idle("b")]
    workers[0].ended = True
    assert [worker.side.name for _, _, worker in in_turn(workers, 1)] == ["b"]  # type: ignore[arg-type]
    assert alive(workers) == workers[1:]  # type: ignore[arg-type,comparison-overlap]
    assert failure(workers[0], "a call", RunError("a ended")) == Failure("a", "a call", "a ended")  # type: ignore[arg-type]


def test_a_side_that_cannot_do_a_call_can_do_the_next(emoji_bundle: Path, tmp_path: Path) -> None:
    start = Start(str(emoji_bundle), 1, WORKLOAD, str(tmp_path), {"provider": "onnxruntime-cpu"})
    work = msgspec.structs.replace(WORKLOAD, num_inference_steps=1)
    with Worker(Installed(SIDES[0], sys.executable), start) as worker:
        with pytest.raises(RunError, match=r"latentrt failed \| received: RequestError: num_inference_steps"):
            worker.draw(Ask(msgspec.structs.replace(WORKLOAD, num_inference_steps=0)))
        assert not worker.ended
        assert worker.draw(Ask(work)).seconds > 0
        with pytest.raises(RunError, match="RequestError"):
            worker.load(Load(msgspec.structs.replace(WORKLOAD, num_inference_steps=0), 0.1, 2))
        told = worker.account(Account(work))
        assert 0 < told.outside_engines_seconds < told.seconds
        assert told.allocations == told.step_bytes == 0
        assert worker.account(Account(work, traced=True)).step_bytes > 0


@pytest.mark.parametrize("after", ["echo no memory >&2", "sleep 60"])
def test_a_process_that_ended_or_went_silent_is_gone_with_all_that_it_started(
    after: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    ready = msgspec.json.encode(Ready(0.1, 0.0, 1, 0, True, {}, {})).decode()
    python, left = tmp_path / "python", tmp_path / "left"
    python.write_text(f"#!/bin/sh\nsleep 60 &\necho $! > {left}\necho '{ready}'\nread request\n{after}\n")
    python.chmod(0o755)
    monkeypatch.setattr(turns, "PATIENCE_SECONDS", 0.5)
    with Worker(Installed(SIDES[0], str(python)), Start("", 1, WORKLOAD, "")) as worker:
        with pytest.raises(RunError, match="latentrt ended or went silent") as error:
            worker.draw(Ask(WORKLOAD))
        assert worker.ended
        assert ("no memory" in str(error.value)) == ("no memory" in after)
        process = Path("/proc", left.read_text().strip())
        patience = time.monotonic() + 10
        while (running := memory("VmRSS", process)) and time.monotonic() < patience:
            time.sleep(0.01)
        assert not running


def test_what_a_process_said_last_is_in_the_error(tmp_path: Path) -> None:
    start = Start(str(tmp_path / "none"), 1, WORKLOAD, str(tmp_path), {"provider": "auto"})
    with pytest.raises(RunError) as error:
        Worker(Installed(SIDES[0], sys.executable), start)
    assert "latentrt ended or went silent" in str(error.value)
    assert "no bundle here" in str(error.value)


def test_what_is_not_installed_is_missing_with_the_reason(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    absent = Side("x", "X", "none", ("no-such-distribution",), environment="openvino")
    found = find(absent, tmp_path, "cpu", ())
    assert isinstance(found, Missing)
    assert found.reason == ("no-such-distribution not installed; make its environment: latentrt bench setup openvino")
    python = tmp_path / "openvino" / "bin" / "python"
    python.parent.mkdir(parents=True)
    python.touch()
    assert find(absent, tmp_path, "cpu", ()) == found  # an environment whose installation did not come to its end
    installed = tmp_path / "openvino" / "lib" / "python3.11" / "site-packages" / "no_such_distribution-1.dist-info"
    installed.mkdir(parents=True)
    assert find(absent, tmp_path, "cpu", ()) == Installed(absent, str(python))
    monkeypatch.setattr(baselines.shutil, "which", lambda program: None)
    compiled = next(side for side in SIDES if side.programs)
    assert find(compiled, tmp_path, "cpu", ()) == Missing(compiled, "needs g++, which is not on the PATH")


def test_what_the_bundle_or_the_device_rules_out_is_missing(tmp_path: Path) -> None:
    sides = {side.name: side for side in SIDES}
    openvino, tiny = sides["openvino-f32"], sides["latentrt-tiny-decoder"]
    assert find(openvino, tmp_path, "cuda", ()) == Missing(openvino, "runs on cpu only")
    assert find(tiny, tmp_path, "cpu", ("vae_decoder",)) == Missing(tiny, "the bundle has no tiny_decoder")
    assert isinstance(find(tiny, tmp_path, "cpu", ("vae_decoder", "tiny_decoder")), Installed)


def test_setting_up_an_environment_again_mends_it(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    called: list[list[str]] = []
    monkeypatch.setattr(baselines, "run_command", lambda command, env=None: called.append(command))
    python = baselines.set_up("openvino", tmp_path)
    verbs = [next(word for word in command if word in ("venv", "install", "uninstall", "-c")) for command in called]
    assert verbs == ["venv", "install", "uninstall", "-c"]
    assert called[2][-1] == "torchvision"
    assert called[3][-1] == "import latentrt.benchmarks.sides.optimum_intel_pipeline"
    assert all(command[0] == str(python) for command in called[1:])


def test_sides_are_chosen_by_name_and_the_rest_is_told() -> None:
    assert [side.name for side in sides_named(("openvino-f32",), {})] == ["latentrt", "diffusers", "openvino-f32"]
    assert len(sides_named(("all",), {})) == len(SIDES)
    assert [(m.side.name, m.reason) for m in left_out(())] == [
        ("diffusers-compile", "slow to start, so measured only if named"),
    ]
    (more,) = [side for side in sides_named((), {"fp16": Path("b16")}) if side.name == "fp16"]
    assert (more.title, more.source, more.reads) == ("LatentRT fp16", "b16", "bundle")
    provided = sides_named((), {}, ("tensorrt-rtx",))[-1]
    assert (provided.name, provided.options) == ("latentrt-tensorrt-rtx", {"provider": "tensorrt-rtx"})
