"""Checks of single arguments: the value in the type the runtime works with, or an error that says what is expected."""

from __future__ import annotations

import contextlib
import math
import os
from collections.abc import Collection
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import DTypeLike, NDArray

from .errors import RequestError

_EXACT_IN_FLOAT32 = 2**24
_LARGEST = float(np.finfo(np.float32).max)


def boolean(name: str, value: Any) -> bool:
    """``value`` as one of the two; no other value counts as true."""
    if not isinstance(value, bool | np.bool_):
        raise RequestError(name, received=shown(value), expected="True or False")
    return bool(value)


def integer(name: str, value: Any, low: int, high: int | None) -> int:
    """``value`` as an int from ``low`` to ``high`` (None: no limit)."""
    expected = f"an integer from {low} to {high}" if high is not None else f"an integer of at least {low}"
    if isinstance(value, bool) or not isinstance(value, (int, np.integer)):
        raise RequestError(name, received=shown(value), expected=expected)
    if value < low or (high is not None and value > high):
        raise RequestError(name, received=shown(value), expected=expected)
    return int(value)


def finite(name: str, value: Any) -> float:
    """``value`` as a float that is finite in float32 too, in which runs compute."""
    if _is_number(value):
        with contextlib.suppress(OverflowError):  # an int beyond any float
            number = float(value)
            if math.isfinite(number) and abs(number) <= _LARGEST:
                return number
    raise RequestError(name, received=shown(value), expected="a finite number")


def fraction(name: str, value: Any, high: float = 1.0) -> float:
    """``value`` as a float from 0 to ``high``."""
    if not _is_number(value) or not 0 <= value <= high:
        raise RequestError(name, received=shown(value), expected=f"a number from 0 to {high:g}")
    return float(value)


def pair(name: str, value: Any) -> tuple[int, int]:
    """``value`` as two integers of at least 0 that float32, which the denoiser sees, has exactly."""
    try:
        first, second = value
    except (TypeError, ValueError):
        expected = "two integers: (height, width) or (top, left)"
        raise RequestError(name, received=shown(value), expected=expected) from None
    return integer(name, first, 0, _EXACT_IN_FLOAT32), integer(name, second, 0, _EXACT_IN_FLOAT32)


def interval(name: str, value: Any) -> tuple[float, float]:
    """``value`` as two fractions (start, stop) of the run, in order."""
    try:
        start, stop = (fraction(name, one) for one in value)
    except (TypeError, ValueError):
        start, stop = 1.0, 0.0
    if start > stop:
        expected = "(start, stop) with 0 <= start <= stop <= 1"
        raise RequestError(name, received=shown(value), expected=expected)
    return start, stop


def one_of(name: str, value: Any, choices: Collection[str]) -> str:
    """``value`` as one of the texts that there are."""
    if not isinstance(value, str) or value not in choices:
        raise RequestError(name, received=shown(value), expected=" or ".join(map(repr, choices)))
    return str(value)


def text(name: str, value: Any) -> str:
    """``value`` as a text that can be written down: lone surrogates, of which broken UTF-8 is made, cannot."""
    if not isinstance(value, str):
        raise RequestError(name, received=shown(value), expected="a string")
    if any("\ud800" <= character <= "\udfff" for character in value):
        raise RequestError(name, received=shown(value), expected="a text in Unicode, without lone surrogates")
    return str(value)


def numbers(
    name: str, value: Any, shape: tuple[int, ...] | None = None, dtype: DTypeLike | None = None
) -> NDArray[np.float32]:
    """``value``, an array of real numbers, as a contiguous one in float32, in which all have to be finite.

    Of that ``shape`` and ``dtype``; None: of any.
    """
    expected = "an array of finite " + ("numbers" if dtype is None else str(np.dtype(dtype)))
    if shape is not None:
        expected += f" {list(shape)}"
    if (
        not isinstance(value, np.ndarray)
        or value.dtype.kind not in "fiu"
        or (shape is not None and value.shape != shape)
        or (dtype is not None and value.dtype != dtype)
    ):
        raise RequestError(name, received=shown(value), expected=expected)
    with np.errstate(over="ignore"):
        array = value.astype(np.float32, order="C", copy=False)
    if not np.isfinite(array).all():
        raise RequestError(name, received="values that are not finite", expected=expected)
    return array


def path(name: str, value: Any) -> Path:
    """``value`` as the path of a file or folder, which need not exist."""
    given = os.fspath(value) if isinstance(value, str | os.PathLike) else None
    if not isinstance(given, str) or "\0" in given:
        raise RequestError(name, received=shown(value), expected="a path")
    return Path(given)


def shown(value: object) -> str:
    """A value in a line of an error message: arrays by their type and shape, anything else as its cut ``repr``."""
    if isinstance(value, np.ndarray):
        return f"an array, {value.dtype} {list(value.shape)}"
    return repr(value).replace("\n", " ")[:80]


def _is_number(value: Any) -> bool:
    return isinstance(value, (int, float, np.integer, np.floating)) and not isinstance(value, bool)
