"""One step of many images at once, each with its own sampler, guidance and position: what the device does, in numpy.

An image being denoised has a *slot*: its state, its rings of stored outputs and draws, and its position in the rows of
its table (``table_rows``). A *route* says which slot a launch steps, and which rows of the denoiser are the slot's.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from enum import IntEnum
from typing import Any, Generic, NamedTuple, TypeVar

import numpy as np
from numpy.typing import DTypeLike, NDArray

from .table_rows import COLUMNS, DRAWS, HISTORY, Column, NextRows

Array = NDArray[np.float32]
Tensor = TypeVar("Tensor")

#: Elements of one slot that one program of the kernels works on.
TILE = 1024


class Route(IntEnum):
    """One row of ``routes``. ``SLOT`` is -1 where a launch of fixed size has nothing to do.

    Rows of the output that was computed and rows of the next input differ where guidance begins or ends.
    """

    SLOT = 0
    UNCONDITIONAL_OUTPUT = 1
    CONDITIONAL_OUTPUT = 2
    THIRD_OUTPUT = 3
    UNCONDITIONAL_INPUT = 4
    CONDITIONAL_INPUT = 5
    THIRD_INPUT = 6


class RowKind(NamedTuple):
    """One kind of the denoiser's rows: its weight in a row of a table, and where routes say that its rows are."""

    rows: NextRows
    weight: Column
    output: Route
    input: Route


ROW_KINDS = (
    RowKind(NextRows.CONDITIONAL, Column.CONDITIONAL_WEIGHT, Route.CONDITIONAL_OUTPUT, Route.CONDITIONAL_INPUT),
    RowKind(NextRows.UNCONDITIONAL, Column.UNCONDITIONAL_WEIGHT, Route.UNCONDITIONAL_OUTPUT, Route.UNCONDITIONAL_INPUT),
    RowKind(NextRows.THIRD, Column.THIRD_WEIGHT, Route.THIRD_OUTPUT, Route.THIRD_INPUT),
)


@dataclass(frozen=True)
class Slots(Generic[Tensor]):
    """What slots are made of, numpy arrays or tensors on a device. ``elements`` is C * h * w, ``area`` h * w.

    ``position`` is the row of ``table`` that a slot's next step reads, so slots share the rows of equal samplers.
    Nobody reads ``kept`` and ``mask`` unless a table blends, or ``statistics`` unless one rescales guidance.
    """

    state: Tensor  # float32 [slots, elements]
    history: Tensor  # float32 [slots, HISTORY, elements]
    noise: Tensor  # float32 [slots, DRAWS, elements]: draw i of a slot is at i % DRAWS
    kept: Tensor  # float32 [slots, 2, elements]: the clean latents of a masked run, and their noise
    mask: Tensor  # float32 [slots, area]: 0 where the picture is kept
    table: Tensor  # float32 [rows, COLUMNS]
    position: Tensor  # int32 [slots]
    draws: Tensor  # int32 [slots]: number of the draw that the device makes for the next update, or -1
    arrived: Tensor  # int32 [slots]: programs that have finished their part of the step at hand; 0 between launches
    statistics: Tensor  # float32 [slots, 4, tiles]: see ``guidance_statistics``


