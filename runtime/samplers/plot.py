"""A picture of schedules: sigma over the steps of a run."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import numpy as np

from ..errors import MissingDependencyError, OutputError
from .table import SamplerTable


def plot(tables: Sequence[SamplerTable], path: Path) -> None:
    """Draws the sigma before every step of each table, on a logarithmic axis, into a picture at ``path``.

    Raises:
        MissingDependencyError: matplotlib is not installed.
        OutputError: the folder does not exist, is not writable, or the suffix is no picture format.
    """
    try:
        from matplotlib.figure import Figure  # the object interface: no display, no global state
    except ModuleNotFoundError:
        raise MissingDependencyError(
            "a plot needs the plot extra",
            received="no module matplotlib",
            remedy="install it: pip install 'latentrt[plot]'",
        ) from None
    figure = Figure(figsize=(8, 5), layout="constrained")
    axes = figure.add_subplot()
    for table in tables:
        first = np.concatenate([[True], np.diff(table.step) > 0])  # the first evaluation of each step
        sigmas = table.sigmas[:-1][first]
        axes.plot(np.arange(len(sigmas)), sigmas, marker=".", label=f"{table.sampler}, {table.schedule}")
    axes.set(yscale="log", xlabel="step", ylabel="sigma before the step")
    axes.grid(alpha=0.3)
    axes.legend()
    try:
        figure.savefig(path)
    except (OSError, ValueError) as error:
        raise OutputError(
            "the plot cannot be written",
            received=f"{path}: {error}",
            expected="a .png, .svg or .pdf in a writable folder",
        ) from None
