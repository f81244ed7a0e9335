"""The rows of the denoiser that an image takes: conditional, unconditional, and for two kinds of guidance a third.

Weights of the rows are the table's (``kernels.table_rows``); here is what they see.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from numpy.typing import NDArray

from ...kernels.table_rows import NextRows
from ..requests.guidance import SkipLayers
from ..samplers import SamplerTable


@dataclass(frozen=True)
class RowGroup:
    """One row of every image: its inputs ``[images, ...]``, whether it sees a picture, whether it leaves layers out."""

    rows: NextRows
    conditioning: Mapping[str, NDArray[Any]]
    sees_picture: bool = True
    skips_layers: bool = False


def row_groups(rows: Mapping[str, NDArray[Any]], images: int, *, edit: bool, skip: bool) -> list[RowGroup]:
    """The groups of a run.

    Args:
        rows: the denoiser's inputs ``[rows, ...]``: the unconditional rows if there are any, then the conditional ones.
        images: how many of each.
        edit: InstructPix2Pix (Brooks et al. 2023, arXiv:2211.09800): the third row is the picture without the prompt,
            and the unconditional one sees no picture.
        skip: skip-layer guidance: the third row is the conditional one without some of the denoiser's layers.
    """
    conditional = {name: value[-images:] for name, value in rows.items()}
    unconditional = {name: value[:images] for name, value in rows.items()}
    guided = len(next(iter(rows.values()))) > images
    groups = [RowGroup(NextRows.CONDITIONAL, conditional)]
    if guided:
        groups.append(RowGroup(NextRows.UNCONDITIONAL, unconditional, sees_picture=not edit))
    if edit and guided:
        groups.append(RowGroup(NextRows.THIRD, unconditional))
    if skip:
        groups.append(RowGroup(NextRows.THIRD, conditional, skips_layers=True))
    return groups


def planned_groups(groups: Sequence[RowGroup]) -> tuple[NextRows, ...]:
    """What a plan has room for: unconditional rows even for a run without, so that guidance needs no other plan."""
    rows = tuple(group.rows for group in groups)
    return (NextRows.CONDITIONAL, NextRows.UNCONDITIONAL) if rows == (NextRows.CONDITIONAL,) else rows


def skip_scales(skip: SkipLayers | None, table: SamplerTable) -> list[float]:
    """The scale of skip-layer guidance at each evaluation: 0 outside the steps between its start and stop."""
    if skip is None:
        return [0.0] * table.evaluations
    start, stop = skip.start * table.steps_run, skip.stop * table.steps_run
    return [skip.scale if start < step < stop else 0.0 for step in table.step.tolist()]
