"""A sheet of labelled pictures. Pillow only."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import numpy as np
from PIL import Image, ImageDraw

GAP = 8  # pixels between pictures
LABEL_HEIGHT = 18
LABEL_LENGTH = 22  # characters a line

SHEET_PROMPTS = (
    *("a fox", "a red apple on a white background", "rocket", "a pizza on a blue background", "a panda"),
    *("a grinning face", "a cat face on a green background", "a dog face on a pink background", "an owl"),
    *("a butterfly on a yellow background", "a cactus on an orange background", "a rainbow on a black background"),
    *("a hamburger", "a strawberry on a purple background", "a sailboat on a blue background", "a castle"),
    *("a car on a gray background", "a bicycle", "a soccer ball on a green background"),
    *("a guitar on a black background", "a crown on a purple background", "books"),
    *("a robot on a yellow background", "a ghost on a black background", "a penguin on a blue background"),
    *("an octopus", "a sunflower on a white background", "a mushroom on a green background", "a birthday cake"),
    *("an umbrella on a gray background", "face with sunglasses", "an alien on a red background"),
    *("a pumpkin on a black background", "a dinosaur on an orange background"),
    *("a tropical fish on a blue background", "santa claus"),
)


def write_contact_sheet(images: Sequence[np.ndarray], labels: Sequence[str], columns: int, path: Path) -> None:
    """Write uint8 [height, width, 3] images of one size, row by row, each above its label of at most two lines."""
    height, width = images[0].shape[:2]
    rows = -(-len(images) // columns)
    step_x, step_y = width + GAP, height + GAP + LABEL_HEIGHT
    sheet = Image.new("RGB", (columns * step_x + GAP, rows * step_y + GAP), "white")
    draw = ImageDraw.Draw(sheet)
    for i, (image, label) in enumerate(zip(images, labels, strict=True)):
        x, y = GAP + i % columns * step_x, GAP + i // columns * step_y
        sheet.paste(Image.fromarray(image), (x, y))
        if len(label) > LABEL_LENGTH:
            space = label.rfind(" ", 0, LABEL_LENGTH + 1)
            label = label[:space] + "\n" + label[space + 1 :]
        draw.multiline_text((x, y + height), label, fill="black", font_size=9, spacing=0)
    sheet.save(path, optimize=True)
