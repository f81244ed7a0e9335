"""Which generator a picture's noise comes from, by name."""

from __future__ import annotations

from collections.abc import Sequence

from ..device.runner import DeviceRunner
from .philox import PhiloxNoise
from .torch_cpu import NoiseSource, TorchCpuNoise

TORCH_CPU, PHILOX = "torch-cpu", "philox"

#: What ``torch.Generator("cpu")`` draws, and what ``torch.Generator("cuda")`` does.
GENERATORS = (TORCH_CPU, PHILOX)


def noise_sources(generator: str, seeds: Sequence[int], runner: DeviceRunner) -> list[NoiseSource]:
    """The stream of each seed, of one of ``GENERATORS``; ``runner`` draws where the generator is a GPU's."""
    if generator == TORCH_CPU:
        return [TorchCpuNoise(seed) for seed in seeds]
    return [PhiloxNoise(seed, runner) for seed in seeds]
