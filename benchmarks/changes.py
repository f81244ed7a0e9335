"""What changed between two results, and whether it is more than chance."""

from __future__ import annotations

from dataclasses import dataclass

from .figures import measured, sides, title
from .results import ColdStart, Memory, Results, Run
from .statistics import Change, Estimate, change, median
from .table import Table


@dataclass(frozen=True)
class Difference:
    """One figure of one side, before and after; ``change`` is new over old, so above 1 is worse."""

    side: str
    what: str
    old: float
    new: float
    unit: str
    change: Change

    def regressed(self, limit: float) -> bool:
        """Whether it became worse by more than ``limit`` (0.05 is 5 %) and by more than chance."""
        return self.change.significant and self.change.ratio.value > 1 + limit


def differences(old: Results, new: Results) -> list[Difference]:
    """All figures that both results have."""
    found = []
    for side in sides(new):
        for what, first, second, unit in _samples(old, new, side):
            if first and second:
                changed = change(first, second)
                middles = median(first).value, median(second).value
                found.append(Difference(side, what, *middles, unit, changed))
        before, after = (next((m for m in results.of(Memory) if m.side == side), None) for results in (old, new))
        if before is not None and after is not None:
            found += _of_memory(side, "peak memory", before.peak_bytes, after.peak_bytes)
            found += _of_memory(side, "peak GPU memory", before.device_peak_bytes, after.device_peak_bytes)
    return found


def _of_memory(side: str, what: str, before: int, after: int) -> list[Difference]:
    """One figure without chance, if both results have it."""
    if not (before and after):
        return []
    ratio = after / before
    return [Difference(side, what, before, after, "MB", Change(Estimate(ratio, ratio, ratio)))]


def table_of(old: Results, new: Results, found: list[Difference], limit: float) -> Table:
    """The differences for readers."""
    rows = tuple(
        (
            title(new, entry.side),
            entry.what,
            _value(entry.old, entry.unit),
            _value(entry.new, entry.unit),
            _percent(entry.change.ratio),
            "worse" if entry.regressed(limit) else "changed" if entry.change.significant else "within chance",
        )
        for entry in found
    )
    notes = []
    if old.machine != new.machine or old.threads != new.threads:
        notes.append("The results are from different machines, systems, commits or numbers of threads.")
    if old.workload != new.workload:
        notes.append(f"The headline's calls differ: {old.workload.label}; {new.workload.label}.")
    notes += [f"One of them is partial: it stopped during {one.partial}." for one in (old, new) if one.partial]
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


def _percent(ratio: Estimate) -> str:
    return f"{ratio.value - 1:+.1%} ({ratio.low - 1:+.1%} to {ratio.high - 1:+.1%})"


def _value(value: float, unit: str) -> str:
    scale = {"ms": 1e3, "s": 1.0, "MB": 1e-6}[unit]
    return f"{value * scale:.{2 if unit == 's' else 1}f} {unit}"
