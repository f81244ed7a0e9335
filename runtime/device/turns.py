"""Turns on a device: first come, first served."""

from __future__ import annotations

import threading
from collections import deque
from collections.abc import Iterator
from contextlib import contextmanager


class Turns:
    """A lock that waiting threads get in the order in which they came; the one that has it may take it again."""

    def __init__(self) -> None:
        self._guard = threading.Lock()
        self._waiting: deque[tuple[int, threading.Event]] = deque()
        self._holder: int | None = None
        self._depth = 0

    @contextmanager
    def turn(self) -> Iterator[None]:
        """Wait until it is the calling thread's turn, and pass it on at the end."""
        thread = threading.get_ident()
        if self._holder != thread:
            self._wait(thread)
        self._depth += 1
        try:
            yield
        finally:
            self._depth -= 1
            if self._depth == 0:
                self._pass_on()

    def _wait(self, thread: int) -> None:
        with self._guard:
            if self._holder is None:
                self._holder = thread
                return
            called = threading.Event()
            self._waiting.append((thread, called))
        try:
            called.wait()
        except BaseException:  # the thread was interrupted, maybe just as its turn came
            with self._guard:
                given_up = (thread, called) in self._waiting
                if given_up:
                    self._waiting.remove((thread, called))
            if not given_up:
                self._pass_on()
            raise

    def _pass_on(self) -> None:
        with self._guard:
            self._holder = None
            if self._waiting:
                self._holder, called = self._waiting.popleft()
                called.set()
