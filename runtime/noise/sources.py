"""Which generator a picture's noise comes from, by name."""

from __future__ import annotations

from collections.abc import Callable

from .philox import PhiloxNoise
from .torch_cpu import NoiseSource, TorchCpuNoise

TORCH_CPU = "torch-cpu"

#: Name -> the stream of a seed: what ``torch.Generator("cpu")`` draws, and what ``torch.Generator("cuda")`` does.
GENERATORS: dict[str, Callable[[int], NoiseSource]] = {TORCH_CPU: TorchCpuNoise, "philox": PhiloxNoise}
