"""A clock that a test owns: time stands still until somebody moves it."""

from __future__ import annotations

import asyncio
import math
import threading
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Callable

_PATIENCE_S = 30.0  # real seconds after which a forgotten sleeper is an error instead of a hanging test
_NS = 1_000_000_000


class _Sleeper:
    """Somebody who waits for `due_ns`."""

    __slots__ = ("due_ns", "wake")

    def __init__(self, due_ns: int, wake: Callable[[], object]) -> None:
        self.due_ns = due_ns
        self.wake = wake


class ManualClock:
    """A `Clock` whose time moves only by `advance()`, or by `sleep()` itself when it is not `blocking`.

    Without `blocking`, `sleep(s)` moves the time on by `s` and returns at once: right for tests with one
    thread. With `blocking=True`, `sleep(s)` stops its thread until another one has advanced the clock that
    far: right for tests with several threads or tasks; `wait_for_sleepers(n)` says when they have all come
    to rest. Time is held in whole nanoseconds, so that a hundred steps of 0.01 s are exactly one second.
    Safe with threads.
    """

    def __init__(self, start_s: float = 1_000.0, *, time_ms: int = 1_767_225_600_000, blocking: bool = False) -> None:
        self._now_ns = round(start_s * _NS)
        self._wall_offset_ns = time_ms * 1_000_000 - self._now_ns
        self._blocking = blocking
        self._sleepers: list[_Sleeper] = []
        self._changed = threading.Condition()

    def monotonic(self) -> float:
        """Seconds on this clock; never run backwards."""
        return self._now_ns / _NS

    def time_ms(self) -> int:
        """Milliseconds since 1970 in UTC, as this clock believes."""
        return (self._now_ns + self._wall_offset_ns) // 1_000_000

    @property
    def sleepers(self) -> int:
        """How many threads and tasks are asleep on this clock now."""
        return len(self._sleepers)

    @property
    def next_due_s(self) -> float | None:
        """Seconds until the first sleeper is due; None when nobody sleeps."""
        with self._changed:
            due = min((sleeper.due_ns for sleeper in self._sleepers), default=None)
            return None if due is None else (due - self._now_ns) / _NS

    def advance(self, seconds: float) -> None:
        """Move the time on by `seconds` and wake everybody who is due, the earliest first."""
        if not 0 <= seconds < math.inf:
            raise ValueError("a clock advances by a finite number of seconds, zero or more")
        with self._changed:
            self._now_ns += round(seconds * _NS)
            self._wake_due()

    def jump_wall_clock(self, seconds: float) -> None:
        """Set the wall clock on or back by `seconds`; the monotonic time does not notice."""
        self._wall_offset_ns += round(seconds * _NS)

    def sleep(self, seconds: float) -> None:
        """Return after `seconds` of this clock's time; see the class for who moves it.

        Raises TimeoutError when a blocking sleep was not ended within 30 real seconds.
        """
        if self._moved_on_by_itself(seconds):
            return
        woken = threading.Event()
        sleeper = self._lie_down(seconds, woken.set)
        try:
            if not woken.wait(_PATIENCE_S):
                raise TimeoutError("nobody advanced the manual clock far enough for this sleeper")
        finally:
            self._get_up(sleeper)

    async def sleep_async(self, seconds: float) -> None:
        """Like `sleep()`, for a task: the event loop goes on meanwhile."""
        if self._moved_on_by_itself(seconds):
            await asyncio.sleep(0)
            return
        loop = asyncio.get_running_loop()
        woken = asyncio.Event()
        sleeper = self._lie_down(seconds, lambda: loop.call_soon_threadsafe(woken.set))
        try:
            await asyncio.wait_for(woken.wait(), _PATIENCE_S)
        finally:
            self._get_up(sleeper)

    def wait_for_sleepers(self, count: int) -> None:
        """Return once at least `count` threads and tasks are asleep on this clock.

        Raises TimeoutError after 30 real seconds. Not for use on an event loop whose tasks should fall asleep.
        """
        with self._changed:
            if not self._changed.wait_for(lambda: len(self._sleepers) >= count, _PATIENCE_S):
                raise TimeoutError(f"{len(self._sleepers)} of {count} sleepers came")

    def _moved_on_by_itself(self, seconds: float) -> bool:
        if self._blocking and seconds > 0:
            return False
        with self._changed:
            self._now_ns += max(0, math.ceil(seconds * _NS))
        return True

    def _lie_down(self, seconds: float, wake: Callable[[], object]) -> _Sleeper:
        with self._changed:
            # Rounded up: a sleep may be late, never early.
            sleeper = _Sleeper(self._now_ns + math.ceil(seconds * _NS), wake)
            self._sleepers.append(sleeper)
            self._changed.notify_all()
        return sleeper

    def _get_up(self, sleeper: _Sleeper) -> None:
        with self._changed:
            if sleeper in self._sleepers:
                self._sleepers.remove(sleeper)

    def _wake_due(self) -> None:
        due = sorted((s for s in self._sleepers if s.due_ns <= self._now_ns), key=lambda s: s.due_ns)
        for sleeper in due:
            self._sleepers.remove(sleeper)
            sleeper.wake()
