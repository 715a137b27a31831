"""A publisher that keeps its records in memory: for tests of code that publishes, and of the pipeline itself."""

from __future__ import annotations

import threading
from collections import deque
from typing import TYPE_CHECKING

from postroom.libs.event import FailedReason
from postroom.libs.exceptions import LifecycleError, QueueFullError
from postroom.streaming.delivery import DELIVERED, Action, Decision
from postroom.streaming.publisher import Condition, OnDone, Report

if TYPE_CHECKING:
    from postroom.libs.event import Record

_GIVEN_UP = Decision(Action.HOLD, FailedReason.KAFKA_UNAVAILABLE)


class MemoryPublisher:
    """Takes every record into `records` and reports it as delivered at once, unless told otherwise.

    `script` holds what happens to the next records, one entry each: a `Report` that is given instead, or None for a
    queue that has no room for that record, however long its caller waits. With `holding = True` reports wait until
    `release()`. A topic has one partition here, and its offsets count from 0.
    """

    def __init__(self) -> None:
        self.records: list[Record] = []
        self.script: deque[Report | None] = deque()
        self.holding = False
        self._held: list[tuple[Record, OnDone]] = []
        self._offsets: dict[str, int] = {}
        self._no_room_for: list[Record] = []
        self._has_room = True
        self._closed = False
        self._lock = threading.RLock()

    def start(self) -> None:
        """Do nothing: it is always ready."""

    def publish(self, record: Record, on_done: OnDone) -> None:
        """Take the record, or do what the script says next."""
        with self._lock:
            if self._closed:
                raise LifecycleError("this publisher is closed", remedy="make a new one")
            report = self._next_in_script(record)
            if report is None and self.holding:
                self._held.append((record, on_done))
                return
            report = report or self._deliver(record)
        on_done(report)

    def _next_in_script(self, record: Record) -> Report | None:
        self._has_room = not any(record is other for other in self._no_room_for)
        if self._has_room and self.script:
            report = self.script.popleft()
            if report is not None:
                return report
            self._has_room = False
            self._no_room_for.append(record)
        if not self._has_room:
            raise QueueFullError("the queue of unacknowledged records is full")
        return None

    def _deliver(self, record: Record) -> Report:
        offset = self._offsets.get(record.topic, 0)
        self._offsets[record.topic] = offset + 1
        self.records.append(record)
        return Report(DELIVERED, 0, offset)

    def release(self) -> None:
        """Deliver what was held, in order."""
        with self._lock:
            held, self._held = self._held, []
            reports = [(on_done, self._deliver(record)) for record, on_done in held]
        for on_done, report in reports:
            on_done(report)

    def serve(self) -> None:
        """Do nothing: reports are given where they arise."""

    def wait_for_room(self, timeout_s: float) -> bool:
        """Say at once whether there is room: not for the record that the script told so last."""
        del timeout_s
        return self._has_room

    def in_flight(self) -> int:
        """Return the number of held records."""
        return len(self._held)

    def condition(self) -> Condition:
        """Say that all is well: it is always connected, and its records have no age."""
        return Condition(connected=True, since_s=0.0, oldest_s=None, problem="")

    def flush(self, deadline_s: float) -> int:
        """Return the number of held records; nothing changes by waiting."""
        del deadline_s
        return len(self._held)

    def purge(self) -> None:
        """Report what was held as given up."""
        with self._lock:
            held, self._held = self._held, []
        for _, on_done in held:
            on_done(Report(_GIVEN_UP, detail="given up"))

    def close(self, timeout_s: float) -> None:
        """Give up what is held; nothing is taken any more."""
        del timeout_s
        self._closed = True
        self.purge()
