"""Memory of the GPU with real providers: what pictures leave behind, and what happens when there is none."""

from __future__ import annotations

import json
import re
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING

import pytest

from ..device.on_gpu import assert_takes_nothing
from .answers import Answers
from .calls import SIZES, latents, loaded

if TYPE_CHECKING:
    from latentrt.runtime import Pipeline

pytestmark = pytest.mark.gpu


def test_two_hundred_pictures_leave_nothing(gpu: Pipeline) -> None:
    sizes = SIZES[:3]

    def draw(count: int) -> None:
        for seed in range(count):
            width, height = sizes[seed % len(sizes)]
            gpu("an owl", seed=seed, num_inference_steps=2, width=width, height=height)

    draw(2 * len(sizes))
    assert_takes_nothing(gpu.engines.device, lambda: draw(200))


def test_a_closed_pipeline_leaves_nothing(gpu: Pipeline, built: Callable[[str], Path], provider: str) -> None:
    """The one that stays open holds what a library has once for the whole process."""

    def use() -> None:
        with loaded(built("fp16"), provider) as pipe:
            latents(pipe)

    use()
    assert_takes_nothing(gpu.engines.device, use)


def test_a_gpu_without_memory_is_told_and_smaller_calls_go_on(
    built: Callable[[str], Path], provider: str, answers: Answers
) -> None:
    program = Path(__file__).with_name("short_of_memory.py")
    done = subprocess.run(
        [sys.executable, "-P", str(program), str(built("fp16")), provider],
        capture_output=True, text=True, check=False, timeout=300,
    )  # fmt: skip
    ended = {"status": done.returncode, "errors": done.stderr[-2000:]}
    told = json.loads(done.stdout.splitlines()[-1]) if done.returncode == 0 else ended
    answers.keep(provider, "without memory", told)
    assert done.returncode == 0, done.stderr
    for refused in ("loading without memory", "a large call without memory"):
        assert told[refused].startswith("DeviceMemoryError: "), told
        assert "lower width, height" in told[refused], told
    assert re.search(r"GB (of .*)?free", told["a large call without memory"]), told
    assert told["a small call after it"] == ""
    assert told["the small call gives the same"]
    assert told["a large call with memory"] == ""
    assert told["the large call is finite"]
    assert told["the last call gives the same"]
