"""Gaussian noise equal to PyTorch's on an NVIDIA GPU, drawn by the device that a pipeline runs on.

What a GPU draws for a seed depends on how many threads it runs at once, from the first value on that does not fit them
(``kernels.philox``). The noise here is that of GPUs which hold all values of a picture's latents at once: of pictures
up to SDXL's 1024 x 1024 (65536 values) that is every data-centre and most consumer cards since 2020; of SD3's
1024 x 1024 (262144 values) an H100 or larger. So a seed gives one picture, wherever it is drawn.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from contextlib import AbstractContextManager

import numpy as np
from numpy.typing import NDArray

from ...kernels.philox import calls_for, threads_for
from ..device.interface import Buffer, Device, Launch
from ..device.memory import Memory
from ..device.runner import DeviceRunner


class PhiloxNoise:
    """The stream of ``torch.Generator("cuda").manual_seed(seed)`` under ``torch.randn(..., dtype=torch.float32)``."""

    def __init__(self, seed: int, runner: DeviceRunner):
        self.seed = seed
        self._runner = runner
        self._calls = 0

    def randn(self, shape: Sequence[int]) -> NDArray[np.float32]:
        """The next ``prod(shape)`` values, float32, in ``shape``; the host's are within 4e-6 of a GPU's (fast sine)."""
        count = math.prod(shape)
        with self._runner.turn(), _plan(self._runner, count) as plan:
            values = plan.draw(self.seed, self.skip(shape, 1))
        return values.reshape(tuple(shape))

    def skip(self, shape: Sequence[int], draws: int) -> int:
        """Leave the next tensors of a shape to somebody else; returns the number of the first, counted in such tensors.

        All tensors of a stream have to be of one size.
        """
        count = math.prod(shape)
        calls = calls_for(count, threads_for(count))
        first, rest = divmod(self._calls, calls)
        assert rest == 0
        self._calls += draws * calls
        return first


def philox_launch(device: Device, noise: Buffer, seeds: Buffer, draws: Buffer) -> Launch:
    """The kernel ``philox_normal``: what ``draws`` asks for, of every slot.

    Args:
        device: theirs.
        noise: float32 ``[slots, ring, count]``: draw i of a slot goes to i % ring.
        seeds: int64 ``[slots]``, the 64 bits of torch's seed.
        draws: int32 ``[slots]``: the number of the draw, counted in tensors of ``count`` values; -1 makes none.
    """
    slots, ring, count = noise.shape
    threads = threads_for(count)
    calls = calls_for(count, threads)
    arguments: dict[str, Buffer | int] = {"noise": noise, "seeds": seeds, "draws": draws}
    numbers = {"count": count, "threads": threads, "calls": calls, "ring": ring}
    return device.bind("philox_normal", arguments | numbers, elements=threads * calls, outer=slots)


def seed_words(seeds: Sequence[int]) -> NDArray[np.int64]:
    """Seeds as the kernel takes them: 64 bits each."""
    return np.array([seed & (1 << 64) - 1 for seed in seeds], np.uint64).view(np.int64)


def warm_noise(runner: DeviceRunner, count: int) -> None:
    """Prepare draws of ``count`` values."""
    with runner.turn(), _plan(runner, count):
        pass


class NoisePlan:
    """The buffers of one draw of one size."""

    def __init__(self, device: Device, count: int):
        self._stream = device.stream
        self._memory = Memory(device)
        with self._memory.filled():
            self._noise = self._memory.staged((1, 1, count), np.float32)
            self._seed = self._memory.staged((1,), np.int64)
            self._draw = self._memory.staged((1,), np.int32)
            self._launch = philox_launch(device, self._noise.buffer, self._seed.buffer, self._draw.buffer)

    def __str__(self) -> str:
        return f"noise of {self._noise.array.size} values"

    @property
    def nbytes(self) -> int:
        return self._memory.nbytes

    def draw(self, seed: int, number: int) -> NDArray[np.float32]:
        """Draw ``number`` of a seed's stream, counted in tensors of this size: a new array ``[count]``."""
        self._seed.upload(seed_words([seed]))
        self._draw.upload(number)
        self._stream.launch(self._launch)
        values = self._noise.download()
        self._stream.synchronize()
        return values.reshape(-1).copy()

    def close(self) -> None:
        self._memory.close()


def _plan(runner: DeviceRunner, count: int) -> AbstractContextManager[NoisePlan]:
    return runner.plan(("philox_normal", count), lambda: NoisePlan(runner.device, count))
