"""The kernels of a step against ``kernels.slots``: one step over sizes and dtypes."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
import torch
import triton
import triton.language as tl
from numpy.typing import NDArray

from latentrt.kernels.gpu.denoise_step import denoise_step
from latentrt.kernels.gpu.guidance_statistics import guidance_statistics
from latentrt.kernels.gpu.guidance_statistics import rescale_factor as rescale_factor_on_device
from latentrt.kernels.slots import TILE, Slots, denoise_slots, empty_slots, rescale_factor
from latentrt.kernels.table_rows import COLUMNS, DRAWS, HISTORY, Column

from ..random_values import values
from .conftest import Launch

SHAPES = [(4, 1, 1), (3, 5, 7), (4, 16, 16), (4, 17, 19), (16, 9, 15)]  # up to three tiles, odd ones too
DTYPES = [torch.float32, torch.float16, torch.bfloat16]


def slots_of(shape: tuple[int, int, int], rescale: float = 0.0) -> Slots[NDArray[Any]]:
    """Five slots in the middle of runs whose rows are all different; the last is over."""
    elements, area = int(np.prod(shape)), shape[1] * shape[2]
    table = np.random.default_rng(3).uniform(-1.5, 1.5, (7, COLUMNS)).astype(np.float32)
    table[:, Column.ACTIVE] = [1, 1, 1, 1, 1, 1, 0]
    table[:, Column.STATE_WEIGHT] = [1, 0, 0.7, 1, 0.9, 1, 1]
    table[:, Column.HISTORY_INDEX] = np.arange(7) % HISTORY
    table[:, Column.KEEPS_STORED] = [1, 0, 1, 0, 1, 1, 0]
    table[:, Column.NOISE_INDEX] = np.arange(7) % DRAWS
    table[:, Column.GUIDANCE] = [5, 1, 7.5, 3, 1, 4, 1]
    table[:, Column.GUIDANCE_RESCALE] = np.array([1, 0, 0.5, 0, 0, 1, 0]) * rescale
    table[:, Column.THIRD_WEIGHT] *= rescale == 0  # rescaled guidance is of two rows
    table[:, Column.BLENDS] = [0, 1, 0, 1, 0, 0, 0]
    table[:, Column.NEXT_ROWS] = [3, 1, 7, 0, 1, 5, 1]
    table[:, Column.NEXT_DRAW] = [-1, 3, 2, -1, 0, 7, -1]
    table[1, Column.STATE_TO_STORED] = 0
    table[3, [Column.UNCONDITIONAL_WEIGHT, Column.THIRD_WEIGHT, Column.NOISE_WEIGHTS, Column.HISTORY_WEIGHTS + 2]] = 0
    slots = empty_slots(5, elements, area, table)
    slots.position[:] = [2, 0, 3, 1, 6]
    for i, array in enumerate((slots.state, slots.history, slots.noise, slots.kept)):
        array[...] = values(i, *array.shape)
    slots.mask[...] = values(9, 5, area) > 0
    # What has weight 0 must not be read: nobody ever wrote it.
    slots.state[3] = np.nan
    slots.history[2, (3 - 2) % HISTORY] = np.nan
    slots.noise[2, 3 % DRAWS] = np.nan
    return slots


# slot, then rows: unconditional, conditional and third, of the outputs and of the inputs. Row 99 does not exist.
ROUTES = np.array(
    [
        [3, 0, 1, 2, 1, 0, 99],
        [-1] * 7,
        [1, 2, 3, 0, 3, 2, 99],
        [4, 4, 4, 4, 4, 4, 4],
        [2, 99, 5, 99, 99, 99, 99],
        [0, 6, 7, 5, 8, 7, 4],
    ],
    np.int32,
)
ROWS = 9


def assert_step_is_numpys(
    launch: Launch, shape: tuple[int, int, int], dtype: torch.dtype, rescale: float, extra: int
) -> None:
    elements = int(np.prod(shape))
    outputs = torch.from_numpy(values(20, ROWS, elements)).to(dtype)
    ours, expected = slots_of(shape, rescale), slots_of(shape, rescale)
    model_input = torch.full((ROWS, elements + extra), 7.0, dtype=dtype)
    expected_input = np.full((ROWS, elements + extra), 7.0, np.float32)
    timesteps, expected_timesteps = np.zeros(ROWS, np.float32), np.zeros(ROWS, np.float32)
    launch(guidance_statistics, ours, ROUTES, outputs)
    launch(denoise_step, ours, ROUTES, outputs, model_input, timesteps)
    denoise_slots(expected, ROUTES, outputs.float().numpy(), expected_input, expected_timesteps)
    for name in ("state", "history"):
        given, wanted = getattr(ours, name), getattr(expected, name)
        if rescale:
            np.testing.assert_allclose(given, wanted, rtol=1e-5, atol=1e-5)
        else:
            np.testing.assert_array_equal(given, wanted, err_msg=name)
    for name in ("noise", "kept", "mask", "table", "position", "draws", "arrived"):
        np.testing.assert_array_equal(getattr(ours, name), getattr(expected, name), err_msg=name)
    np.testing.assert_array_equal(timesteps, expected_timesteps)
    # The interpreter cuts bf16 off where a GPU rounds to the nearest.
    rtol, atol = {torch.float32: (0, 0), torch.float16: (2**-10, 1e-7), torch.bfloat16: (2**-7, 0)}[dtype]
    atol += 1e-5 * bool(rescale)
    np.testing.assert_allclose(model_input.float().numpy(), expected_input, rtol=rtol, atol=atol)


@pytest.mark.parametrize("shape", SHAPES)
@pytest.mark.parametrize("dtype", DTYPES)
def test_a_step_is_the_numpy_step(launch: Launch, shape: tuple[int, int, int], dtype: torch.dtype) -> None:
    """Bit for bit in what stays in fp32: the order of operations is the same, and none are fused."""
    assert_step_is_numpys(launch, shape, dtype, rescale=0.0, extra=0)


@pytest.mark.parametrize("shape", SHAPES[1:])
def test_a_step_with_rescaled_guidance(launch: Launch, shape: tuple[int, int, int]) -> None:
    assert_step_is_numpys(launch, shape, torch.float32, rescale=0.7, extra=0)


@pytest.mark.gpu
@pytest.mark.parametrize("launch", ["cuda"], indirect=True)
@pytest.mark.parametrize("rescale", [0.0, 0.7])
def test_many_programs_move_a_slot_on_once(launch: Launch, rescale: float) -> None:
    """More programs than a GPU holds at once, whose order nobody knows."""
    for _ in range(10):
        assert_step_is_numpys(launch, (16, 128, 128), torch.float16, rescale=rescale, extra=0)


@pytest.mark.parametrize("dtype", DTYPES)
def test_channels_behind_the_latents_are_left_alone(launch: Launch, dtype: torch.dtype) -> None:
    assert_step_is_numpys(launch, (4, 17, 19), dtype, rescale=0.0, extra=5 * 17 * 19)


def test_deviations_of_many_tiles_are_merged(launch: Launch) -> None:
    """More tiles than one program merges at once; far from 0, where sums of squares would cancel."""
    elements = 300 * TILE + 13
    table = np.zeros((1, COLUMNS), np.float32)
    table[0, [Column.ACTIVE, Column.CONDITIONAL_WEIGHT, Column.HISTORY_WEIGHTS]] = 1
    table[0, [Column.GUIDANCE, Column.GUIDANCE_RESCALE]] = 3, 1
    slots = empty_slots(1, elements, elements, table)
    outputs = torch.from_numpy(values(1, 2, elements) * np.float32(0.01) + np.float32(8))
    routes = np.array([[0, 0, 1, 0, 0, 1, 0]], np.int32)
    launch(guidance_statistics, slots, routes, outputs)
    wanted = np.split(outputs[1].double().numpy(), range(TILE, elements, TILE))
    np.testing.assert_allclose(slots.statistics[0, 0], [part.mean() for part in wanted], rtol=1e-6)
    np.testing.assert_allclose(slots.statistics[0, 1], [part.var() * len(part) for part in wanted], rtol=1e-3)
    factor = np.zeros(1, np.float32)
    launch(_launch_rescale_factor, slots.statistics, factor, elements)
    np.testing.assert_allclose(factor[0], rescale_factor(*outputs.numpy()[::-1], 3, 1), rtol=1e-4)


@triton.jit
def _rescale_factor_kernel(statistics, factor, tiles, elements, TILE: tl.constexpr):
    tl.store(factor, rescale_factor_on_device(statistics, 0, 1.0, tiles, elements, TILE))


def _launch_rescale_factor(statistics: Any, factor: Any, elements: int) -> None:
    _rescale_factor_kernel[(1,)](statistics, factor, statistics.shape[2], elements, TILE=TILE)
