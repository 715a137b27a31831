"""The speed limit: a token bucket that threads and tasks share in the order in which they came.

The bucket holds up to `burst` tokens and gains `events_per_second` of them each second; an event takes one.
Who finds none reserves the moment at which his token will be there and sleeps until then: the level
goes below zero by one for each reservation, so the next one is later by 1/rate. Nobody is woken to compete with
others, the order is that of the reservations, and a wait that cannot end in time is known at once.

What holds: the moments at which tokens are given, taken over any stretch of t seconds, are at most
`burst + events_per_second * t`. A caller who is woken late by the operating system (about 0.06 ms on Linux) comes
late, but does not delay the others: the schedule does not shift. Only a burst worth less time than that
lateness (burst=1 at 50,000/s) costs some of the rate, and never exceeds it.

Only the monotonic clock is read; the time of day may jump as it likes.
"""

from __future__ import annotations

import math
import threading
import time
from bisect import insort
from operator import attrgetter
from typing import TYPE_CHECKING

from postroom.libs.clock import SYSTEM_CLOCK
from postroom.libs.exceptions import ConfigurationError

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable

    from postroom.libs.clock import Clock

SLOWEST_PER_SECOND = 1e-6
FASTEST_PER_SECOND = 1e9

# A token that is there but for the rounding of floats counts as there. The rest stays as a debt in the level,
# so the tolerance does not add up.
_WHOLE_TOKEN = 1.0 - 1e-9


class _Place:
    """A reserved moment, `at`, in monotonic seconds; `number` counts the reservations."""

    __slots__ = ("at", "number")

    def __init__(self, at: float, number: int) -> None:
        self.at = at
        self.number = number


_by_number = attrgetter("number")


