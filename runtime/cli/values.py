"""Texts of the command line as values: sizes, intervals, settings, pictures."""

from __future__ import annotations

import re
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from ..errors import RequestError

if TYPE_CHECKING:
    from PIL import Image

Value = bool | int | float | str | list[float] | None

_WORDS: dict[str, Value] = {"true": True, "false": False, "none": None}


def size_from_text(text: str) -> tuple[int, int]:
    """``"1152x896"`` -> (1152, 896), (width, height).

    Raises:
        RequestError: anything else.
    """
    match = re.fullmatch(r"([0-9]{1,9})x([0-9]{1,9})", text.lower())
    if match is None:
        raise RequestError("--size", received=text, expected="WIDTHxHEIGHT, for example 1152x896")
    return int(match[1]), int(match[2])


def interval_from_text(text: str) -> tuple[float, float]:
    """``"0.1:0.8"`` -> (0.1, 0.8).

    Raises:
        RequestError: anything else.
    """
    start, stop = (_number(part) for part in [*text.split(":"), ""][:2])
    if start is None or stop is None or text.count(":") != 1:
        raise RequestError("--guidance-interval", received=text, expected="START:STOP, for example 0.1:0.8")
    return float(start), float(stop)


def options_from_texts(texts: Sequence[str]) -> dict[str, Value]:
    """``["eta=0.5", "timesteps=999,500,0"]`` -> ``{"eta": 0.5, "timesteps": [999, 500, 0]}``.

    A value is a number, numbers with commas between them, true, false, none, or a text.

    Raises:
        RequestError: no ``=``, or a name twice.
    """
    options: dict[str, Value] = {}
    for text in texts:
        name, equals, value = (part.strip() for part in text.partition("="))
        if not name or not equals or name in options:
            expected = "NAME=VALUE, each name once, for example eta=0.5 or timesteps=999,500,0"
            raise RequestError("--option", received=text, expected=expected)
        options[name] = _value(value)
    return options


def picture_from_file(option: str, path: Path) -> Image.Image:
    """The picture in a file, turned the way its camera says it is to be seen.

    Raises:
        RequestError: no readable picture there.
    """
    from PIL import Image, ImageOps, UnidentifiedImageError

    try:
        with Image.open(path) as image:
            return ImageOps.exif_transpose(image)
    except (OSError, SyntaxError, UnidentifiedImageError, Image.DecompressionBombError) as error:
        reason = "no such file" if isinstance(error, FileNotFoundError) else "a file that is no picture"
        raise RequestError(option, received=f"{path}: {reason}", expected="a PNG, JPEG or WebP file") from None


def _value(text: str) -> Value:
    if text.lower() in _WORDS:
        return _WORDS[text.lower()]
    number = _number(text)
    if number is not None:
        return number
    numbers = [_number(part) for part in text.split(",")]
    listed = [one for one in numbers if one is not None]
    return listed if len(listed) == len(numbers) else text


def _number(text: str) -> int | float | None:
    for kind in (int, float):
        try:
            return kind(text)
        except ValueError:
            continue
    return None
