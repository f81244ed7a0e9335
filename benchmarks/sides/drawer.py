"""What a side's module gives to the worker: a loaded program that draws."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from ..workload import Account, Accounted, Ask


@dataclass(frozen=True)
class Drawn:
    """One call's outcome: float32 latents ``[images, C, h, w]`` or PIL pictures, seconds per stage, and how this
    program writes its pictures as ``picture*.png`` into a folder."""

    stages: dict[str, float]
    pictures: list[Any]
    latents: NDArray[np.float32] | None
    save: Callable[[Path], object]


@dataclass(frozen=True)
class Drawer:
    """A loaded side. ``prepared_seconds``: its own export of the checkpoint, part of the time that loading took.
    Only LatentRT's have ``account``."""

    draw: Callable[[Ask], Drawn]
    versions: dict[str, str]
    settings: dict[str, str]
    concurrent: bool = False
    prepared_seconds: float = 0.0
    account: Callable[[Account], Accounted] | None = None
    close: Callable[[], object] = field(default=lambda: None)


def initial_latents(ask: Ask, channels: int, scale: int) -> NDArray[np.float32]:
    """Noise of unit variance that every side can draw the same: ``[images, C, height/scale, width/scale]``."""
    work = ask.workload
    shape = (work.images, channels, work.height // scale, work.width // scale)
    return np.random.default_rng(work.seed).standard_normal(shape, np.float32)
