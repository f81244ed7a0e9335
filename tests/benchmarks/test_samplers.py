"""``latentrt bench-samplers``: what it measures, not how fast that is."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from latentrt.benchmarks.samplers import CONFIGS, GUIDANCE_SCALE, UPDATED, registers_touched, weights_of
from latentrt.runtime.cli import main
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
    assert registers_touched(weights_of(table, 10)) == registers


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
