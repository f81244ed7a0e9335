"""Fixtures of the benchmarks' tests."""

from __future__ import annotations

import pytest

from latentrt.benchmarks.results import Results

from .small_results import results_with


@pytest.fixture(scope="session")
def results() -> Results:
    """The small result."""
    return results_with()
