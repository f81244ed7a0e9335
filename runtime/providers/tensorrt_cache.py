"""Kernels that TensorRT-RTX compiled on this machine, kept for the next process.

An engine of TensorRT-RTX is finished where it runs: kernels are compiled for the GPU when a shape is first run. What
was compiled lies in ``$XDG_CACHE_HOME/latentrt``, in a folder for the library's version and the GPU, in a file for each
engine.
"""

from __future__ import annotations

import hashlib
import logging
import os
import re
import threading
from pathlib import Path
from typing import Any

from ..whole_files import write_whole

logger = logging.getLogger(__name__)


def cache_path(library: str, version: str, gpu: str, engine_sha256: str) -> Path:
    """Where an engine's kernels are kept. ``gpu`` is the device's name."""
    home = os.environ.get("XDG_CACHE_HOME", "")
    folder = Path(home) if Path(home).is_absolute() else Path("~/.cache").expanduser()
    named = re.sub(r"[^A-Za-z0-9]+", "-", gpu).strip("-")
    return folder / "latentrt" / f"{library}-{version}" / named / f"{engine_sha256[:16]}.cache"


class RuntimeCache:
    """One engine's cache: the library's ``IRuntimeCache``, filled from a file and written back when it has grown.

    A file that cannot be read, used or written costs time, and nothing else.
    """

    def __init__(self, cache: Any, path: Path):
        self.cache = cache
        self._path = path
        self._saving = threading.Lock()
        self._kept = b""  # the digest of what the file holds
        try:
            data = path.read_bytes()
        except OSError:
            return
        if cache.deserialize(data):
            self._kept = hashlib.sha256(data).digest()
        else:
            logger.info("%s is of another machine or driver; kernels are compiled again", path)

    def save(self) -> None:
        """Write the file, whole or not at all, if there is something new to keep."""
        with self._saving:
            serialized = self.cache.serialize()
            if serialized is None:
                return
            data = bytes(serialized)
            digest = hashlib.sha256(data).digest()
            if digest == self._kept:
                return
            self._kept = digest
            try:
                self._path.parent.mkdir(parents=True, exist_ok=True)
                write_whole(self._path, data)
            except OSError as error:
                logger.warning("%s: compiled kernels are not kept: %s", self._path, error.strerror or error)