def slot_tensors(count: int, elements: int, area: int, table_rows: int) -> dict[str, tuple[tuple[int, ...], DTypeLike]]:
    """Shape and dtype of each part of ``Slots``."""
    return {
        "state": ((count, elements), np.float32),
        "history": ((count, HISTORY, elements), np.float32),
        "noise": ((count, DRAWS, elements), np.float32),
        "kept": ((count, 2, elements), np.float32),
        "mask": ((count, area), np.float32),
        "table": ((table_rows, COLUMNS), np.float32),
        "position": ((count,), np.int32),
        "draws": ((count,), np.int32),
        "arrived": ((count,), np.int32),
        "statistics": ((count, 4, -(-elements // TILE)), np.float32),
    }


def empty_slots(count: int, elements: int, area: int, table: Array) -> Slots[NDArray[Any]]:
    """Slots on the host, all at the first row of ``table``. What they hold is 0."""
    tensors = slot_tensors(count, elements, area, len(table))
    slots = Slots(**{name: np.zeros(shape, dtype) for name, (shape, dtype) in tensors.items()})
    slots.table[...] = table
    slots.mask.fill(1)
    slots.draws.fill(-1)
    return slots


def denoise_slots(
    slots: Slots[NDArray[Any]],
    routes: NDArray[np.int32],
    outputs: NDArray[Any],
    model_input: NDArray[Any],
    timesteps: Array,
    scratch: Array | None = None,
) -> None:
    """One step of every routed slot, in place, in the order of operations of the kernel ``denoise_step``::

        d = r * (conditional_weight * c + unconditional_weight * u + third_weight * t) + state_to_stored * x
        x = state_weight * x + sum_j history_weights[j] * d_j + sum_j noise_weights[j] * noise_j
        x = kept_signal * latents + kept_noise * noise, where the mask is 0, in a step that blends
        model_input = next_input_scale * x, for the slot's rows of the next evaluation
        timesteps = next_timestep, likewise

    with ``r`` the factor of rescaled guidance (``rescale_factor``), 1 without. What has weight 0 is not read.

    Args:
        slots: the slots; changed.
        routes: int32 ``[launched, len(Route)]``.
        outputs: ``[rows, elements]``, what the denoiser gave.
        model_input: ``[rows, elements or more]``: the first ``elements`` of a row are written, in its dtype.
        timesteps: float32 ``[rows]``; written.
        scratch: ``[2, elements]``, for those who call again and again; overwritten.
    """
    elements = slots.state.shape[1]
    scratch = np.empty((2, elements), np.float32) if scratch is None else scratch
    for route in routes.tolist():
        slot = route[Route.SLOT]
        if slot < 0:
            continue
        row: list[float] = slots.table[slots.position[slot]].tolist()
        if row[Column.ACTIVE] == 0:
            continue
        weighted = [(row[kind.weight], outputs[route[kind.output]]) for kind in ROW_KINDS if row[kind.weight] != 0]
        _update(slots, slot, row, weighted, scratch)
        scale, next_rows = row[Column.NEXT_INPUT_SCALE], int(row[Column.NEXT_ROWS])
        scaled = slots.state[slot] if scale == 1 else np.multiply(slots.state[slot], scale, scratch[0])
        for kind in ROW_KINDS:
            if next_rows & kind.rows:
                model_input[route[kind.input], :elements] = scaled
                timesteps[route[kind.input]] = row[Column.NEXT_TIMESTEP]
        slots.draws[slot] = row[Column.NEXT_DRAW]
        slots.position[slot] += 1


def _update(
    slots: Slots[NDArray[Any]],
    slot: int,
    row: Sequence[float],
    outputs: Sequence[tuple[float, NDArray[Any]]],
    scratch: Array,
) -> None:
    """The state of one slot, and what it stores; ``outputs`` are the rows with a weight, the conditional one first.

    What changes nothing is not computed, and rings are not looked at for what has no weight: each small operation costs
    more than its arithmetic, because an engine ran before it and left nothing of ours in the processor's caches.
    """
    x, product = slots.state[slot], scratch[0]
    newest, of_state, of_stored = int(row[Column.HISTORY_INDEX]), row[Column.STATE_WEIGHT], row[Column.STATE_TO_STORED]
    stored = slots.history[slot, newest] if row[Column.KEEPS_STORED] != 0 else scratch[1]
    if outputs:
        (weight, values), *others = outputs
        np.multiply(values, weight, stored, dtype=np.float32)
        for weight, values in others:
            stored += np.multiply(values, weight, product, dtype=np.float32)
    else:
        stored[...] = 0
    if row[Column.GUIDANCE_RESCALE] != 0:
        (_, conditional), (_, unconditional) = outputs  # guidance gives both rows a weight
        factor = rescale_factor(
            conditional.astype(np.float32, copy=False),
            unconditional.astype(np.float32, copy=False),
            row[Column.GUIDANCE],
            row[Column.GUIDANCE_RESCALE],
        )
        stored *= factor
    if of_stored != 0:
        stored += np.multiply(x, of_stored, product)
    if of_state == 0:
        x[...] = 0  # also where an earlier picture left what is no number
    elif of_state != 1:
        x *= of_state
    if (weight := row[Column.HISTORY_WEIGHTS]) != 0:
        x += stored if weight == 1 else np.multiply(stored, weight, product)
    for age in range(1, HISTORY):
        if (weight := row[Column.HISTORY_WEIGHTS + age]) != 0:
            x += np.multiply(slots.history[slot, (newest - age) % HISTORY], weight, product)
    for age in range(DRAWS):
        if (weight := row[Column.NOISE_WEIGHTS + age]) != 0:
            x += np.multiply(slots.noise[slot, (int(row[Column.NOISE_INDEX]) - age) % DRAWS], weight, product)
    if row[Column.BLENDS] != 0:
        latents, latents_noise = slots.kept[slot]
        level = row[Column.KEPT_SIGNAL] * latents + row[Column.KEPT_NOISE] * latents_noise
        np.copyto(x, level, where=np.tile(slots.mask[slot] == 0, x.size // slots.mask.shape[1]))


def rescale_factor(conditional: Array, unconditional: Array, guidance: float, rescale: float) -> np.float32:
    """What rescaled guidance multiplies m = u + guidance * (c - u) by: 1 - phi + phi * s(c) / s(m), phi = ``rescale``.

    ``s`` is the standard deviation over one image. Lin et al. 2023, arXiv:2305.08891, equations 14 to 16.
    """
    guided = np.float32(guidance) * conditional + np.float32(1 - guidance) * unconditional
    ratio = np.sqrt(conditional.var(dtype=np.float64) / guided.var(dtype=np.float64))
    return np.float32(1 - rescale + rescale * ratio)
