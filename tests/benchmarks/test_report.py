"""Reports from a small fixed result."""

from __future__ import annotations

import io
import re
import xml.etree.ElementTree as ET
from typing import get_args

import msgspec
import pytest
from rich.console import Console

from latentrt.benchmarks.plots import plots
from latentrt.benchmarks.report_html import AMPLIFIED, difference_png, html
from latentrt.benchmarks.report_markdown import markdown, summary
from latentrt.benchmarks.report_terminal import rich_table
from latentrt.benchmarks.results import Bound, Memory, Peaks, Picture, Record, Results, Run
from latentrt.benchmarks.suites.quality import pixels_from_png
from latentrt.benchmarks.tables import all_tables, headline, percentiles, serving, stage_table, starting, switching
from latentrt.benchmarks.tables_costs import efficiency, limits, memory, overhead

from .small_results import WORKLOAD, png, results_with

SHADES = {"diffusers": 100, "latentrt": 103}


def test_the_headline_has_every_side_with_its_ratio(results: Results) -> None:
    table = headline(results)
    assert [row[0] for row in table.rows] == ["Latentrt", "Diffusers"]
    assert table.rows[1][1:3] == ("301 ms", "3.00x (3.00 to 3.00)")
    assert table.rows[0][6] == "1 of 255"
    assert table.note == "OpenVINO fp32 is absent: not installed"


def test_every_table_is_rectangular(results: Results) -> None:
    tables = all_tables(results)
    assert len(tables) == 19
    for table in tables:
        assert {len(row) for row in table.rows} == {len(table.columns)}, table.heading


def test_markdown_says_what_to_be_careful_about() -> None:
    text = markdown(results_with(partial="throughput"), ())
    assert "**Partial**: the run stopped during throughput." in text
    assert "**Partial**: not measured: diffusers 9 callers." in text
    assert "The machine was steady" in text
    assert "latentrt bench build/emoji --reference examples/emoji --out 'a report'" in text
    assert summary(results_with()) in markdown(results_with(), ())


def test_html_needs_nothing_else(results: Results) -> None:
    page = html(results, plots(results))
    references = re.findall(r'(?:src|href)="([^"]*)"', page)
    assert references
    assert all(reference.startswith(("data:image/png;base64,", "#")) for reference in references)
    assert "<script" not in page
    assert "prefers-color-scheme: dark" in page
    assert "@media print" in page
    assert page == html(results, plots(results))  # the same results give the same file


def test_a_run_that_stopped_anywhere_has_a_report(results: Results) -> None:
    kinds: list[type] = []
    for i, record in enumerate(results.records):
        if type(record) not in kinds:  # the first of its kind is the last that there is
            kinds.append(type(record))
            stopped = msgspec.structs.replace(results, partial="something", records=results.records[: i + 1])
            page = html(stopped, plots(stopped))
            assert "the run stopped during something" in page
    assert len(kinds) == len(get_args(Record))


def test_every_picture_of_a_call_is_beside_that_of_the_reference(results: Results) -> None:
    records = [Picture(side, "call", "a fox", png(value), i) for i in range(2) for side, value in SHADES.items()]
    page = html(msgspec.structs.replace(results, records=tuple(records)), ())
    assert page.count(png(SHADES["diffusers"])) == 2
    assert page.count(difference_png(*(png(SHADES[side]) for side in ("diffusers", "latentrt")))) == 2


def test_requests_under_load_are_told_in_pictures(results: Results) -> None:
    theirs = ("3.33", "445.0", "-", "590.0", "2")  # in turn, though they arrive together: 300 ms and 590 ms
    assert serving(results).rows[0] == ("1 callers", "Latentrt", "10.00", "100.0", "-", "100.0", "2")
    assert serving(results).rows[3] == ("5 requests a second", "Diffusers", *theirs)
    two = msgspec.structs.replace(results, workload=msgspec.structs.replace(WORKLOAD, images=2))
    assert [row[2] for row in serving(two).rows] == ["20.00", "20.00", "6.67", "6.67"]


def test_stages_are_told_with_what_they_leave(results: Results) -> None:
    assert stage_table(results).rows == (
        ("text", "1.0", "3.0"), ("denoise", "80.0", "240.0"), ("decode", "10.0", "30.0"), ("encode", "5.0", "15.0"),
        ("other", "9.4", "28.3"),
    )  # fmt: skip


def test_starts_are_told_beside_ours(results: Results) -> None:
    assert starting(results).rows == (
        ("Latentrt", "0.51 s", "", "0.40 s", "100 ms", "100 ms, 150 ms"),
        ("Diffusers", "1.51 s", "2.96x", "0.60 s", "300 ms", "300 ms, 450 ms"),
    )


