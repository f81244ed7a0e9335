"""``report.html``: one file that needs nothing else: style, plots and pictures are inside."""

from __future__ import annotations

import base64
import io
import shlex
from collections.abc import Sequence
from html import escape
from pathlib import Path

import numpy as np
from PIL import Image

from .baselines import OURS, REFERENCE
from .figures import title
from .plots import Plot
from .report_markdown import caption, warnings
from .results import Picture, Results
from .suites.quality import pixels_from_png
from .table import Table
from .tables import all_tables, headline

#: By how much differences are amplified in the pictures of them, so that they can be seen at all.
AMPLIFIED = 16


def html(results: Results, drawn: Sequence[Plot]) -> str:
    """The whole report."""
    style = (Path(__file__).parent / "report.css").read_text(encoding="utf-8")
    ours = title(results, OURS)
    parts = [
        f"<h1>{escape(ours)}: {escape(results.subject.bundle)}</h1>",
        _table(headline(results), ours),
        f'<p class="note">{escape(caption(results))}</p>',
        *(f'<p class="warning">{escape(text.replace("**", ""))}</p>' for text in warnings(results)),
        *(f"<figure>{plot.svg}<figcaption>{escape(plot.caption)}</figcaption></figure>" for plot in drawn),
        _pictures(results),
        *(f"<h2>{escape(table.heading)}</h2>{_table(table, ours)}" for table in all_tables(results)),
        f"<h2>Reproduce</h2><pre>{escape(shlex.join(results.command))}</pre>",
    ]
    body = "\n".join(parts)
    return (
        '<!doctype html>\n<html lang="en"><head><meta charset="utf-8">'
        '<meta name="viewport" content="width=device-width, initial-scale=1">'
        f"<title>{escape(results.subject.bundle)}: benchmark</title>\n<style>\n{style}</style></head>\n"
        f"<body>\n{body}\n</body></html>\n"
    )


def difference_png(reference: str, other: str) -> str:
    """Absolute differences of two base64 PNGs, amplified, as a base64 PNG."""
    a, b = (pixels_from_png(png).astype(np.int16) for png in (reference, other))
    pixels = np.clip(np.abs(a - b) * AMPLIFIED, 0, 255).astype(np.uint8)
    buffer = io.BytesIO()
    Image.fromarray(pixels).save(buffer, "PNG")
    return base64.b64encode(buffer.getvalue()).decode()


def _table(table: Table, ours: str) -> str:
    columns = "".join(f"<th>{escape(name)}</th>" for name in table.columns)
    rows = "".join(
        f"<tr{' class=ours' if ours in row[:2] else ''}>{''.join(f'<td>{escape(cell)}</td>' for cell in row)}</tr>"
        for row in table.rows
    )
    note = f'<p class="note">{escape(table.note)}</p>' if table.note else ""
    return f'<div class="scroll"><table><thead><tr>{columns}</tr></thead><tbody>{rows}</tbody></table></div>{note}'


def _pictures(results: Results) -> str:
    """A row for each call: the reference, then every side with what differs below it."""
    found = results.of(Picture)
    rows = []
    of_same: dict[tuple[str, str, int], dict[str, str]] = {}
    for picture in found:
        of_same.setdefault((picture.case, picture.prompt, picture.image), {})[picture.side] = picture.png
    for (_, prompt, _), drawn in of_same.items():
        if REFERENCE not in drawn:
            continue
        cells = [_picture(drawn[REFERENCE], f"{prompt}: {title(results, REFERENCE)}")]
        for side, png in drawn.items():
            if side != REFERENCE:
                cells.append(_picture(png, title(results, side), difference_png(drawn[REFERENCE], png)))
        rows.append(f"<div>{''.join(cells)}</div>")
    if not rows:
        return ""
    note = f"Of large ones the middle. Below each: its difference from the reference, {AMPLIFIED} times amplified."
    heading = f'<h2>Pictures from identical initial latents</h2><p class="note">{note}</p>'
    return f"{heading}<div class=pictures>{''.join(rows)}</div>"


def _picture(png: str, text: str, difference: str | None = None) -> str:
    images = [(png, text)] + ([] if difference is None else [(difference, f"difference x{AMPLIFIED}")])
    shown = "".join(f'<img src="data:image/png;base64,{data}" alt="{escape(alt)}">' for data, alt in images)
    return f"<figure>{shown}<figcaption>{escape(text)}</figcaption></figure>"
