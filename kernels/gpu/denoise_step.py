"""One step of every slot in one launch, whatever their samplers: the device's ``kernels.slots.denoise_slots``.

Bytes that an element of a slot must move, with b bytes per element of the denoiser's tensors: 8 for the state, b for
each output row and each row of the next input, 4 for each older stored output that is read, 4 to store the newest, and
4 for each draw. DPM-Solver++ 2M in fp16 under guidance moves 24: 1.6 MB for an SDXL image of 1024 x 1024, which is
0.4 us at 4 TB/s, so a launch costs its latency and little else.
"""

from __future__ import annotations

import triton
import triton.language as tl

from ..slots import TILE, Route, Slots
from ..table_rows import COLUMNS, DRAWS, HISTORY, Column, NextRows
from .guidance_statistics import rescale_factor
from .source import KernelSource, Tensor

_COLUMNS = tl.constexpr(COLUMNS)
_ACTIVE = tl.constexpr(int(Column.ACTIVE))
_CONDITIONAL_WEIGHT = tl.constexpr(int(Column.CONDITIONAL_WEIGHT))
_UNCONDITIONAL_WEIGHT = tl.constexpr(int(Column.UNCONDITIONAL_WEIGHT))
_THIRD_WEIGHT = tl.constexpr(int(Column.THIRD_WEIGHT))
_STATE_TO_STORED = tl.constexpr(int(Column.STATE_TO_STORED))
_STATE_WEIGHT = tl.constexpr(int(Column.STATE_WEIGHT))
_HISTORY_WEIGHTS = tl.constexpr(int(Column.HISTORY_WEIGHTS))
_NOISE_WEIGHTS = tl.constexpr(int(Column.NOISE_WEIGHTS))
_HISTORY_INDEX = tl.constexpr(int(Column.HISTORY_INDEX))
_KEEPS_STORED = tl.constexpr(int(Column.KEEPS_STORED))
_NOISE_INDEX = tl.constexpr(int(Column.NOISE_INDEX))
_GUIDANCE_RESCALE = tl.constexpr(int(Column.GUIDANCE_RESCALE))
_BLENDS = tl.constexpr(int(Column.BLENDS))
_KEPT_SIGNAL = tl.constexpr(int(Column.KEPT_SIGNAL))
_KEPT_NOISE = tl.constexpr(int(Column.KEPT_NOISE))
_NEXT_INPUT_SCALE = tl.constexpr(int(Column.NEXT_INPUT_SCALE))
_NEXT_TIMESTEP = tl.constexpr(int(Column.NEXT_TIMESTEP))
_NEXT_ROWS = tl.constexpr(int(Column.NEXT_ROWS))
_NEXT_DRAW = tl.constexpr(int(Column.NEXT_DRAW))
_ROUTE = tl.constexpr(len(Route))
_UNCONDITIONAL_OUTPUT = tl.constexpr(int(Route.UNCONDITIONAL_OUTPUT))
_CONDITIONAL_OUTPUT = tl.constexpr(int(Route.CONDITIONAL_OUTPUT))
_THIRD_OUTPUT = tl.constexpr(int(Route.THIRD_OUTPUT))
_UNCONDITIONAL_INPUT = tl.constexpr(int(Route.UNCONDITIONAL_INPUT))
_CONDITIONAL_INPUT = tl.constexpr(int(Route.CONDITIONAL_INPUT))
_THIRD_INPUT = tl.constexpr(int(Route.THIRD_INPUT))
_RUNS_CONDITIONAL = tl.constexpr(int(NextRows.CONDITIONAL))
_RUNS_UNCONDITIONAL = tl.constexpr(int(NextRows.UNCONDITIONAL))
_RUNS_THIRD = tl.constexpr(int(NextRows.THIRD))
_HISTORY = tl.constexpr(HISTORY)
_DRAWS = tl.constexpr(DRAWS)


