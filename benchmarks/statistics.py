"""The statistics of a report: percentiles, bootstrap intervals, ratios of neighbouring runs, signs of a noisy machine.

Intervals are percentile bootstrap intervals (Efron and Tibshirani 1993, chapter 13) from a fixed seed, so that the same
results give the same report. A bootstrap of few runs says nothing: it draws the same few again and again. So there is
an interval only where the smallest and the largest run enclose the true value with the interval's own confidence,
whatever the distribution (David and Nagaraja 2003, section 7.1): for the median from 6 runs on (5 enclose it in 93.75 %
of all cases), for p90 from 29, p95 from 59, p99 from 299. A percentile itself is given where at least one run is
expected beyond it, from 10, 20 and 100 runs on: with fewer it is the largest of them by another name.
"""

from __future__ import annotations

from collections.abc import Sequence

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
    """A statistic of some runs, with its confidence interval; both ends are None where the runs are too few for one."""

    value: float
    low: float | None = None
    high: float | None = None

    @property
    def interval(self) -> tuple[float, float] | None:
        """The interval, if there is one."""
        return None if self.low is None or self.high is None else (self.low, self.high)


class Summary(msgspec.Struct, frozen=True):
    """Runs of one kind. All values in the unit of the runs; percentiles that the runs are too few for are None."""

    runs: int
    p50: Estimate
    p90: Estimate | None
    p95: Estimate | None
    p99: Estimate | None
    min: float
    max: float

    @property
    def tail(self) -> float | None:
        """p99 over p50."""
        return None if self.p99 is None else self.p99.value / self.p50.value


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
    def significant(self) -> bool | None:
        """Whether the interval leaves out 1; None without an interval: there is no telling."""
        found = self.ratio.interval
        return None if found is None else not found[0] <= 1 <= found[1]


def summary(runs: Sequence[float]) -> Summary:
    """Percentiles of runs, each with an interval, as far as there are enough of them."""
    values = np.asarray(runs, np.float64)
    p90, p95, p99 = (_estimate(values, percent) if shows(percent, len(values)) else None for percent in (90, 95, 99))
    return Summary(len(values), _estimate(values, 50), p90, p95, p99, float(values.min()), float(values.max()))


def shows(percent: int, runs: int) -> bool:
    """Whether of so many runs at least one is expected beyond a percentile."""
    return runs * (100 - percent) >= 100


def encloses(percent: int, runs: int) -> bool:
    """Whether the smallest and the largest of so many runs have the percentile between them in ``CONFIDENCE`` of all
    cases: that not all of the runs are on the same side of it."""
    share = percent / 100
    return 1 - share**runs - (1 - share) ** runs >= CONFIDENCE


def median(runs: Sequence[float]) -> Estimate:
    """The median with its interval."""
    return _estimate(np.asarray(runs, np.float64), 50)


def paired_ratio(ours: Sequence[float], theirs: Sequence[float]) -> Estimate:
    """Median of theirs / ours over rounds in which both ran one after the other, so that both met the same machine.

    Raises:
        ValueError: different numbers of runs.
    """
    if len(ours) != len(theirs):
        raise ValueError(f"{len(ours)} runs beside {len(theirs)}: pairs need as many of both")
    return _estimate(np.asarray(theirs, np.float64) / np.asarray(ours, np.float64), 50)


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
    ratio = float(np.median(b) / np.median(a))
    if not (encloses(50, len(a)) and encloses(50, len(b))):
        return Change(Estimate(ratio))
    random = np.random.default_rng(_SEED)
    return Change(Estimate(ratio, *_bounds(_median(_resampled(b, random)) / _median(_resampled(a, random)))))


def _estimate(values: Values, percent: int) -> Estimate:
    """A percentile of values, with its interval if they are enough for one."""
    value = float(np.percentile(values, percent))
    if not encloses(percent, len(values)):
        return Estimate(value)
    resampled = _resampled(values, np.random.default_rng(_SEED))
    return Estimate(value, *_bounds(np.asarray(np.percentile(resampled, percent, axis=-1))))


def _median(values: Values) -> Values:
    return np.asarray(np.median(values, axis=-1))


def _resampled(values: Values, random: np.random.Generator) -> Values:
    """``[resamples, runs]``, drawn with replacement."""
    return values[random.integers(0, len(values), (_RESAMPLES, len(values)))]


def _bounds(statistics: Values) -> tuple[float, float]:
    outside = 50 * (1 - CONFIDENCE)
    low, high = np.percentile(statistics, (outside, 100 - outside))
    return float(low), float(high)
