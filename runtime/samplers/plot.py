"""A picture of schedules: sigma over the steps of a run."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from textwrap import fill

import numpy as np
from numpy.typing import NDArray

from ..errors import MissingDependencyError, OutputError
from .table import SamplerTable

LEGEND_WIDTH = 50  # characters
COLOURS = 10  # of matplotlib's cycle


def plot(tables: Sequence[SamplerTable], path: Path) -> None:
    """Draws the sigma before every step of each table, on a logarithmic axis, into a picture at ``path``.

    Tables whose sigmas are the same share a line.

    Raises:
        MissingDependencyError: matplotlib is not installed.
        OutputError: the folder does not exist, is not writable, or the suffix is no format of matplotlib.
    """
    try:
        from matplotlib.figure import Figure  # the object interface: no display, no global state
        from matplotlib.ticker import MaxNLocator
    except ModuleNotFoundError:
        raise MissingDependencyError(
            "a plot needs the plot extra",
            received="no module matplotlib",
            remedy="install it: pip install 'latentrt[plot]'",
        ) from None
    figure = Figure(figsize=(8, 5), layout="constrained")
    formats = figure.canvas.get_supported_filetypes()
    if path.suffix.lower().removeprefix(".") not in formats:
        raise OutputError("the plot cannot be written", received=path, expected=", ".join(f".{one}" for one in formats))
    axes = figure.add_subplot()
    for number, (names, sigmas) in enumerate(_lines(tables).items()):
        style = ("-", "--", ":")[number // COLOURS % 3]
        axes.plot(np.arange(len(sigmas)), sigmas, style, marker=".", label=fill(names, LEGEND_WIDTH))
    axes.set(yscale="log", xlabel="step", ylabel="sigma before the step")
    axes.xaxis.set_major_locator(MaxNLocator(integer=True))
    axes.grid(alpha=0.3)
    axes.legend(fontsize="small")
    try:
        figure.savefig(path)
    except OSError as error:
        reason = error.strerror or str(error)
        raise OutputError(
            "the plot cannot be written", received=f"{path}: {reason}", expected="a writable folder"
        ) from None


def _lines(tables: Sequence[SamplerTable]) -> dict[str, NDArray[np.float64]]:
    """The sigma before every step, by the samplers and schedules that have it."""
    names: dict[tuple[str, ...], dict[str, dict[str, None]]] = {}
    lines: dict[tuple[str, ...], NDArray[np.float64]] = {}
    for table in tables:
        first = np.concatenate([[True], np.diff(table.step) > 0])  # the first evaluation of each step
        sigmas = table.sigmas[:-1][first]
        same = tuple(f"{sigma:.2g}" for sigma in sigmas)  # as far as eyes can tell
        lines.setdefault(same, sigmas)
        names.setdefault(same, {}).setdefault(table.schedule, {})[table.sampler] = None
    return {
        "; ".join(f"{', '.join(samplers)}: {schedule}" for schedule, samplers in names[same].items()): sigmas
        for same, sigmas in lines.items()
    }
