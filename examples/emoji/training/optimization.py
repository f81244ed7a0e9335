"""What the three training loops share: seeds, a scheduled loop, one descent step, and the log line."""

from __future__ import annotations

import math
import random
import time
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field

import numpy as np
import torch


def seed_all(seed: int) -> None:
    """Seed Python, numpy and torch."""
    random.seed(seed)
    np.random.seed(seed)
    torch.manual_seed(seed)


def autocast(enabled: bool) -> torch.autocast:
    """bfloat16 autocast on the CPU."""
    return torch.autocast("cpu", torch.bfloat16, enabled=enabled)


def parameter_count(module: torch.nn.Module) -> str:
    """`5.65 M parameters`."""
    return f"{sum(parameter.numel() for parameter in module.parameters()) / 1e6:.2f} M parameters"


def scheduled_steps(
    optimizer: torch.optim.Optimizer, peak: float, steps: int, minutes: float, warmup: int
) -> Iterator[tuple[int, float]]:
    """Count the steps while the learning rate warms up linearly to `peak`, then falls to zero as a cosine.

    Yields (step from 1, share of the run that it completes); ends after `steps` or `minutes`, whichever comes first.
    """
    start = time.monotonic()

    def progress(done: int) -> float:
        return max(done / steps, (time.monotonic() - start) / (minutes * 60))

    done = 0
    while (now := progress(done)) < 1:
        factor = min(1.0, (done + 1) / warmup) * 0.5 * (1 + math.cos(math.pi * now))
        for group in optimizer.param_groups:
            group["lr"] = peak * factor
        done += 1
        yield done, progress(done)


def descend(loss: torch.Tensor, optimizer: torch.optim.Optimizer, parameters: Sequence[torch.nn.Parameter]) -> None:
    """One optimizer step, with the gradient's norm cut to 1."""
    optimizer.zero_grad(set_to_none=True)
    loss.backward()
    torch.nn.utils.clip_grad_norm_(parameters, 1.0)
    optimizer.step()


@dataclass
class Meter:
    """A running mean, and the speed since the last time it was read."""

    decay: float
    mean: float = math.nan
    start: float = field(default_factory=time.monotonic)
    mark: float = field(default_factory=time.monotonic)
    pictures: int = 0

    def update(self, value: float, pictures: int) -> None:
        """Take in one step's value and the number of pictures it used."""
        self.mean = value if math.isnan(self.mean) else self.decay * self.mean + (1 - self.decay) * value
        self.pictures += pictures

    def speed(self) -> str:
        """Pictures a second since the last call, and the seconds since the start."""
        now = time.monotonic()
        text = f"{self.pictures / (now - self.mark):.1f} pictures/s {now - self.start:.0f} s"
        self.pictures, self.mark = 0, now
        return text
