"""From rounds to a table: medians, ranges, and ratios that are taken within each round."""

from __future__ import annotations

from statistics import median
from typing import TYPE_CHECKING

import msgspec

if TYPE_CHECKING:
    from collections.abc import Sequence

    from benchmarks.rounds import Round
    from benchmarks.ways import Way


class Span(msgspec.Struct, frozen=True):
    """The median of several rounds, with the lowest and the highest."""

    median: float
    low: float
    high: float

    @classmethod
    def of(cls, values: Sequence[float]) -> Span:
        """Return the span of at least one value."""
        return cls(median(values), min(values), max(values))

    def text(self, digits: int = 2) -> str:
        """Return it as `3.1 (2.9-3.4)`."""
        return f"{self.median:,.{digits}f} ({self.low:,.{digits}f}-{self.high:,.{digits}f})"


class Row(msgspec.Struct, frozen=True):
    """One way in the table. Ratios are of CPU per event; None where the other way was not measured.

    `to_raw` and `to_fastavro` compare with those ways sending the same headers; the two `_bare` ones with those
    ways sending none, whatever this one sends.
    """

    name: str
    title: str
    header: str
    cpu_us: Span
    events_per_s: Span
    to_raw: Span | None
    to_fastavro: Span | None
    to_raw_bare: Span | None
    to_fastavro_bare: Span | None


def rows_of(rounds: Sequence[Round], ways: Sequence[Way]) -> list[Row]:
    """Return a row for each way."""
    return [_row(rounds, way) for way in ways]


def _row(rounds: Sequence[Round], way: Way) -> Row:
    figures = [one.ways[way.name] for one in rounds]
    suffix = "+ce_id" if way.with_id else ""
    return Row(
        name=way.name,
        title=way.title,
        header="ce_id" if way.with_id else "none",
        cpu_us=Span.of([one.cpu_us for one in figures]),
        events_per_s=Span.of([1e6 / one.wall_us for one in figures]),
        to_raw=_ratio(rounds, way.name, f"raw{suffix}"),
        to_fastavro=_ratio(rounds, way.name, f"fastavro{suffix}"),
        to_raw_bare=_ratio(rounds, way.name, "raw"),
        to_fastavro_bare=_ratio(rounds, way.name, "fastavro"),
    )


def _ratio(rounds: Sequence[Round], name: str, other: str) -> Span | None:
    """Pair the two ways round by round: what slowed one of them down often slowed the other down too."""
    if any(other not in one.ways for one in rounds):
        return None
    return Span.of([one.ways[name].cpu_us / one.ways[other].cpu_us for one in rounds])


def table(rows: Sequence[Row]) -> str:
    """Return the rows as a Markdown table."""
    head = (
        "| way | header | CPU us per event | thousand events/s | / raw, same headers | / fastavro, same headers "
        "| / raw, no header | / fastavro, no header |\n|---|---|---|---|---|---|---|---|"
    )
    lines = [
        f"| {row.title} | {row.header} | {row.cpu_us.text()} | {row.events_per_s.median / 1_000:.0f} "
        f"({row.events_per_s.low / 1_000:.0f}-{row.events_per_s.high / 1_000:.0f}) | {_text(row.to_raw)} "
        f"| {_text(row.to_fastavro)} | {_text(row.to_raw_bare)} | {_text(row.to_fastavro_bare)} |"
        for row in rows
    ]
    return "\n".join((head, *lines))


def step_table(rounds: Sequence[Round]) -> str:
    """Return the single steps as a Markdown table."""
    lines = [f"| {name} | {Span.of([one.steps_us[name] for one in rounds]).text()} |" for name in rounds[0].steps_us]
    return "\n".join(("| step | CPU us per call |\n|---|---|", *lines))


def _text(span: Span | None) -> str:
    return "" if span is None else span.text()
