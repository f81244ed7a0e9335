"""The work that both sides of a comparison do, and what one run of it is measured to take."""

from __future__ import annotations

import msgspec


class Workload(msgspec.Struct, frozen=True):
    """One picture: the same prompt, size, steps, guidance and seed on both sides."""

    prompt: str
    width: int
    height: int
    num_inference_steps: int
    guidance_scale: float
    seed: int
    threads: int


class Loaded(msgspec.Struct, frozen=True):
    """What a worker says once, when it is ready: seconds from its start to being loaded, and what it runs."""

    seconds: float
    versions: dict[str, str]


class Run(msgspec.Struct, frozen=True):
    """What a worker says after each run. ``stages`` are seconds; ``peak_bytes`` is the process's so far."""

    seconds: float
    stages: dict[str, float]
    peak_bytes: int
    picture: str  # base64 of the PNG, so that the driver can check that both sides drew the same
