"""Where the time of a call went."""

from __future__ import annotations

import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field, fields


@dataclass
class Timings:
    """Seconds per stage of one call. ``engines`` is the part of all stages that was spent inside engines."""

    tokenize: float = 0.0
    text: float = 0.0
    encode: float = 0.0
    prepare: float = 0.0
    denoise: float = 0.0
    decode: float = 0.0
    postprocess: float = 0.0
    total: float = 0.0
    engines: float = 0.0
    _inner: float = field(default=0.0, init=False, repr=False)

    @property
    def overhead(self) -> float:
        """The fraction of the call that was spent outside of the engines."""
        return 1 - self.engines / self.total if self.total else 0.0

    def as_dict(self) -> dict[str, float]:
        """Stage name to seconds."""
        return {one.name: getattr(self, one.name) for one in fields(self) if one.init}

    @contextmanager
    def call(self) -> Iterator[None]:
        """Measure the whole call."""
        start = time.perf_counter()
        try:
            yield
        finally:
            self.total += time.perf_counter() - start

    @contextmanager
    def stage(self, name: str) -> Iterator[None]:
        """Add the time of a block to a stage, without that of stages inside of it."""
        outer, self._inner = self._inner, 0.0
        start = time.perf_counter()
        try:
            yield
        finally:
            seconds = time.perf_counter() - start
            setattr(self, name, getattr(self, name) + seconds - self._inner)
            self._inner = outer + seconds

    @contextmanager
    def engine(self) -> Iterator[None]:
        """Add the time of a block to that spent inside engines."""
        start = time.perf_counter()
        try:
            yield
        finally:
            self.engines += time.perf_counter() - start
