"""A sampler's table as the device reads it: float32 rows, one per evaluation, each with all that its step needs."""

from __future__ import annotations

from collections.abc import Sequence
from enum import IntEnum
from typing import Protocol

import numpy as np
from numpy.typing import NDArray

Floats = NDArray[np.float64]

#: Stored outputs that a slot keeps on the device, and draws: what the samplers' tables need at most.
HISTORY = 5
DRAWS = 2


class Column(IntEnum):
    """What a row holds, in float32. Numbers of rings, draws and rows are small whole numbers.

    The three weights are those of the denoiser's rows in what is stored: the conversion's weight times what guidance
    gives each. The third row is that of the picture without the prompt (InstructPix2Pix), or that of the prompt with
    layers left out (skip-layer guidance).
    """

    ACTIVE = 0  #: 0: the run is over, nothing is done
    CONDITIONAL_WEIGHT = 1
    UNCONDITIONAL_WEIGHT = 2
    THIRD_WEIGHT = 3
    STATE_TO_STORED = 4
    STATE_WEIGHT = 5
    HISTORY_WEIGHTS = 6  #: and the four after it, newest first
    NOISE_WEIGHTS = 11  #: and the one after it, newest first
    HISTORY_INDEX = 13  #: where in the ring of stored outputs the newest goes
    KEEPS_STORED = 14  #: 1 where a later evaluation reads what this one stores
    NOISE_INDEX = 15  #: where in the ring of draws the newest is
    GUIDANCE = 16
    GUIDANCE_RESCALE = 17
    BLENDS = 18  #: 1 where the picture is put back outside the mask: kept signal * latents + kept noise * noise
    KEPT_SIGNAL = 19
    KEPT_NOISE = 20
    NEXT_INPUT_SCALE = 21
    NEXT_TIMESTEP = 22
    NEXT_ROWS = 23  #: rows of the next evaluation: ``NextRows`` added up; 0 after the last
    NEXT_DRAW = 24  #: number of the draw that the device makes for the next evaluation's update, or -1


#: Numbers in a row: some columns are several wide.
COLUMNS = 25


class NextRows(IntEnum):
    """The rows that an evaluation runs for a slot."""

    CONDITIONAL = 1
    UNCONDITIONAL = 2
    THIRD = 4


class Table(Protocol):
    """The numbers of ``runtime.samplers.SamplerTable`` that the rows are made of; see there for what they mean."""

    @property
    def timesteps(self) -> Floats: ...
    @property
    def input_scale(self) -> Floats: ...
    @property
    def guidance(self) -> Floats: ...
    @property
    def state_to_stored(self) -> Floats: ...
    @property
    def output_to_stored(self) -> Floats: ...
    @property
    def state_weight(self) -> Floats: ...
    @property
    def history_weights(self) -> Floats: ...
    @property
    def noise_weights(self) -> Floats: ...
    @property
    def draws_noise(self) -> NDArray[np.bool_]: ...
    @property
    def step(self) -> NDArray[np.int64]: ...
    @property
    def state_signal(self) -> Floats: ...
    @property
    def state_noise(self) -> Floats: ...