class RateLimiter:
    """Lets through `events_per_second` events a second, and `burst` of them at once after a pause.

    `events_per_second=None` is no limit: every acquire succeeds at once. `burst=None` is one second's
    worth, at least 1. Safe with threads and with tasks of any event loop, all in one queue. After a fork,
    make a new one in the child.

    Raises ConfigurationError for a rate or burst that cannot be one.

    A call costs about 0.06 us without a limit and 0.3 us with one (CPython 3.11).
    """

    __slots__ = (
        "_burst",
        "_clock",
        "_free",
        "_full",
        "_lock",
        "_monotonic",
        "_next_number",
        "_rate",
        "_sleep_async",
        "_tokens",
        "_updated",
    )

    def __init__(
        self,
        events_per_second: float | None = None,
        burst: int | None = None,
        clock: Clock = SYSTEM_CLOCK,
        *,
        sleep_async: Callable[[float], Awaitable[None]] | None = None,
    ) -> None:
        self._rate = _checked_rate(events_per_second)
        self._burst = _checked_burst(burst, self._rate)
        self._clock = clock
        # Straight to the source where that is the same: 0.05 us less on the way of every event.
        self._monotonic = time.monotonic if clock is SYSTEM_CLOCK else clock.monotonic
        self._sleep_async = sleep_async or _sleep_on_the_loop
        self._lock = threading.Lock()
        self._full = float(self._burst)
        self._tokens = self._full
        self._updated = clock.monotonic()
        self._free: list[_Place] = []  # places given back whose moment is still to come, by number
        self._next_number = 0

    @property
    def events_per_second(self) -> float | None:
        """The rate; None is no limit."""
        return self._rate

    @property
    def burst(self) -> int:
        """How many events may pass at once after a pause; 0 without a limit, where it means nothing."""
        return self._burst

    def acquire(self, timeout: float = 0.0) -> bool:
        """Take a token: True once it is there, False when it will not be there within `timeout` seconds.

        With the default the call never waits. A False comes at once and takes nothing. When the wait is
        interrupted (KeyboardInterrupt), the place is given back as in `acquire_async`.
        """
        rate = self._rate
        if rate is None:
            return True
        with self._lock:
            # `_refilled` once more, in place: this is the way of every event, and two calls cost 0.15 us.
            now = self._monotonic()
            tokens = self._tokens + (now - self._updated) * rate
            if tokens > self._full:  # noqa: PLR1730  min() costs 0.07 us more
                tokens = self._full
            self._updated = now
            if tokens >= _WHOLE_TOKEN:
                self._tokens = tokens - 1.0
                return True
            self._tokens = tokens
            place = self._reserve(now, timeout)
        if place is None:
            return False
        try:
            # Again until it is true: a clock may sleep too short by a rounding.
            while (rest := place.at - self._monotonic()) > 0:
                self._clock.sleep(rest)
        except BaseException:
            self._give_back(place)
            raise
        return True

    async def acquire_async(self, timeout: float | None = None) -> bool:  # noqa: ASYNC109  it says no at once
        """Take a token like `acquire()`, without blocking the event loop; None waits as long as it takes.

        A task that is cancelled while it waits gives its place back: when it was the last in the queue, its
        token returns to the bucket; otherwise the next newcomer gets the place (before those who wait
        already, whose moments stay as they are). A place that nobody has taken when its moment comes is lost:
        after a cancellation there may be one event less than the rate allows, never one more.
        """
        if self._rate is None:
            return True
        with self._lock:
            now = self._monotonic()
            tokens = self._refilled(now)
            if tokens >= _WHOLE_TOKEN:
                self._tokens = tokens - 1.0
                return True
            place = self._reserve(now, math.inf if timeout is None else timeout)
        if place is None:
            return False
        try:
            while (rest := place.at - self._monotonic()) > 0:
                await self._sleep_async(rest)
        except BaseException:
            self._give_back(place)
            raise
        return True

    def retry_after(self) -> float:
        """Seconds until a newcomer could have a token, if nobody else comes before; 0.0 when one is there."""
        if self._rate is None:
            return 0.0
        with self._lock:
            now = self._monotonic()
            if self._refilled(now) >= _WHOLE_TOKEN:
                return 0.0
            return self._next_moment(now) - now

    def charge(self) -> None:
        """Take a token as a debt, without waiting: what passes anyway still uses up the rate of the others.

        The debt ends at one burst below zero, so that a flood of such events delays the others by at most
        the time of one burst and cannot shut them out.
        """
        if self._rate is None:
            return
        with self._lock:
            tokens = self._refilled(self._monotonic())
            self._tokens = max(tokens - 1.0, min(tokens, -self._full))

    def _reserve(self, now: float, timeout: float) -> _Place | None:
        """A place for a newcomer who found no token; None, and nothing taken, when it comes too late.

        The lock is held, the level is that of `now`.
        """
        at = self._next_moment(now)
        # Written so that a timeout that is not a number is a no.
        if not at - now <= timeout:
            return None
        if self._free:
            return self._free.pop(0)
        self._tokens -= 1.0
        place = _Place(at, self._next_number)
        self._next_number += 1
        return place

    def _refilled(self, now: float) -> float:
        """The level at `now`, also written down. The lock is held."""
        assert self._rate is not None
        tokens = self._tokens + (now - self._updated) * self._rate
        self._updated = now
        self._tokens = tokens = min(tokens, self._full)
        return tokens

    def _next_moment(self, now: float) -> float:
        """When the next newcomer would be served, with the level below one token. The lock is held."""
        assert self._rate is not None
        while self._free and self._free[0].at <= now:
            self._free.pop(0)
        if self._free:
            return self._free[0].at
        return now + (1.0 - self._tokens) / self._rate

    def _give_back(self, place: _Place) -> None:
        """Let others have `place`, if its moment is still to come."""
        with self._lock:
            if place.at <= self._monotonic():
                return  # others may have been let through since, on the strength of this token being used
            insort(self._free, place, key=_by_number)
            # From the end of the queue backwards, tokens return to the bucket. In the middle they must not: those
            # behind keep their moments, and a newcomer put behind them by one token less would meet the last.
            while self._free and self._free[-1].number == self._next_number - 1:
                self._free.pop()
                self._next_number -= 1
                self._tokens += 1.0


async def _sleep_on_the_loop(seconds: float) -> None:
    import asyncio  # only for those who wait on a loop, and they have it loaded

    await asyncio.sleep(seconds)


def _checked_rate(events_per_second: object) -> float | None:
    if events_per_second is None:
        return None
    if isinstance(events_per_second, (int, float)) and not isinstance(events_per_second, bool):
        if SLOWEST_PER_SECOND <= events_per_second <= FASTEST_PER_SECOND:
            return float(events_per_second)
        found = "out of range"
    else:
        found = f"a {type(events_per_second).__name__}"
    raise ConfigurationError(
        f"rate limit: events_per_second is {found}",
        remedy=f"give a number from {SLOWEST_PER_SECOND:g} to {FASTEST_PER_SECOND:g}, or None for no limit",
    )


def _checked_burst(burst: object, rate: float | None) -> int:
    if burst is None:
        return 0 if rate is None else max(1, math.floor(rate))
    if isinstance(burst, int) and not isinstance(burst, bool) and 1 <= burst <= FASTEST_PER_SECOND:
        if rate is None:
            raise ConfigurationError(
                "rate limit: burst is set, but events_per_second is not: without a limit there is no burst",
                remedy="set events_per_second too, or leave burst out",
            )
        return burst
    found = "out of range" if isinstance(burst, int) and not isinstance(burst, bool) else type(burst).__name__
    raise ConfigurationError(
        f"rate limit: burst is {found}",
        remedy=f"give a whole number from 1 to {FASTEST_PER_SECOND:g}, or None for one second's worth",
    )
