"""A run from its plan to the files of its report, on a terminal."""

from __future__ import annotations

import sys
from collections.abc import Sequence
from pathlib import Path

from rich.console import Console
from rich.progress import Progress, TaskID

from .prepare import Prepared
from .recorder import Recorder
from .report_files import RESULTS_NAME, json_line, write_report
from .report_terminal import say, show
from .results import write_results
from .run import amount, measure


def run_to_files(
    prepared: Prepared, out: Path, command: Sequence[str], console: Console, bar: Progress, task: TaskID
) -> int:
    """Measure into ``out``, which exists: what has been measured is there at any moment. Prints the main tables and,
    last on standard output, a line of JSON.

    Returns:
        The exit status: 0 if everything was measured, 1 if something failed, more if the run was interrupted.
    """
    bar.update(task, completed=0, total=amount(prepared.plan, prepared.suites))
    recorder = Recorder(
        seen=lambda record: say(console, record),
        keep=lambda records, during: write_results(prepared.results(command, records, during), out / RESULTS_NAME),
    )
    stopped = measure(prepared.plan, prepared.suites, prepared.missing, recorder)
    bar.stop()
    results = prepared.results(command, recorder.records, None if stopped is None else stopped.during)
    write_report(results, out)
    show(results)
    print(json_line(results, out), flush=True)
    if stopped is not None:
        print(f"stopped during {stopped.during}: what was measured is in {out}", file=sys.stderr)
        return stopped.status
    if recorder.failures:
        print(f"{len(recorder.failures)} failed: the rest is in {out}", file=sys.stderr)
        return 1
    return 0