def table_rows(
    table: Table,
    *,
    guidance_rescale: float = 0.0,
    image_guidance_scale: float | None = None,
    skip_scales: Sequence[float] | None = None,
    first_draw: int = 0,
    host_draws: bool = False,
    blends: bool = False,
    to_the_end: bool = True,
) -> NDArray[np.float32]:
    """The rows ``[2 + N, COLUMNS]`` of a run: its start, its N evaluations, its end.

    A row describes the update after an evaluation and the input of the next one, so the first row makes the input of
    the first evaluation and leaves the state as it is.

    Args:
        table: the sampler and schedule.
        guidance_rescale: phi of Lin et al. 2023 (arXiv:2305.08891, equation 16); of two rows only.
        image_guidance_scale: s of InstructPix2Pix (Brooks et al. 2023, arXiv:2211.09800, equation 3), where guidance is
            not 1: m = u + s (i - u) + g (c - i), with i the third row.
        skip_scales: s of skip-layer guidance, one for each evaluation: m = u + g (c - u) + s (c - k), with k the third.
        first_draw: number of the first draw of the evaluations in the noise stream of the image.
        host_draws: the host brings the draws, so the device makes none.
        blends: the picture is put back outside the mask after each step.
        to_the_end: the last state is a picture, so what is put back there has no noise.
    """
    n, kept = len(table.timesteps), table.history_weights.shape[1]
    guided = table.guidance != 1
    conditional, unconditional, third = guidance_shares(table.guidance, image_guidance_scale, skip_scales)
    drawn = first_draw + np.cumsum(table.draws_noise)  # draws made when the update of an evaluation is done
    rows = np.zeros((n + 2, COLUMNS))
    rows[:-1, Column.ACTIVE] = 1
    rows[0, Column.STATE_WEIGHT] = 1

    own = rows[1:-1]
    own[:, Column.CONDITIONAL_WEIGHT] = table.output_to_stored * conditional
    own[:, Column.UNCONDITIONAL_WEIGHT] = table.output_to_stored * unconditional
    own[:, Column.THIRD_WEIGHT] = table.output_to_stored * third
    own[:, Column.STATE_TO_STORED] = table.state_to_stored
    own[:, Column.STATE_WEIGHT] = table.state_weight
    own[:, Column.HISTORY_WEIGHTS : Column.HISTORY_WEIGHTS + kept] = table.history_weights
    own[:, Column.NOISE_WEIGHTS : Column.NOISE_WEIGHTS + table.noise_weights.shape[1]] = table.noise_weights
    own[:, Column.HISTORY_INDEX] = np.arange(n) % HISTORY
    for age in range(1, kept):
        own[: n - age, Column.KEEPS_STORED] += table.history_weights[age:, age] != 0
    own[:, Column.KEEPS_STORED] = own[:, Column.KEEPS_STORED] > 0
    own[:, Column.NOISE_INDEX] = (drawn - 1) % DRAWS
    own[:, Column.GUIDANCE] = table.guidance
    own[:, Column.GUIDANCE_RESCALE] = np.where(guided, guidance_rescale, 0)
    if blends:
        own[:, Column.BLENDS] = np.append(table.step[1:] != table.step[:-1], True)
        own[:, Column.KEPT_SIGNAL], own[:, Column.KEPT_NOISE] = table.state_signal[1:], table.state_noise[1:]
        if to_the_end:
            own[-1, [Column.KEPT_SIGNAL, Column.KEPT_NOISE]] = 1, 0

    before = rows[:-2]  # the rows that an evaluation comes after
    before[:, Column.NEXT_INPUT_SCALE] = table.input_scale
    before[:, Column.NEXT_TIMESTEP] = table.timesteps
    runs = NextRows.UNCONDITIONAL * (unconditional != 0) + NextRows.THIRD * (third != 0)
    before[:, Column.NEXT_ROWS] = NextRows.CONDITIONAL + runs
    before[:, Column.NEXT_DRAW] = -1 if host_draws else np.where(table.draws_noise, drawn - 1, -1)
    rows[-2:, Column.NEXT_DRAW] = -1
    return rows.astype(np.float32)


def unchanged_row(row: NDArray[np.float32]) -> NDArray[np.float32]:
    """The row whose step leaves the state as it is, and makes of it the next input that ``row`` makes."""
    unchanged = np.zeros_like(row)
    unchanged[[Column.ACTIVE, Column.STATE_WEIGHT]] = 1
    unchanged[Column.NEXT_INPUT_SCALE :] = row[Column.NEXT_INPUT_SCALE :]
    return unchanged


def guidance_shares(
    guidance: Floats, image_guidance_scale: float | None, skip_scales: Sequence[float] | None
) -> tuple[Floats, Floats, Floats]:
    """What the conditional, the unconditional and the third row are multiplied by in m, for each evaluation."""
    if image_guidance_scale is not None:
        both = np.where(guidance != 1, image_guidance_scale, 1.0)
        return guidance, 1 - both, both - guidance
    skip = np.zeros(len(guidance)) if skip_scales is None else np.asarray(skip_scales, np.float64)
    return guidance + skip, 1 - guidance, -skip
