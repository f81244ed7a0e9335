"""A run's files: ``results.json``, ``report.md``, ``report.html`` and plots in one folder."""

from __future__ import annotations

from pathlib import Path

import msgspec

from ..runtime.errors import OutputError
from .figures import cold, cold_ratio, sides, warm, warm_ratio
from .plots import plots
from .report_html import html
from .report_markdown import markdown
from .results import Failure, Results, write_results

RESULTS_NAME = "results.json"


def make_folder(out: Path) -> None:
    """Make the folder: before the work, not after it.

    Raises:
        OutputError: it cannot be made.
    """
    try:
        out.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise OutputError(f"--out {out}", received=error.strerror, expected="a folder to write to") from None


def write_report(results: Results, out: Path) -> None:
    """Write everything, the results first."""
    write_results(results, out / RESULTS_NAME)
    drawn = plots(results)
    for plot in drawn:
        (out / f"{plot.name}.svg").write_text(plot.svg, encoding="utf-8")
    (out / "report.md").write_text(markdown(results, drawn), encoding="utf-8")
    (out / "report.html").write_text(html(results, drawn), encoding="utf-8")


def json_line(results: Results, out: Path) -> str:
    """The headline's figures; all samples are in the file that it names."""
    figures = {
        side: {
            "warm": warm(results, side),
            "warm_ratio": warm_ratio(results, side),
            "cold": cold(results, side),
            "cold_ratio": cold_ratio(results, side),
        }
        for side in sides(results)
    }
    line = {
        "schema_version": results.schema_version,
        "results": str(out / RESULTS_NAME),
        "partial": results.partial,
        "failures": len(results.of(Failure)),
        "sides": figures,
    }
    return msgspec.json.encode(line).decode()
