"""Reports from a small fixed result."""

from __future__ import annotations

import re
import xml.etree.ElementTree as ET

from latentrt.benchmarks.plots import plots
from latentrt.benchmarks.report_html import AMPLIFIED, difference_png, html
from latentrt.benchmarks.report_markdown import markdown, summary
from latentrt.benchmarks.results import Results
from latentrt.benchmarks.suites.quality import pixels_from_png
from latentrt.benchmarks.tables import all_tables, headline

from .small_results import png, results_with


def test_the_headline_has_every_side_with_its_ratio(results: Results) -> None:
    table = headline(results)
    assert [row[0] for row in table.rows] == ["Latentrt", "Diffusers"]
    assert table.rows[1][1:3] == ("301 ms", "3.00x (3.00 to 3.00)")
    assert table.rows[0][6] == "1 of 255"
    assert table.note == "OpenVINO fp32 is absent: not installed"


def test_every_table_is_rectangular(results: Results) -> None:
    tables = all_tables(results)
    assert len(tables) == 14
    for table in tables:
        assert {len(row) for row in table.rows} == {len(table.columns)}, table.heading


def test_markdown_says_what_to_be_careful_about() -> None:
    text = markdown(results_with(partial="throughput"), ())
    assert "**Partial**: the run was interrupted during throughput." in text
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
