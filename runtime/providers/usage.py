"""Calls that are inside of an engine, and closing it when they have left."""

from __future__ import annotations

import threading

from ..errors import EngineError


class Usage:
    """``with usage:`` around every call of an engine. Closing waits for the calls inside, and refuses those after it.

    Raises:
        EngineError: entered after ``close``.
    """

    def __init__(self, component: str):
        self._component = component
        self._changed = threading.Condition()
        self._inside = 0
        self._closed = False

    def __enter__(self) -> None:
        with self._changed:
            if self._closed:
                raise EngineError(f"{self._component}: the engine is closed", remedy="load the bundle again")
            self._inside += 1

    def __exit__(self, *_: object) -> None:
        with self._changed:
            self._inside -= 1
            self._changed.notify_all()

    def close(self) -> None:
        """Let nobody in any more, and wait until everybody has left."""
        with self._changed:
            self._closed = True
            self._changed.wait_for(lambda: self._inside == 0)
