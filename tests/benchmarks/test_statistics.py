"""Statistics against values that can be worked out by hand, and what intervals promise."""

from __future__ import annotations

import numpy as np
import pytest

from latentrt.benchmarks.statistics import change, median, noise, paired_ratio, summary


def test_percentiles_of_known_runs() -> None:
    figures = summary([float(i) for i in range(1, 102)])
    assert [found and found.value for found in (figures.p50, figures.p90, figures.p99)] == [51, 91, 100]
    assert (figures.runs, figures.min, figures.max) == (101, 1, 101)
    assert figures.tail == pytest.approx(100 / 51)


@pytest.mark.parametrize(
    ("runs", "shown", "enclosed"),
    [
        (1, {50}, set()),
        (5, {50}, set()),
        (6, {50}, {50}),
        (10, {50, 90}, {50}),
        (25, {50, 90, 95}, {50}),
        (29, {50, 90, 95}, {50, 90}),
        (100, {50, 90, 95, 99}, {50, 90, 95}),
        (299, {50, 90, 95, 99}, {50, 90, 95, 99}),
    ],
)
def test_no_percentile_and_no_interval_beyond_what_the_runs_can_show(
    runs: int, shown: set[int], enclosed: set[int]
) -> None:
    figures = summary([float(i) for i in range(runs)])
    told = {50: figures.p50, 90: figures.p90, 95: figures.p95, 99: figures.p99}
    assert {percent for percent, found in told.items() if found is not None} == shown
    assert {percent for percent, found in told.items() if found is not None and found.interval} == enclosed
    assert (figures.tail is None) == (99 not in shown)


def test_intervals_hold_the_median_as_often_as_they_say() -> None:
    random = np.random.default_rng(1)
    held = 0
    for _ in range(100):
        found = median(random.normal(10, 1, 30).tolist())
        assert found.interval is not None
        held += found.interval[0] <= 10 <= found.interval[1]
    assert 88 <= held <= 100


def test_the_same_runs_give_the_same_interval() -> None:
    runs = [0.1, 0.12, 0.11, 0.14, 0.13, 0.1]
    assert median(runs) == median(runs)


def test_a_ratio_is_of_neighbours_so_that_a_drift_of_the_machine_cancels() -> None:
    ours = [1.0, 2.0, 4.0, 4.0, 5.0, 7.0]
    ratio = paired_ratio(ours, [3 * value for value in ours])
    assert (ratio.value, ratio.low, ratio.high) == (3, 3, 3)


def test_pairs_need_as_many_of_both() -> None:
    with pytest.raises(ValueError, match="2 runs beside 1"):
        paired_ratio([1.0, 2.0], [1.0])


def test_a_steady_reference_is_not_noisy_and_a_spread_or_drifting_one_is() -> None:
    assert not noise([1.0, 1.01, 0.99, 1.0, 1.02, 0.98]).noisy
    assert noise([1.0, 2.0, 1.0, 2.0, 1.0, 2.0]).noisy
    assert noise([1.0, 1.0, 1.0, 1.2, 1.2, 1.2]).drift == pytest.approx(0.2)


def test_a_change_is_significant_only_beyond_chance() -> None:
    random = np.random.default_rng(2)
    before, same, slower = (random.normal(mean, 0.02, 20).tolist() for mean in (1.0, 1.0, 1.2))
    assert not change(before, same).significant
    assert change(before, slower).significant
    assert change(before, slower).ratio.value == pytest.approx(1.2, abs=0.05)
    assert change(before, slower[:5]).significant is None
