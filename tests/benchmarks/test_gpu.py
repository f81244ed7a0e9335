"""What is measured on a GPU, by a GPU."""

from __future__ import annotations

import time
from pathlib import Path

import numpy as np
import pytest

from latentrt.benchmarks.device_memory import DeviceMemory
from latentrt.benchmarks.workload import Ask, Start, Workload

pytestmark = pytest.mark.gpu

WORK = Workload("a fox", 64, 64, 2, 5.0, 1)


def test_memory_that_is_taken_is_counted_and_the_peak_seen() -> None:
    torch = pytest.importorskip("torch")
    torch.zeros(1, device="cuda")
    memory = DeviceMemory()
    with memory.counted(watch=True):
        large = torch.empty(1 << 30, dtype=torch.uint8, device="cuda")
        time.sleep(0.1)
        del large
        torch.cuda.empty_cache()
    assert memory.peak >= 1 << 30
    assert memory.own < 1 << 28


@pytest.mark.parametrize(("options", "tolerance"), [({}, 0.0), ({"compile": "inductor"}, 0.1)])
def test_the_reference_draws_and_tells_its_stages(
    options: dict[str, str], tolerance: float, emoji_checkpoint: Path, tmp_path: Path
) -> None:
    pytest.importorskip("diffusers")
    from latentrt.benchmarks.sides.diffusers_pipeline import open_side

    given = {"device": "cuda", "precision": "fp16"}
    eager = open_side(Start(str(emoji_checkpoint), 1, WORK, str(tmp_path), given)).draw
    drawn = open_side(Start(str(emoji_checkpoint), 1, WORK, str(tmp_path), given | options)).draw
    ask = Ask(WORK, noise="numpy", give="latents")
    latents, expected = drawn(ask).latents, eager(ask).latents
    assert latents is not None
    assert expected is not None
    assert np.abs(latents - expected).max() <= tolerance * np.abs(expected).max()
    stages = drawn(Ask(WORK)).stages
    assert all(stages[name] > 0 for name in ("text", "denoise", "decode", "postprocess"))