def test_the_first_call_of_a_size_is_beside_the_next(results: Results) -> None:
    again = [Run("latentrt", WORKLOAD.label, "switch", 1, 0, 0.08, {}, 0)]
    rows = switching(msgspec.structs.replace(results, records=(*results.records, *again))).rows
    assert rows[0] == ("Latentrt", WORKLOAD.label, "100 ms", "80 ms")


def test_memory_of_a_gpu_has_columns_only_where_there_is_one(results: Results) -> None:
    assert memory(results).columns == ("", "after loading", "peak, from its start")
    assert memory(results).rows == (("Latentrt", "100 MB", "200 MB"), ("Diffusers", "100 MB", "600 MB"))
    on_gpu = Memory("latentrt", 10**8, 2 * 10**8, 3 * 10**9, 4 * 10**9)
    table = memory(msgspec.structs.replace(results, records=(on_gpu,)))
    assert table.columns[3:] == ("GPU, after loading", "GPU, peak of one call")
    assert table.rows[0][3:] == ("3000 MB", "4000 MB")


def test_waits_for_the_device_are_told_by_step(results: Results) -> None:
    assert overhead(results).rows[-2:] == (
        ("buffers that a warm call takes from the device", "0"),
        ("waits for the device, per step", "1.25"),
    )


def test_whole_calls_are_set_beside_the_peak_and_the_bound(results: Results) -> None:
    ours, theirs = efficiency(results).rows
    assert ours == ("Latentrt", "20 GFLOP/s", "10%", "40%")  # 2 GFLOP in 100 ms, of 200 GFLOP/s and of 40 ms
    assert theirs[2:] == ("3%", "13%")


def test_a_bound_that_was_beaten_is_called_none(results: Results) -> None:
    assert limits(results).rows[0][-1] == "50%"
    assert "took less than" not in summary(results)
    slow = Peaks(1e11, "numpy", 3e10, 2)
    records = [
        msgspec.structs.replace(record, seconds=0.09) if isinstance(record, Bound) else record
        for record in (*results.records, slow)
    ]
    busy = msgspec.structs.replace(results, records=tuple(records))
    assert limits(busy).rows[0][-1] == "over 100%"
    assert "the measured peak was too low" in limits(busy).note
    assert "200 GFLOP/s in fp32 (numpy), copying 30.0 GB/s; when all was done, 100 GFLOP/s" in limits(busy).note
    assert "**denoise took less than the bound: the peak that was measured is too low" in summary(busy)
    assert "denoise: over 100% of its bound" in next(plot.svg for plot in plots(busy) if plot.name == "roofline")


def test_few_runs_have_no_intervals_and_no_noise() -> None:
    few = results_with(rounds=3)
    assert headline(few).rows[1][1:5] == ("301 ms", "3.00x", "1.51 s", "2.96x")
    assert "The reference's runs (3) are too few for intervals" in summary(few)
    (row, *_) = percentiles(few).rows
    assert row[2:8] == ("100.3", "-", "-", "-", "100.4", "-")
    assert len(plots(few)) == 6


@pytest.mark.parametrize("width", [120, 80, 60, 30])
def test_tables_fit_a_terminal_with_nothing_cut(width: int, results: Results) -> None:
    for table in (headline(results), *all_tables(results)):
        console = Console(width=width, record=True, file=io.StringIO())
        console.print(rich_table(table, width))
        shown = console.export_text()
        assert "\N{HORIZONTAL ELLIPSIS}" not in shown
        assert max(map(len, shown.splitlines())) <= width
    words = {word for table in (headline(results),) for row in table.rows for cell in row for word in cell.split()}
    console = Console(width=80, record=True, file=io.StringIO())
    console.print(rich_table(headline(results), 80))
    assert words <= set(console.export_text().split())


def test_text_of_others_cannot_become_markup(results: Results) -> None:
    page = html(results_with(partial="<img src=x>"), ())
    assert "<img src=x>" not in page


def test_every_plot_is_an_svg_with_a_caption(results: Results) -> None:
    drawn = plots(results)
    assert len(drawn) == 6
    for plot in drawn:
        assert plot.caption.endswith(".")
        assert ET.fromstring(plot.svg).tag.endswith("svg")
    assert [plot.name for plot in drawn] == ["stages", "distribution", "cold", "cases", "open-loop", "roofline"]


def test_differences_are_amplified() -> None:
    pixels = pixels_from_png(difference_png(png(100), png(103)))
    assert pixels.shape == (8, 16, 3)
    assert set(pixels.ravel().tolist()) == {3 * AMPLIFIED}
