"""Steps of many slots in numpy: against the tables' definition, and diffusers' rescaled guidance."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from diffusers.pipelines.stable_diffusion.pipeline_stable_diffusion import rescale_noise_cfg

from latentrt.kernels.slots import Route, denoise_slots, empty_slots, rescale_factor
from latentrt.kernels.table_rows import COLUMNS, HISTORY, Column, table_rows

from .random_values import values
from .slot_runs import RUNS, by_definition, over_slots, run_of

ROUTE = np.array([[0, 0, 1, 0, 0, 1, 0]], np.int32)


def assert_same(ours: np.ndarray, theirs: np.ndarray) -> None:
    np.testing.assert_allclose(ours, theirs, rtol=0, atol=2e-5 * np.abs(theirs).max())


def test_all_samplers_side_by_side_end_where_each_ends_alone() -> None:
    shape = (4, 5, 7)
    last = over_slots(denoise_slots, list(RUNS.values()), shape)
    for name, state in zip(RUNS, last, strict=True):
        expected = by_definition(RUNS[name], shape)
        assert np.isfinite(expected).all(), name
        assert_same(state, expected)


def test_the_first_row_makes_the_first_input_and_asks_for_the_first_draw() -> None:
    run = run_of("euler_a", 3)
    slots = empty_slots(1, 12, 12, table_rows(run.table, first_draw=3))
    slots.state[0] = np.arange(12)
    model_input, timesteps = np.zeros((2, 12), np.float32), np.zeros(2, np.float32)
    denoise_slots(slots, ROUTE, np.full((2, 12), np.nan), model_input, timesteps)
    np.testing.assert_array_equal(slots.state[0], np.arange(12))
    np.testing.assert_allclose(model_input, np.tile(np.arange(12) * run.table.input_scale[0], (2, 1)), rtol=1e-6)
    assert slots.draws[0] == 3
    assert empty_slots(1, 12, 12, table_rows(run.table, host_draws=True)).table[:, Column.NEXT_DRAW].max() == -1
    np.testing.assert_allclose(timesteps, run.table.timesteps[0])


def test_a_run_that_is_over_stays_where_it_ended() -> None:
    run = run_of("euler_a", 2)
    slots = empty_slots(1, 4, 4, table_rows(run.table))
    model_input, timesteps = np.zeros((2, 4), np.float32), np.zeros(2, np.float32)
    for _ in range(run.table.evaluations + 1):
        denoise_slots(slots, ROUTE, values(1, 2, 4), model_input, timesteps)
    ended, inputs = slots.state.copy(), model_input.copy()
    denoise_slots(slots, ROUTE, values(2, 2, 4), model_input, timesteps)
    np.testing.assert_array_equal(slots.state, ended)
    np.testing.assert_array_equal(model_input, inputs)
    assert slots.position[0] == run.table.evaluations + 1
    assert slots.draws[0] == -1


def test_an_idle_route_touches_nothing() -> None:
    slots = empty_slots(1, 4, 4, np.ones((1, COLUMNS), np.float32))
    model_input = np.zeros((1, 4), np.float32)
    routes = np.full((2, len(Route)), -1, np.int32)
    denoise_slots(slots, routes, np.ones((1, 4)), model_input, np.zeros(1, np.float32))
    assert not slots.state.any()
    assert not model_input.any()
    assert slots.position[0] == 0


@pytest.mark.parametrize("rescale", [0.0, 0.7, 1.0])
@pytest.mark.parametrize("guidance", [1.5, 7.5])
def test_rescaled_guidance_is_diffusers(rescale: float, guidance: float) -> None:
    u, c = values(1, 4, 8, 8), values(2, 4, 8, 8)
    guided = u + np.float32(guidance) * (c - u)
    theirs = rescale_noise_cfg(torch.from_numpy(guided)[None], torch.from_numpy(c)[None], rescale)[0].numpy()
    assert_same(rescale_factor(c, u, guidance, rescale) * guided, theirs)


def test_rows_rescale_guidance_only_where_there_is_some() -> None:
    run = run_of("euler", 4, table={"guidance_interval": (0.0, 0.5)})
    rows = table_rows(run.table, guidance_rescale=0.7)
    np.testing.assert_allclose(rows[1:-1, Column.GUIDANCE_RESCALE], np.where(run.table.guidance != 1, 0.7, 0))
    assert set(rows[1:-1, Column.GUIDANCE_RESCALE].round(3)) == {0, np.float32(0.7).round(3)}


@pytest.mark.parametrize(("sampler", "kept"), [("euler", 0), ("dpmpp_2m", 6), ("lms", 7)])
def test_what_no_later_evaluation_reads_is_not_kept(sampler: str, kept: int) -> None:
    rows = table_rows(run_of(sampler, 8).table)  # DPM-Solver++ 2M ends with a step of the first order
    assert rows[1:-1, Column.KEEPS_STORED].tolist() == [1.0] * kept + [0.0] * (8 - kept)


def test_no_table_is_longer_than_the_rings() -> None:
    assert max(run.table.history_weights.shape[1] for run in RUNS.values()) <= HISTORY