@triton.jit
def denoise_step_kernel(
    state: tl.tensor,
    history: tl.tensor,
    noise: tl.tensor,
    kept: tl.tensor,
    mask: tl.tensor,
    table: tl.tensor,
    position: tl.tensor,
    draws: tl.tensor,
    arrived: tl.tensor,
    statistics: tl.tensor,
    routes: tl.tensor,
    outputs: tl.tensor,
    model_input: tl.tensor,
    timesteps: tl.tensor,
    elements: tl.tensor,
    area: tl.tensor,
    input_stride: tl.tensor,
    TILE: tl.constexpr,
) -> None:
    route = routes + tl.program_id(1) * _ROUTE
    slot = tl.load(route).to(tl.int64)
    if slot < 0:
        return
    here = tl.load(position + slot)
    row = table + here * _COLUMNS
    if tl.load(row + _ACTIVE) == 0:
        return
    at = tl.program_id(0) * TILE + tl.arange(0, TILE)  # [TILE], elements of the slot
    inside = at < elements

    state_weight = tl.load(row + _STATE_WEIGHT)
    to_stored = tl.load(row + _STATE_TO_STORED)
    x = _read(state + slot * elements, at, tl.maximum(tl.abs(state_weight), tl.abs(to_stored)), elements)

    stored = _row(outputs, route + _CONDITIONAL_OUTPUT, row + _CONDITIONAL_WEIGHT, at, elements)
    stored += _row(outputs, route + _UNCONDITIONAL_OUTPUT, row + _UNCONDITIONAL_WEIGHT, at, elements)
    stored += _row(outputs, route + _THIRD_OUTPUT, row + _THIRD_WEIGHT, at, elements)
    rescale = tl.load(row + _GUIDANCE_RESCALE)
    if rescale != 0:
        stored *= rescale_factor(statistics, slot, rescale, tl.num_programs(0), elements, TILE)
    stored += to_stored * x

    x *= state_weight
    x += tl.load(row + _HISTORY_WEIGHTS) * stored
    newest = tl.load(row + _HISTORY_INDEX).to(tl.int32)
    for age in tl.static_range(1, _HISTORY):
        weight = tl.load(row + _HISTORY_WEIGHTS + age)
        source = history + (slot * _HISTORY + (newest + _HISTORY - age) % _HISTORY) * elements
        x += weight * _read(source, at, weight, elements)
    latest = tl.load(row + _NOISE_INDEX).to(tl.int32)
    for age in tl.static_range(_DRAWS):
        weight = tl.load(row + _NOISE_WEIGHTS + age)
        source = noise + (slot * _DRAWS + (latest + _DRAWS - age) % _DRAWS) * elements
        x += weight * _read(source, at, weight, elements)
    if tl.load(row + _BLENDS) != 0:
        redrawn = tl.load(mask + slot * area + at % area, mask=inside, other=1.0)
        source = kept + slot * 2 * elements
        level = tl.load(row + _KEPT_SIGNAL) * tl.load(source + at, mask=inside, other=0.0)
        level += tl.load(row + _KEPT_NOISE) * tl.load(source + elements + at, mask=inside, other=0.0)
        x = tl.where(redrawn == 0, level, x)

    tl.store(state + slot * elements + at, x, mask=inside)
    target = history + (slot * _HISTORY + newest) * elements
    tl.store(target + at, stored, mask=at < _where(tl.load(row + _KEEPS_STORED) != 0, elements))

    rows = tl.load(row + _NEXT_ROWS).to(tl.int32)
    conditional = tl.load(route + _CONDITIONAL_INPUT).to(tl.int64)
    unconditional = tl.load(route + _UNCONDITIONAL_INPUT).to(tl.int64)
    third = tl.load(route + _THIRD_INPUT).to(tl.int64)
    runs_conditional = rows & _RUNS_CONDITIONAL != 0
    runs_unconditional = rows & _RUNS_UNCONDITIONAL != 0
    runs_third = rows & _RUNS_THIRD != 0
    scaled = (tl.load(row + _NEXT_INPUT_SCALE) * x).to(model_input.dtype.element_ty)
    target = model_input + at
    tl.store(target + conditional * input_stride, scaled, mask=at < _where(runs_conditional, elements))
    tl.store(target + unconditional * input_stride, scaled, mask=at < _where(runs_unconditional, elements))
    tl.store(target + third * input_stride, scaled, mask=at < _where(runs_third, elements))

    # The program that finishes last moves the slot on: by then all others have read the position. The barrier keeps
    # this program's own warps together, of which only the first counts.
    tl.debug_barrier()
    if tl.atomic_add(arrived + slot, 1) == tl.num_programs(0) - 1:
        tl.store(arrived + slot, 0)
        tl.store(position + slot, here + 1)
        tl.store(draws + slot, tl.load(row + _NEXT_DRAW).to(tl.int32))
        timestep = tl.load(row + _NEXT_TIMESTEP)
        if runs_conditional:
            tl.store(timesteps + conditional, timestep)
        if runs_unconditional:
            tl.store(timesteps + unconditional, timestep)
        if runs_third:
            tl.store(timesteps + third, timestep)


@triton.jit
def _row(outputs: tl.tensor, number: tl.tensor, weight: tl.tensor, at: tl.tensor, elements: tl.tensor) -> tl.tensor:
    """The elements of one of the denoiser's rows, times their weight."""
    factor = tl.load(weight)
    return factor * _read(outputs + tl.load(number).to(tl.int64) * elements, at, factor, elements)


@triton.jit
def _read(source: tl.tensor, at: tl.tensor, weight: tl.tensor, elements: tl.tensor) -> tl.tensor:
    """The elements in fp32, or 0 without reading anything where their weight is 0."""
    return tl.load(source + at, mask=at < _where(weight != 0, elements), other=0.0).to(tl.float32)


@triton.jit
def _where(condition: tl.tensor, elements: tl.tensor) -> tl.tensor:
    """How many elements to move: all or none. (Triton's interpreter cannot combine masks with scalar conditions.)"""
    return tl.where(condition, elements, 0)


SOURCE = KernelSource(
    function=denoise_step_kernel,
    types={
        "state": "*fp32",
        "history": "*fp32",
        "noise": "*fp32",
        "kept": "*fp32",
        "mask": "*fp32",
        "table": "*fp32",
        "position": "*i32",
        "draws": "*i32",
        "arrived": "*i32",
        "statistics": "*fp32",
        "routes": "*i32",
        "outputs": "*io",
        "model_input": "*io",
        "timesteps": "*fp32",
        "elements": "i32",
        "area": "i32",
        "input_stride": "i32",
    },
    tile=TILE,
    dtypes=("float16", "bfloat16", "float32"),
    divisible={"elements": 4, "input_stride": 4},
)


def denoise_step(slots: Slots[Tensor], routes: Tensor, outputs: Tensor, model_input: Tensor, timesteps: Tensor) -> None:
    """One step of every routed slot, in place; arguments and result are those of ``kernels.slots.denoise_slots``.

    Where a table rescales guidance, ``guidance_statistics`` has to run before it.
    """
    elements = slots.state.shape[1]
    denoise_step_kernel[SOURCE.grid(elements, routes.shape[0])](
        slots.state,
        slots.history,
        slots.noise,
        slots.kept,
        slots.mask,
        slots.table,
        slots.position,
        slots.draws,
        slots.arrived,
        slots.statistics,
        routes,
        outputs,
        model_input,
        timesteps,
        elements,
        slots.mask.shape[1],
        model_input.shape[1],
        TILE=TILE,
        num_warps=SOURCE.num_warps,
        enable_fp_fusion=False,
    )
