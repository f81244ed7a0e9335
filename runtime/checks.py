"""Checks of single arguments: the value in the type the runtime works with, or an error that says what is expected."""

from __future__ import annotations

import math
from typing import Any

import numpy as np

from .errors import RequestError


def integer(name: str, value: Any, low: int, high: int | None) -> int:
    """``value`` as an int from ``low`` to ``high`` (None: no limit)."""
    expected = f"an integer from {low} to {high}" if high is not None else f"an integer of at least {low}"
    if isinstance(value, bool) or not isinstance(value, (int, np.integer)):
        raise RequestError(name, received=repr(value), expected=expected)
    if value < low or (high is not None and value > high):
        raise RequestError(name, received=value, expected=expected)
    return int(value)


def finite(name: str, value: Any) -> float:
    """``value`` as a finite float."""
    if not _is_number(value) or not math.isfinite(value):
        raise RequestError(name, received=repr(value), expected="a finite number")
    return float(value)


def fraction(name: str, value: Any, high: float = 1.0) -> float:
    """``value`` as a float from 0 to ``high``."""
    if not _is_number(value) or not 0 <= value <= high:
        raise RequestError(name, received=repr(value), expected=f"a number from 0 to {high:g}")
    return float(value)


def pair(name: str, value: Any) -> tuple[int, int]:
    """``value`` as two integers of at least 0."""
    try:
        first, second = value
    except (TypeError, ValueError):
        raise RequestError(
            name, received=repr(value), expected="two integers: (height, width) or (top, left)"
        ) from None
    return integer(name, first, 0, None), integer(name, second, 0, None)


def _is_number(value: Any) -> bool:
    return isinstance(value, (int, float, np.integer, np.floating)) and not isinstance(value, bool)
