"""Standard deviations for rescaled guidance (Lin et al. 2023, arXiv:2305.08891): a pass of its own over the outputs.

Every step depends on the deviation over a whole image, which no program of ``denoise_step`` sees. So each program here
writes the mean and the sum of squared deviations of its tile, of c and of m = u + g (c - u), and each program of
``denoise_step`` merges those of its slot: no atomics, hence the same bits in every run. A slot whose table does not
rescale costs nothing but the launch.

Bytes: both outputs once, 2b per element (b bytes each); 0.26 MB for an SDXL image of 1024 x 1024 in fp16.
"""

from __future__ import annotations

import triton
import triton.language as tl

from ..slots import TILE, Route, Slots
from ..table_rows import COLUMNS, Column
from .source import KernelSource, Tensor

_COLUMNS = tl.constexpr(COLUMNS)
_ACTIVE = tl.constexpr(int(Column.ACTIVE))
_GUIDANCE = tl.constexpr(int(Column.GUIDANCE))
_GUIDANCE_RESCALE = tl.constexpr(int(Column.GUIDANCE_RESCALE))
_ROUTE = tl.constexpr(len(Route))
_UNCONDITIONAL_OUTPUT = tl.constexpr(int(Route.UNCONDITIONAL_OUTPUT))
_CONDITIONAL_OUTPUT = tl.constexpr(int(Route.CONDITIONAL_OUTPUT))
_CHUNK = tl.constexpr(256)


@triton.jit
def guidance_statistics_kernel(
    table: tl.tensor,
    position: tl.tensor,
    statistics: tl.tensor,
    routes: tl.tensor,
    outputs: tl.tensor,
    elements: tl.tensor,
    TILE: tl.constexpr,
) -> None:
    route = routes + tl.program_id(1) * _ROUTE
    slot = tl.load(route).to(tl.int64)
    if slot < 0:
        return
    row = table + tl.load(position + slot) * _COLUMNS
    if (tl.load(row + _ACTIVE) == 0) | (tl.load(row + _GUIDANCE_RESCALE) == 0):
        return
    tile, tiles = tl.program_id(0), tl.num_programs(0)
    at = tile * TILE + tl.arange(0, TILE)  # [TILE], elements of the slot
    inside = at < elements
    source = outputs + tl.load(route + _CONDITIONAL_OUTPUT).to(tl.int64) * elements
    conditional = tl.load(source + at, mask=inside, other=0.0).to(tl.float32)
    source = outputs + tl.load(route + _UNCONDITIONAL_OUTPUT).to(tl.int64) * elements
    unconditional = tl.load(source + at, mask=inside, other=0.0).to(tl.float32)
    guidance = tl.load(row + _GUIDANCE)
    guided = guidance * conditional + (1 - guidance) * unconditional

    count = _elements_of(tile, elements, TILE)
    target = statistics + slot * 4 * tiles + tile
    mean = tl.sum(conditional, axis=0) / count
    away = tl.where(inside, conditional - mean, 0.0)
    tl.store(target, mean)
    tl.store(target + tiles, tl.sum(away * away, axis=0))
    mean = tl.sum(guided, axis=0) / count
    away = tl.where(inside, guided - mean, 0.0)
    tl.store(target + 2 * tiles, mean)
    tl.store(target + 3 * tiles, tl.sum(away * away, axis=0))


@triton.jit
def rescale_factor(
    statistics: tl.tensor,
    slot: tl.tensor,
    rescale: tl.tensor,
    tiles: tl.tensor,
    elements: tl.tensor,
    TILE: tl.constexpr,
) -> tl.tensor:
    """1 - rescale + rescale * s(c) / s(m) for one slot, of what all programs of the pass above wrote."""
    source = statistics + slot * 4 * tiles
    conditional = _squared_deviations(source, tiles, elements, TILE)
    guided = _squared_deviations(source + 2 * tiles, tiles, elements, TILE)
    return 1 - rescale + rescale * tl.sqrt_rn(conditional / guided)


@triton.jit
def _squared_deviations(means: tl.tensor, tiles: tl.tensor, elements: tl.tensor, TILE: tl.constexpr) -> tl.tensor:
    """The sum of squared deviations over all tiles (Chan, Golub & LeVeque 1979), of each tile's mean and sum."""
    total = tl.zeros([_CHUNK], tl.float32)
    squares = tl.zeros([_CHUNK], tl.float32)
    first = 0
    while first < tiles:
        tile = first + tl.arange(0, _CHUNK)
        total += _elements_of(tile, elements, TILE) * tl.load(means + tile, mask=tile < tiles, other=0.0)
        squares += tl.load(means + tiles + tile, mask=tile < tiles, other=0.0)
        first += _CHUNK
    mean = tl.sum(total, axis=0) / elements
    first = 0
    while first < tiles:
        tile = first + tl.arange(0, _CHUNK)
        away = tl.load(means + tile, mask=tile < tiles, other=0.0) - mean
        squares += _elements_of(tile, elements, TILE) * away * away
        first += _CHUNK
    return tl.sum(squares, axis=0)


@triton.jit
def _elements_of(tile: tl.tensor, elements: tl.tensor, TILE: tl.constexpr) -> tl.tensor:
    """How many elements a tile has: fewer in the last, none behind it."""
    return tl.minimum(tl.maximum(elements - tile * TILE, 0), TILE).to(tl.float32)


SOURCE = KernelSource(
    function=guidance_statistics_kernel,
    types={
        "table": "*fp32",
        "position": "*i32",
        "statistics": "*fp32",
        "routes": "*i32",
        "outputs": "*io",
        "elements": "i32",
    },
    tile=TILE,
    dtypes=("float16", "bfloat16", "float32"),
    divisible={"elements": 4},
)


def guidance_statistics(slots: Slots[Tensor], routes: Tensor, outputs: Tensor) -> None:
    """Fill ``slots.statistics`` for the routed slots whose table rescales guidance at their position.

    ``statistics`` is float32 ``[slots, 4, tiles]``: for each tile of ``TILE`` elements the mean of c, its sum of
    squared deviations, and the same of m. ``routes`` and ``outputs`` are those of ``denoise_step``, which comes after.
    """
    elements = slots.state.shape[1]
    guidance_statistics_kernel[SOURCE.grid(elements, routes.shape[0])](
        slots.table,
        slots.position,
        slots.statistics,
        routes,
        outputs,
        elements,
        TILE=TILE,
        num_warps=SOURCE.num_warps,
        enable_fp_fusion=False,
    )
