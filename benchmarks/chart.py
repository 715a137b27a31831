"""The table as a picture: bars of CPU per event with their range, in plain SVG."""

from __future__ import annotations

from html import escape
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Sequence

    from benchmarks.report import Row

_LABELS, _BARS, _FIGURES = 540, 360, 110
_LINE, _TOP = 24, 44
_OURS, _THEIRS, _RANGE = "#c2410c", "#64748b", "#0f172a"


def svg(rows: Sequence[Row], *, ours: frozenset[str]) -> str:
    """Return an SVG picture of the rows; those named in `ours` stand out."""
    longest = max(row.cpu_us.high for row in rows)
    width, height = _LABELS + _BARS + _FIGURES, _TOP + _LINE * len(rows) + 12
    size = f'viewBox="0 0 {width} {height}" width="{width}" height="{height}"'
    heading = "CPU microseconds per event: median, and lowest to highest round"
    parts = [
        f'<svg xmlns="http://www.w3.org/2000/svg" {size} font-family="sans-serif" font-size="13" role="img">',
        "<title>CPU per event by way of publishing</title>",
        f'<rect width="{width}" height="{height}" fill="#ffffff"/>',
        f'<text x="{_LABELS}" y="24" fill="{_RANGE}">{heading}</text>',
    ]
    for number, row in enumerate(rows):
        parts += _bar(row, _TOP + number * _LINE, _BARS / longest, _OURS if row.name in ours else _THEIRS)
    return "\n".join((*parts, "</svg>", ""))


def _bar(row: Row, top: int, scale: float, colour: str) -> list[str]:
    middle = top + _LINE // 2
    end = _LABELS + row.cpu_us.median * scale
    low, high = (_LABELS + value * scale for value in (row.cpu_us.low, row.cpu_us.high))
    label = f"{row.title}, {'with ce_id' if row.header == 'ce_id' else 'no header'}"
    return [
        f'<text x="{_LABELS - 8}" y="{middle + 4}" text-anchor="end" fill="{_RANGE}">{escape(label)}</text>',
        f'<rect x="{_LABELS}" y="{top + 4}" width="{end - _LABELS:.1f}" height="{_LINE - 8}" fill="{colour}"/>',
        f'<line x1="{low:.1f}" x2="{high:.1f}" y1="{middle}" y2="{middle}" stroke="{_RANGE}" stroke-width="2"/>',
        f'<text x="{high + 8:.1f}" y="{middle + 4}" fill="{_RANGE}">{row.cpu_us.median:.1f}</text>',
    ]
