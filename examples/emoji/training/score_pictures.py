"""Measure a folder of PNG files that any program made from the checkpoint's prompts. numpy and Pillow only.

    python examples/emoji/training/score_pictures.py build/pictures

A file is named after what it should show: "fox.png", or "fox on blue.png" where the prompt named a background colour.
An underscore counts as a space. Prints one JSON object; `retrieval.py` says what its numbers mean.
"""

from __future__ import annotations

import json
import sys
from pathlib import Path

import numpy as np
from PIL import Image

from retrieval import measure
from vocabulary import COLORS, NAMES


def expected_content(path: Path) -> tuple[str, str | None]:
    """Name and background colour from a file name. Raises `ValueError` for words outside the vocabulary."""
    name, separator, color = path.stem.replace("_", " ").partition(" on ")
    if name not in NAMES or (separator and color not in COLORS):
        raise ValueError(
            f'{path.name} names no picture of the vocabulary: expected "NAME.png" or "NAME on COLOR.png", '
            "with the names and background colours of prompts.json"
        )
    return name, color or None


def read_image(path: Path) -> np.ndarray:
    """uint8 [height, width, 3]."""
    with Image.open(path) as image:
        return np.asarray(image.convert("RGB"))


def main() -> None:
    if len(sys.argv) != 2:
        sys.exit(f"usage: {sys.argv[0]} FOLDER")
    paths = sorted(Path(sys.argv[1]).glob("*.png"))
    if not paths:
        sys.exit(f"no .png file in {sys.argv[1]}")
    try:
        contents = [expected_content(path) for path in paths]
    except ValueError as error:
        sys.exit(str(error))
    images = [read_image(path) for path in paths]
    colors = [color for _, color in contents if color]
    # the background is measured only where every file names one
    print(json.dumps(measure(images, [name for name, _ in contents], colors if len(colors) == len(paths) else None)))


if __name__ == "__main__":
    main()
