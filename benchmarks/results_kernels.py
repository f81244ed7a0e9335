"""What ``results.json`` has of a GPU's kernels."""

from __future__ import annotations

import msgspec

from .workload import Kernel


class StepKernels(msgspec.Struct, frozen=True, tag=True):
    """One denoising step of a side on the GPU: ``seconds`` from one to the next, ``busy`` of them in kernels, which are
    ``kernels``, the longest first, and ``others`` that are not named."""

    side: str
    case: str
    seconds: float
    busy_seconds: float
    kernels: tuple[Kernel, ...]
    others: int


class Operated(msgspec.Struct, frozen=True, tag=True):
    """One operation on its own, at one shape: ``by`` whom, the ``bytes`` that it must read and write, and how long."""

    what: str
    by: str
    shape: str
    bytes: int
    seconds: float
