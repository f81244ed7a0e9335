"""GPU memory of one process, by what the driver says is in use (NVML, which comes with it and needs no CUDA context).

The driver tells what all processes have together, so the others must not change theirs meanwhile: sides that take turns
do not. It counts what is taken from the GPU, the CUDA context and what allocators keep for later included. In a machine
with GPUs of several kinds, NVML and CUDA number them alike only with CUDA_DEVICE_ORDER=PCI_BUS_ID.
"""

from __future__ import annotations

import ctypes
import functools
import os
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

_LIBRARY = "libnvidia-ml.so.1"

#: Seconds between two questions while a call is watched.
_PERIOD = 0.002


class _Memory(ctypes.Structure):
    """``nvmlMemory_t``, in bytes."""

    _fields_ = (("total", ctypes.c_ulonglong), ("free", ctypes.c_ulonglong), ("used", ctypes.c_ulonglong))


class DeviceMemory:
    """What this process has: ``own`` bytes now, ``peak`` in the last block that was watched; 0 without a GPU."""

    def __init__(self) -> None:
        self.own = 0
        self.peak = 0

    @contextmanager
    def counted(self, *, watch: bool = False) -> Iterator[None]:
        """Count what a block takes and keeps, and if watched also the most that it had."""
        before = used_bytes()
        seen = [before]
        done = threading.Event()
        watcher = threading.Thread(target=_watch, args=(seen, done))
        if watch and before:
            watcher.start()
        try:
            yield
        finally:
            done.set()
            if watcher.ident is not None:
                watcher.join()
            after = used_bytes()
            self.peak = self.own + max(*seen, after) - before if watch else 0
            self.own += after - before


def _watch(seen: list[int], done: threading.Event) -> None:
    while not done.wait(_PERIOD):
        seen[0] = max(seen[0], used_bytes())


def used_bytes() -> int:
    """Bytes in use on the GPU that this process sees first; 0 where the driver has none."""
    found = _gpu()
    if found is None:
        return 0
    library, handle = found
    memory = _Memory()
    return 0 if library.nvmlDeviceGetMemoryInfo(handle, ctypes.byref(memory)) else int(memory.used)


@functools.cache
def _gpu() -> tuple[Any, ctypes.c_void_p] | None:
    """The library and the GPU's handle in it, or None."""
    try:
        library = ctypes.CDLL(_LIBRARY)
    except OSError:
        return None
    handle = ctypes.c_void_p()
    visible = os.environ.get("CUDA_VISIBLE_DEVICES", "0").partition(",")[0].strip()
    if library.nvmlInit_v2():
        return None
    if visible.isdecimal():
        failed = library.nvmlDeviceGetHandleByIndex_v2(int(visible), ctypes.byref(handle))
    else:
        failed = library.nvmlDeviceGetHandleByUUID(visible.encode(), ctypes.byref(handle))
    return None if failed else (library, handle)
