"""What changed between two results, and whether it is more than chance."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

from .figures import measured, sides, title
from .results import ColdStart, Memory, Results, Run
from .statistics import Change, Estimate, change, median
from .table import Table


@dataclass(frozen=True)
class FigureChange:
    """One figure of one side, before and after; ``change`` is new over old, so above 1 is worse. ``single``: it is not
    a median of runs, but one observation of each."""

    side: str
    what: str
    old: float
    new: float
    unit: str
    change: Change
    single: bool = False

    @property
    def too_few_runs(self) -> bool:
        """Whether there is no telling a change from chance."""
        return not self.single and self.change.significant is None

    def regressed(self, limit: float) -> bool:
        """Whether it became worse by more than ``limit`` (0.05 is 5 %): medians also by more than chance, single
        observations, which hardly vary (memory), by the limit alone."""
        return (self.single or bool(self.change.significant)) and self.change.ratio.value > 1 + limit

    def verdict(self, limit: float) -> str:
        """In words."""
        if self.too_few_runs:
            return "too few runs to tell"
        if self.regressed(limit):
            return "worse"
        if self.single:
            return "one observation of each"
        return "changed" if self.change.significant else "within chance"


def differences(old: Results, new: Results) -> list[FigureChange]:
    """All figures that both results have."""
    found = []
    for side in sides(new):
        for what, first, second, unit in _samples(old, new, side):
            if first and second:
                changed = change(first, second)
                middles = median(first).value, median(second).value
                found.append(FigureChange(side, what, *middles, unit, changed))
        before, after = (next((m for m in results.of(Memory) if m.side == side), None) for results in (old, new))
        if before is not None and after is not None:
            found += _of_memory(side, "peak memory", before.peak_bytes, after.peak_bytes)
            found += _of_memory(side, "peak GPU memory", before.device_peak_bytes, after.device_peak_bytes)
    return found


def _of_memory(side: str, what: str, before: int, after: int) -> list[FigureChange]:
    """One figure of a single process each, if both results have it."""
    if not (before and after):
        return []
    return [FigureChange(side, what, before, after, "MB", Change(Estimate(after / before)), single=True)]


def table_of(old: Results, new: Results, found: list[FigureChange], limit: float) -> Table:
    """The differences for readers."""
    rows = tuple(
        (
            title(new, entry.side),
            entry.what,
            _value(entry.old, entry.unit),
            _value(entry.new, entry.unit),
            _percent(entry.change.ratio),
            entry.verdict(limit),
        )
        for entry in found
    )
    notes = []
    if apart := _unlike(_setting(old), _setting(new)):
        notes.append(f"Not the same in both: {apart}.")
    if old.workload != new.workload:
        notes.append(f"The headline's calls differ: {old.workload.label}; {new.workload.label}.")
    notes += [f"One of them is partial: it stopped during {one.partial}." for one in (old, new) if one.partial]
    if any(entry.too_few_runs for entry in found):
        notes.append("To tell a change from chance, both need at least 6 runs.")
    columns = ("", "", "before", "after", "change (95 % interval)", "")
    return Table("Changes", columns, rows, " ".join(notes))


def _samples(old: Results, new: Results, side: str) -> list[tuple[str, list[float], list[float], str]]:
    cases = dict.fromkeys(run.case for run in new.of(Run) if run.phase == "measured")
    samples = [
        (case, *([run.seconds for run in measured(results, side, case)] for results in (old, new)), "ms")
        for case in cases
    ]
    starts = ([start.seconds for start in results.of(ColdStart) if start.side == side] for results in (old, new))
    return [*samples, ("cold start", *starts, "s")]  # type: ignore[list-item]  # two of each


def _setting(results: Results) -> dict[str, str]:
    """What a change may be due to, besides what was changed on purpose."""
    return {**results.machine, "threads": str(results.threads)}


def _unlike(old: Mapping[str, str], new: Mapping[str, str]) -> str:
    """The entries that differ: ``"threads (2, then 4)"``."""
    names = [name for name in {**old, **new} if old.get(name) != new.get(name)]
    return "; ".join(f"{name} ({old.get(name, 'none')}, then {new.get(name, 'none')})" for name in names)


def _percent(ratio: Estimate) -> str:
    value, *ends = (f"{one - 1:+.1%}" for one in (ratio.value, *(ratio.interval or ())))
    return f"{value} ({' to '.join(ends)})" if ends else value


def _value(value: float, unit: str) -> str:
    scale = {"ms": 1e3, "s": 1.0, "MB": 1e-6}[unit]
    return f"{value * scale:.{2 if unit == 's' else 1}f} {unit}"
