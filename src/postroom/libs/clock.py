"""Time as an argument: components take a Clock, so that a test can own the hours."""

from __future__ import annotations

import time
from typing import TYPE_CHECKING, Protocol

if TYPE_CHECKING:
    from datetime import datetime


class Clock(Protocol):
    """Two readings and one wait; everything in postroom that knows the time has one of these."""

    def monotonic(self) -> float:
        """Seconds that never run backwards; only differences mean something."""
        ...

    def time_ms(self) -> int:
        """Milliseconds since 1970 in UTC, as the operating system believes; may jump."""
        ...

    def sleep(self, seconds: float) -> None:
        """Return after `seconds` seconds of this clock's time."""
        ...


class SystemClock:
    """The clock of the machine."""

    __slots__ = ()

    def monotonic(self) -> float:
        """Seconds since an arbitrary point, from the operating system's monotonic clock."""
        return time.monotonic()

    def time_ms(self) -> int:
        """Milliseconds since 1970 in UTC."""
        return time.time_ns() // 1_000_000

    def sleep(self, seconds: float) -> None:
        """Block this thread for `seconds` seconds."""
        time.sleep(seconds)


SYSTEM_CLOCK = SystemClock()


def rfc3339(moment: datetime, timespec: str = "milliseconds") -> str:
    """A moment in UTC as RFC 3339 has it, with Z; `timespec` as of `datetime.isoformat`."""
    return moment.isoformat(timespec=timespec).replace("+00:00", "Z")
