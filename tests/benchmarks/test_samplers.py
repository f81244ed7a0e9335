"""``latentrt bench-samplers``: what it measures, not how fast that is."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest

from latentrt.benchmarks.samplers import CONFIGS, GUIDANCE_SCALE, UPDATED, registers_touched, routes_of
from latentrt.kernels.slots import denoise_slots, empty_slots
from latentrt.kernels.table_rows import table_rows
from latentrt.runtime.cli.main import main
from latentrt.runtime.samplers import build_table, model_schedule_from_config, sampler_names

MODEL = model_schedule_from_config(CONFIGS["trained"])


@pytest.mark.parametrize(
    ("sampler", "registers"),
    [
        ("euler", 6),  # both outputs and the state; the state and both rows of the next input
        ("dpmpp_2m", 8),  # and an older output to read, a new one to write
        ("dpmpp_3m", 9),
        ("lms", 10),
    ],
)
def test_registers_that_an_update_must_touch(sampler: str, registers: int) -> None:
    table = build_table(sampler, None, 20, MODEL, guidance_scale=GUIDANCE_SCALE)
    assert registers_touched(table_rows(table)[11]) == registers


def test_an_update_is_that_of_each_image_alone() -> None:
    table = build_table("dpmpp_2m", None, 4, MODEL, guidance_scale=GUIDANCE_SCALE)
    state, outputs = np.random.default_rng(0).standard_normal((2, 4, 16), np.float32)
    model_input, timesteps = np.empty((4, 16), np.float32), np.empty(4, np.float32)
    slots = empty_slots(2, 16, 4, table_rows(table))
    slots.state[...], slots.position[...] = state[:2], 2
    denoise_slots(slots, routes_of(2), outputs, model_input, timesteps)
    for i in range(2):
        alone = empty_slots(1, 16, 4, table_rows(table))
        alone.state[...], alone.position[...] = state[i], 2
        denoise_slots(alone, routes_of(1), outputs[[i, 2 + i]], np.empty((2, 16), np.float32), timesteps)
        assert np.array_equal(slots.state[i], alone.state[0])
    assert np.array_equal(model_input[:2], model_input[2:])


def test_every_sampler_is_measured(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    out = tmp_path / "results" / "samplers.json"
    assert main(["bench-samplers", "--runs", "1", "--out", str(out)]) == 0
    costs = json.loads(capsys.readouterr().out.splitlines()[-1])
    assert costs == json.loads(out.read_text())
    assert set(costs["tables"]) == set(sampler_names())
    assert set(costs["updates"]) == set(UPDATED)
    for cost in costs["tables"].values():
        assert 0 < cost["cached"]["value"] < cost["built"]["value"] <= cost["slowest"]
    for update in costs["updates"].values():
        assert all(update[state]["update_to_copy"]["value"] > 0 for state in ("warm", "cold"))
