"""The noise schedule a checkpoint was trained with, read from its ``scheduler_config.json``."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass
from functools import cached_property, lru_cache
from typing import TypeAlias

import numpy as np
from numpy.typing import NDArray

from ..errors import CheckpointError, RequestError

Value: TypeAlias = bool | int | float | str | tuple[float, ...] | None

ZERO_SNR_FLOOR = 2.0**-24  # what diffusers puts in place of alphas_cumprod[-1] = 0 where it needs a finite sigma


@dataclass(frozen=True, repr=False)
class ModelSchedule:
    """A checked ``scheduler_config.json``: the scheduler's class and the fields it sets, sorted by name.

    ``sampler`` and ``schedule`` are our names of what the file asks for; ``kind`` is how the model relates image and
    noise: ``trained`` on betas, rectified ``flow``, ``edm`` or ``angular``.
    """

    class_name: str
    fields: tuple[tuple[str, Value], ...]
    sampler: str
    schedule: str
    kind: str

    def __repr__(self) -> str:
        fields = [("_class_name", self.class_name), *self.fields]
        return f"model_schedule_from_config({{{', '.join(f'{name!r}: {literal(value)}' for name, value in fields)}}})"

    def __hash__(self) -> int:
        return self._hash  # computed once: trained_betas may hold a thousand numbers

    @cached_property
    def _hash(self) -> int:
        return hash((self.class_name, self.fields))

    @cached_property
    def settings(self) -> Mapping[str, Value]:
        """The fields that the file sets, by name."""
        return dict(self.fields)


def literal(value: Value) -> str:
    """``value`` as Python source, infinities included."""
    return f"float('{value}')" if isinstance(value, float) and not math.isfinite(value) else repr(value)


@dataclass(frozen=True)
class TrainingSchedule:
    """The betas of the forward process; the same field names as diffusers'."""

    num_train_timesteps: int
    beta_start: float
    beta_end: float
    beta_schedule: str
    trained_betas: tuple[float, ...] | None
    rescale_betas_zero_snr: bool

    @property
    def alphas_cumprod(self) -> NDArray[np.float64]:
        """``[T]``: the share of signal power at each training timestep, exactly 0 at the end of a zero-SNR schedule.

        The values are float32 numbers, diffusers' own: a checkpoint is trained on those, and near the image their
        rounding changes 1 - alphas_cumprod by up to 4e-5.
        """
        return _alphas_cumprod(self)

    @property
    def sigmas(self) -> NDArray[np.float64]:
        """``[T]``: noise over signal at each training timestep, ascending and finite."""
        return _sigmas(self)

    @property
    def log_sigmas(self) -> NDArray[np.float64]:
        """``[T]``: the logarithms of ``sigmas`` rounded to float32, as diffusers searches them for timesteps.

        The rounding matters: where a timestep is truncated, 998.99999 is another one than 999.
        """
        return _log_sigmas(self)

    def timestep_of(self, sigma: NDArray[np.float64]) -> NDArray[np.float64]:
        """The fractional timestep of each ``sigma`` [...], by linear interpolation in log sigma."""
        table = self.log_sigmas
        log_sigma = np.log(np.maximum(sigma, 1e-10))
        low = np.clip(np.searchsorted(table, log_sigma, side="right") - 1, 0, len(table) - 2)
        share = np.clip((table[low] - log_sigma) / (table[low] - table[low + 1]), 0.0, 1.0)
        return (1.0 - share) * low + share * (low + 1)


@lru_cache(maxsize=64)
def _alphas_cumprod(schedule: TrainingSchedule) -> NDArray[np.float64]:
    betas = _betas(schedule)
    if schedule.rescale_betas_zero_snr:
        betas = _rescaled_to_zero_snr(betas)
    alphas = np.float32(1.0) - betas.astype(np.float32)
    return _frozen(np.cumprod(alphas, dtype=np.float64).astype(np.float32))


@lru_cache(maxsize=64)
def _sigmas(schedule: TrainingSchedule) -> NDArray[np.float64]:
    alphas_cumprod = schedule.alphas_cumprod
    if schedule.rescale_betas_zero_snr:
        alphas_cumprod = np.append(alphas_cumprod[:-1], ZERO_SNR_FLOOR)
        if alphas_cumprod[-2] <= ZERO_SNR_FLOOR:
            raise RequestError(
                "the sigmas of this zero-SNR schedule do not decrease",
                received=f"alphas_cumprod {alphas_cumprod[-2]:.1e}, then {ZERO_SNR_FLOOR:.1e} in place of 0",
                expected="a sampler on training timesteps (ddim, ddpm), or scaled_linear betas",
            )
    return _frozen(np.sqrt((1 - alphas_cumprod) / alphas_cumprod))


@lru_cache(maxsize=64)
def _log_sigmas(schedule: TrainingSchedule) -> NDArray[np.float64]:
    return _frozen(np.log(schedule.sigmas.astype(np.float32).astype(np.float64)).astype(np.float32))


def _betas(schedule: TrainingSchedule) -> NDArray[np.float32]:
    count, start, end = schedule.num_train_timesteps, schedule.beta_start, schedule.beta_end
    if schedule.trained_betas is not None:
        return np.asarray(schedule.trained_betas, dtype=np.float32)
    if schedule.beta_schedule == "linear":
        return _linspace32(start, end, count)
    if schedule.beta_schedule == "scaled_linear":
        return _linspace32(start**0.5, end**0.5, count) ** 2
    if schedule.beta_schedule == "squaredcos_cap_v2":  # Nichol and Dhariwal 2021

        def signal_power(t: float) -> float:
            return math.cos((t + 0.008) / 1.008 * math.pi / 2) ** 2

        ratios = [signal_power((i + 1) / count) / signal_power(i / count) for i in range(count)]
        return np.asarray([min(1 - ratio, 0.999) for ratio in ratios], dtype=np.float32)
    raise CheckpointError(
        "unknown beta_schedule in scheduler_config.json",
        received=repr(schedule.beta_schedule),
        expected="linear, scaled_linear or squaredcos_cap_v2",
    )


def _linspace32(start: float, end: float, count: int) -> NDArray[np.float32]:
    """``torch.linspace`` in float32 to the last bit: a float32 step, fused multiply-adds, from the nearer end."""
    first, last = np.float32(start), np.float32(end)
    step = np.float64((last - first) / np.float32(max(count - 1, 1)))
    index = np.arange(count)
    return np.where(index < count // 2, first + step * index, last - step * (count - 1 - index)).astype(np.float32)


def _rescaled_to_zero_snr(betas: NDArray[np.float32]) -> NDArray[np.float32]:
    """Algorithm 1 of Lin et al. 2023 (arXiv:2305.08891): shift and stretch sqrt(alphas_cumprod) to end at 0."""
    alphas = np.float32(1.0) - betas
    root = np.sqrt(np.cumprod(alphas, dtype=np.float64).astype(np.float32))
    first, last = root[0], root[-1]
    root = (root - last) * (first / (first - last))
    cumulative = root**2
    result: NDArray[np.float32] = 1 - np.concatenate([cumulative[:1], cumulative[1:] / cumulative[:-1]])
    return result


def _frozen(array: NDArray[np.floating]) -> NDArray[np.float64]:
    result = array.astype(np.float64)
    result.setflags(write=False)
    return result
