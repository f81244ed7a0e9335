"""Reads the linear map of a diffusers scheduler by running it on basis vectors."""

from __future__ import annotations

import contextlib
import copy
import sys
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from functools import lru_cache
from unittest.mock import patch

import diffusers
import numpy as np
import torch
from numpy.typing import NDArray


@dataclass(frozen=True)
class Probed:
    """What a diffusers scheduler does: the same quantities as a SamplerTable's, float64."""

    states: NDArray[np.float64]  # [E + 1, 1 + E + M]: initial state, model outputs, noises
    timesteps: NDArray[np.float64]  # [E]
    whole_timesteps: bool
    input_scale: NDArray[np.float64]  # [E]
    draws_noise: NDArray[np.bool_]  # [E]
    initial_noise_scale: float
    start: tuple[float, float]  # signal and noise of an image-to-image start


class DoubleTorch:
    """The torch module with float64 in place of float32."""

    float32 = torch.float64

    def __getattr__(self, name: str) -> object:
        return getattr(torch, name)

    @staticmethod
    def from_numpy(array: NDArray[np.generic]) -> torch.Tensor:
        tensor = torch.from_numpy(array)
        return tensor.double() if tensor.dtype == torch.float32 else tensor


def make(class_name: str, config: Mapping[str, object]):
    """A new diffusers scheduler, copied: some lay out a thousand steps in their constructor, which takes 0.1 s."""
    return copy.deepcopy(_made(class_name, tuple((name, repr(value)) for name, value in config.items())))


@lru_cache(maxsize=8)
def _made(class_name: str, fields: tuple[tuple[str, str], ...]):
    names = {"inf": float("inf")}
    return getattr(diffusers, class_name)(**{name: eval(value, names) for name, value in fields if name[0] != "_"})


@contextlib.contextmanager
def double_arithmetic(made, alphas_cumprod: NDArray[np.float64]) -> Iterator[None]:
    """Lets a scheduler compute in float64: its formulas without its rounding.

    ``alphas_cumprod`` are the float32 values that both sides start from; see ``keep_sigmas_float32`` for the other.
    """
    if hasattr(made, "alphas_cumprod"):
        floored = float(made.alphas_cumprod[-1]) > 0  # most schedulers put 2^-24 in place of a zero terminal SNR
        made.alphas_cumprod = torch.tensor(np.where(alphas_cumprod > 0, alphas_cumprod, 2.0**-24 * floored))
        if hasattr(made, "final_alpha_cumprod") and made.final_alpha_cumprod != 1:
            made.final_alpha_cumprod = made.alphas_cumprod[0]
    torch.set_default_dtype(torch.float64)
    try:
        with patch.object(sys.modules[type(made).__module__], "torch", DoubleTorch()):
            yield
    finally:
        torch.set_default_dtype(torch.float32)


def keep_sigmas_float32(made) -> None:
    """Rounds the sigmas of a scheduler that computes in float64, as its tables do in any arithmetic.

    Most schedulers round theirs in numpy, and have done so already; EDM's and those of flow matching do it in torch.
    """
    if isinstance(getattr(made, "sigmas", None), torch.Tensor):
        made.sigmas = made.sigmas.float().double()


def probe(made, *, begin: int = 0, count: int | None = None, **step_options: object) -> Probed:
    """Run ``made`` over its timesteps (``count`` of them from ``begin``) on one-hot states, outputs and noises.

    The batch axis is the basis: element 0 the initial state, then one per model output, then one per noise.
    """
    timesteps = made.timesteps[begin:][:count]
    evaluations = len(timesteps)
    width = 1 + 3 * evaluations
    if hasattr(made, "set_begin_index"):
        made.set_begin_index(begin)

    def basis(index: int) -> torch.Tensor:
        vector = torch.zeros(width, 1, 1, 1)
        vector[index] = 1.0
        return vector

    drawn_in: list[int] = []

    def next_noise(*args: object, **kwargs: object) -> torch.Tensor:
        drawn_in.append(k)
        return basis(evaluations + len(drawn_in))

    made.noise_sampler = next_noise  # of DPMSolverSDEScheduler, which draws nothing else
    states, scales = [basis(0)], []
    with patch.object(sys.modules[type(made).__module__], "randn_tensor", next_noise, create=True):
        start = start_weights(made, timesteps[:1])
        for k, timestep in enumerate(timesteps):
            x = states[-1]
            if hasattr(made, "scale_model_input"):
                scaled, largest = made.scale_model_input(x, timestep).flatten(), x.flatten().abs().argmax()
                scales.append(float(scaled[largest] / x.flatten()[largest]))
            else:
                scales.append(1.0)
            states.append(made.step(basis(1 + k), timestep, x, return_dict=False, **step_options)[0])
    matrix = torch.stack(states).reshape(evaluations + 1, width)[:, : 1 + evaluations + len(drawn_in)]
    return Probed(
        matrix.double().numpy(),
        np.asarray([float(timestep) for timestep in timesteps]),
        not timesteps.is_floating_point(),
        np.asarray(scales),
        np.isin(np.arange(evaluations), drawn_in),
        float(getattr(made, "init_noise_sigma", 1.0)),
        start,
    )


def start_weights(made, timestep: torch.Tensor) -> tuple[float, float]:
    """The weights of image and noise in a noised image at the first timestep."""
    image, noise = torch.tensor([[1.0, 0.0]]), torch.tensor([[0.0, 1.0]])
    if hasattr(made, "add_noise"):
        mixed = made.add_noise(image, noise, timestep)
    elif hasattr(made, "scale_noise"):
        mixed = made.scale_noise(image, timestep, noise)
    else:
        return (float("nan"), float("nan"))
    return float(mixed[0, 0]), float(mixed[0, 1])


def row_error(ours: NDArray[np.float64], theirs: NDArray[np.float64]) -> float:
    """The largest difference between two linear maps, relative to the largest weight of the state it is in."""
    assert ours.shape == theirs.shape
    scale = np.maximum(np.abs(theirs).max(axis=1), 1e-12)  # a state may be zero
    return float(np.max(np.abs(ours - theirs).max(axis=1) / scale))
