"""The statistics of a report: percentiles, bootstrap intervals, ratios of neighbouring runs, signs of a noisy machine.

Intervals are percentile bootstrap intervals (Efron and Tibshirani 1993, chapter 13) from a fixed seed, so that the same
results give the same report.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from functools import partial

import msgspec
import numpy as np
from numpy.typing import NDArray

CONFIDENCE = 0.95
_RESAMPLES = 2000
_SEED = 0

#: A machine is called noisy where the reference's own runs spread (half of them, relative to the median), or their
#: medians move between the first and the second half of the measurement, by more than this.
NOISE_LIMIT = 0.1

Values = NDArray[np.float64]


class Estimate(msgspec.Struct, frozen=True):
    """A statistic of some runs, with its confidence interval."""

    value: float
    low: float
    high: float


class Summary(msgspec.Struct, frozen=True):
    """Runs of one kind. All values in the unit of the runs."""

    runs: int
    p50: Estimate
    p90: Estimate
    p95: Estimate
    p99: Estimate
    min: float
    max: float

    @property
    def tail(self) -> float:
        """p99 over p50."""
        return self.p99.value / self.p50.value


class Noise(msgspec.Struct, frozen=True):
    """How much the reference differs from itself: relative interquartile range, and drift between its two halves."""

    spread: float
    drift: float

    @property
    def noisy(self) -> bool:
        """Whether figures of this run are to be read with care."""
        return max(self.spread, abs(self.drift)) > NOISE_LIMIT


class Change(msgspec.Struct, frozen=True):
    """New over old, of two independent sets of runs."""

    ratio: Estimate

    @property
    def significant(self) -> bool:
        """Whether the interval leaves out 1."""
        return not self.ratio.low <= 1 <= self.ratio.high


def summary(runs: Sequence[float]) -> Summary:
    """Percentiles of runs, each with an interval. With few runs, p99 is little more than the slowest of them."""
    values = np.asarray(runs, np.float64)
    p50, p90, p95, p99 = (estimate(values, partial(_percentile, percent)) for percent in (50, 90, 95, 99))
    return Summary(len(values), p50, p90, p95, p99, float(values.min()), float(values.max()))


def median(runs: Sequence[float]) -> Estimate:
    """The median with its interval."""
    return estimate(np.asarray(runs, np.float64), _median)


def paired_ratio(ours: Sequence[float], theirs: Sequence[float]) -> Estimate:
    """Median of theirs / ours over rounds in which both ran one after the other, so that both met the same machine.

    Raises:
        ValueError: different numbers of runs.
    """
    if len(ours) != len(theirs):
        raise ValueError(f"{len(ours)} runs beside {len(theirs)}: pairs need as many of both")
    return estimate(np.asarray(theirs, np.float64) / np.asarray(ours, np.float64), _median)


def noise(reference: Sequence[float]) -> Noise:
    """How steady the reference's runs were, in the order in which they were made."""
    values = np.asarray(reference, np.float64)
    low, middle, high = np.percentile(values, (25, 50, 75))
    half = len(values) // 2
    drift = np.median(values[half:]) / np.median(values[:half]) - 1 if half else 0.0
    return Noise(float((high - low) / middle), float(drift))


def change(old: Sequence[float], new: Sequence[float]) -> Change:
    """Ratio of the medians of two sets of runs that were not made side by side."""
    a, b = np.asarray(old, np.float64), np.asarray(new, np.float64)
    random = np.random.default_rng(_SEED)
    ratios = _median(_resampled(b, random)) / _median(_resampled(a, random))
    low, high = _bounds(ratios)
    return Change(Estimate(float(np.median(b) / np.median(a)), low, high))


def estimate(values: Values, statistic: Callable[[Values], Values]) -> Estimate:
    """``statistic`` of values, which it takes along the last axis, with its interval."""
    low, high = _bounds(statistic(_resampled(values, np.random.default_rng(_SEED))))
    return Estimate(float(statistic(values)), low, high)


def _percentile(percent: float, values: Values) -> Values:
    return np.asarray(np.percentile(values, percent, axis=-1))


def _median(values: Values) -> Values:
    return np.asarray(np.median(values, axis=-1))


def _resampled(values: Values, random: np.random.Generator) -> Values:
    """``[resamples, runs]``, drawn with replacement."""
    return values[random.integers(0, len(values), (_RESAMPLES, len(values)))]


def _bounds(statistics: Values) -> tuple[float, float]:
    outside = 50 * (1 - CONFIDENCE)
    low, high = np.percentile(statistics, (outside, 100 - outside))
    return float(low), float(high)
