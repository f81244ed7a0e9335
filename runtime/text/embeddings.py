"""Encoded texts, kept for the next call with the same texts."""

from __future__ import annotations

import threading
from collections import OrderedDict
from collections.abc import Callable, Hashable, Mapping
from typing import Any

import numpy as np
from numpy.typing import NDArray

Outputs = dict[str, NDArray[Any]]

#: What tells one text encoder from others, and the bytes of a text's token ids.
Key = tuple[Hashable, bytes]

#: Runs a text encoder on ``input_ids [texts, tokens]``.
RunEncoder = Callable[[NDArray[np.int64]], Mapping[str, NDArray[Any]]]


class EmbeddingsCache:
    """The outputs of text encoders by their token ids: at most ``limit`` bytes, the least recently used go first.

    Safe to use from several threads.
    """

    def __init__(self, limit: int):
        self._limit = limit
        self._held: OrderedDict[Key, Outputs] = OrderedDict()
        self._bytes = 0
        self._changing = threading.Lock()

    @property
    def nbytes(self) -> int:
        """Bytes of what is held."""
        return self._bytes

    def encode(self, encoder: Hashable, ids: NDArray[np.int64], run: RunEncoder) -> Outputs:
        """An encoder's outputs ``[texts, ...]`` for ``ids [texts, tokens]``; it runs on those not held, each alone.

        Alone, because what a text gives must not depend on the texts that happened to be encoded with it.
        """
        rows = []
        for row in ids:
            key = (encoder, row.tobytes())
            outputs = self._get(key)
            if outputs is None:
                outputs = {name: value[0] for name, value in run(row[np.newaxis]).items()}
                self._put(key, outputs)
            rows.append(outputs)
        return {name: np.stack([outputs[name] for outputs in rows]) for name in rows[0]}

    def _get(self, key: Key) -> Outputs | None:
        with self._changing:
            if key in self._held:
                self._held.move_to_end(key)
            return self._held.get(key)

    def _put(self, key: Key, outputs: Outputs) -> None:
        with self._changing:
            if key in self._held or _size(key, outputs) > self._limit:  # another thread was first, or it never fits
                return
            self._held[key] = outputs
            self._bytes += _size(key, outputs)
            while self._bytes > self._limit:
                self._bytes -= _size(*self._held.popitem(last=False))


def _size(key: Key, outputs: Outputs) -> int:
    return len(key[1]) + sum(value.nbytes for value in outputs.values())
