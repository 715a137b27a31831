"""Numbers and foreign texts as people read them on a terminal."""

from __future__ import annotations

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Mapping

_UNITS = ("KiB", "MiB", "GiB", "TiB")
_TIMES = ((86_400, "d", 3_600, "h"), (3_600, "h", 60, "min"), (60, "min", 1, "s"))


def size(count: float) -> str:
    """A number of bytes: `512 B`, `1.5 MiB`."""
    if count < 1024:
        return f"{count:,.0f} B"
    for unit in _UNITS:
        count /= 1024
        if count < 1024 or unit == _UNITS[-1]:
            break
    return f"{count:,.1f} {unit}"


def duration(seconds: float | None) -> str:
    """A time in its two largest units: `0.4 s`, `42 s`, `3 min 5 s`, `2 h 10 min`, `3 d 4 h`; `-` for none."""
    if seconds is None:
        return "-"
    if seconds < 10:
        return f"{max(0.0, seconds):.1f} s"
    whole = int(seconds)
    for large, large_name, small, small_name in (
        (86_400, "d", 3_600, "h"),
        (3_600, "h", 60, "min"),
        (60, "min", 1, "s"),
    ):
        if whole >= large:
            rest = whole % large // small
            return f"{whole // large:,} {large_name}" + (f" {rest} {small_name}" if rest else "")
    return f"{whole} s"


def many(count: int, what: str) -> str:
    """A number of things: `1 slot`, `1,200 records`."""
    return f"{count:,} {what}{'' if count == 1 else 's'}"


def counts(numbers: Mapping[str, int]) -> str:
    """Names with their numbers: `user_events 1,200, orders 3`."""
    return ", ".join(f"{printable(name)} {number:,}" for name, number in numbers.items())


def printable(text: str) -> str:
    """`text` without anything that could command a terminal: what others wrote is shown, not obeyed."""
    return "".join(char if char.isprintable() else "?" for char in text)
