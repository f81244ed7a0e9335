"""Figures of a report, computed from the samples of its results."""

from __future__ import annotations

from collections.abc import Sequence

from .baselines import OURS, REFERENCE
from .peaks import highest
from .results import Absent, Bound, ColdStart, Loaded, LoadRun, Peaks, Present, Results, Run
from .statistics import Estimate, Noise, Summary, encloses, median, noise, paired_ratio, summary
from .workload import Workload

#: Parts of a call, in order; ``encode`` (the PNG files) comes on top. What they leave of the whole is ``other``.
STAGES = ("tokenize", "text", "prepare", "denoise", "decode", "postprocess", "encode")


def sides(results: Results) -> list[str]:
    """The sides that were loaded, ours first, as they were measured."""
    return list(dict.fromkeys(present.side for present in results.of(Present)))


def title(results: Results, side: str) -> str:
    """A side's name for readers."""
    named: list[Present | Absent] = [*results.of(Present), *results.of(Absent)]
    return next((record.title for record in named if record.side == side), side)


def measured(results: Results, side: str, case: str | None = None) -> list[Run]:
    """A side's measured runs of a case, the headline's by default, in the order they were made."""
    label = case or results.workload.label
    return [run for run in results.of(Run) if (run.side, run.case, run.phase) == (side, label, "measured")]


def warm(results: Results, side: str, case: str | None = None) -> Summary | None:
    """Percentiles of a side's warm calls in seconds."""
    runs = measured(results, side, case)
    return summary([run.seconds for run in runs]) if runs else None


def warm_ratio(results: Results, side: str, case: str | None = None) -> Estimate | None:
    """How many times longer a side took than LatentRT in the same round."""
    return _ratio(measured(results, OURS, case), measured(results, side, case))


def cold(results: Results, side: str) -> Estimate | None:
    """A side's cold start in seconds."""
    seconds = [start.seconds for start in results.of(ColdStart) if start.side == side]
    return median(seconds) if seconds else None


def cold_ratio(results: Results, side: str) -> Estimate | None:
    """How many times longer a side's cold start took than LatentRT's in the same round."""
    starts = results.of(ColdStart)
    return _ratio([start for start in starts if start.side == OURS], [start for start in starts if start.side == side])


def first_call(results: Results, side: str) -> float | None:
    """Seconds of the first call after loading."""
    label = results.workload.label
    calls = [r.seconds for r in results.of(Run) if (r.side, r.case, r.phase) == (side, label, "first")]
    return calls[0] if calls else None


def load_to_picture(results: Results, side: str) -> float | None:
    """Seconds from the start of loading to the first picture, in a process that has started."""
    first = first_call(results, side)
    loads = [loaded.seconds for loaded in results.of(Loaded) if loaded.side == side]
    return None if first is None or not loads else loads[0] + first


def stages(results: Results, side: str, case: str | None = None) -> dict[str, float]:
    """Median seconds of every stage that a side tells, and of the rest of its calls."""
    runs = measured(results, side, case)
    if not runs:
        return {}
    told = {
        name: median([run.stages.get(name, 0.0) for run in runs]).value for name in STAGES if name in runs[0].stages
    }
    inside = [name for name in told if name != "encode"]
    other = median([max(0.0, run.seconds - sum(run.stages.get(name, 0.0) for name in inside)) for run in runs])
    return {**told, "other": other.value}


def reference_noise(results: Results) -> Noise | None:
    """How steady the reference was; None where its runs are too few to tell."""
    runs = measured(results, REFERENCE)
    return noise([run.seconds for run in runs]) if encloses(50, len(runs)) else None


def cases(results: Results) -> list[str]:
    """All calls that were measured, the headline's first."""
    return list(dict.fromkeys(run.case for run in results.of(Run) if run.phase == "measured"))


def requests_per_second(load: LoadRun) -> float:
    """Of a load, until the last of its requests was done."""
    return len(load.requests) / max(end for _, _, end in load.requests)


def pictures_per_second(load: LoadRun, work: Workload) -> float:
    """The same in pictures, of which a request may be for several."""
    return work.images * requests_per_second(load)


def peaks(results: Results) -> Peaks | None:
    """The machine's peaks: the higher of those measured before and after everything else."""
    found = results.of(Peaks)
    return highest(found) if found else None


def bounds(results: Results) -> list[Bound]:
    """The bound of each stage: the later one where a higher peak was found."""
    return list({bound.stage: bound for bound in results.of(Bound)}.values())


def achieved(results: Results) -> list[tuple[Bound, float]]:
    """Each stage's bound and the median that LatentRT took for it."""
    taken = stages(results, OURS)
    return [(bound, taken[bound.stage]) for bound in bounds(results) if taken.get(bound.stage)]


def beaten(results: Results) -> list[str]:
    """Stages that took less than their bound, so that it cannot be one."""
    return [bound.stage for bound, taken in achieved(results) if taken < bound.seconds]


def _ratio(ours: Sequence[Run | ColdStart], theirs: Sequence[Run | ColdStart]) -> Estimate | None:
    """Over the rounds that both have."""
    a, b = ({run.round: run.seconds for run in runs} for runs in (ours, theirs))
    rounds = [i for i in a if i in b]
    return paired_ratio([a[i] for i in rounds], [b[i] for i in rounds]) if rounds else None
