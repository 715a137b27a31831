"""A publisher that keeps its records in memory: for tests of code that publishes, and of the pipeline itself."""

from __future__ import annotations

import threading
from collections import deque
from typing import TYPE_CHECKING

from postroom.libs.event import FailedReason
from postroom.libs.exceptions import QueueFullError
from postroom.streaming.delivery import DELIVERED, Action, Decision
from postroom.streaming.publisher import OnDone, Report

if TYPE_CHECKING:
    from postroom.libs.event import Record

_GIVEN_UP = Decision(Action.HOLD, FailedReason.KAFKA_UNAVAILABLE)


class MemoryPublisher:
    """Takes every record into `records` and reports it as delivered at once, unless told otherwise.

    `script` holds what happens to the next records, one entry each: a `Report` that is given instead, or None for a
    full queue. With `holding = True` reports wait until `release()`. A topic has one partition here, and its offsets
    count from 0.
    """

    def __init__(self) -> None:
        self.records: list[Record] = []
        self.script: deque[Report | None] = deque()
        self.holding = False
        self._held: list[tuple[Record, OnDone]] = []
        self._offsets: dict[str, int] = {}
        self._lock = threading.RLock()

    def start(self) -> None:
        """Do nothing: it is always ready."""

    def publish(self, record: Record, on_done: OnDone) -> None:
        """Take the record, or do what the script says next."""
        with self._lock:
            if self.script:
                report = self.script.popleft()
                if report is None:
                    raise QueueFullError("the queue of unacknowledged records is full")
            elif self.holding:
                self._held.append((record, on_done))
                return
            else:
                report = self._deliver(record)
        on_done(report)

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
        """Say whether there is room: always, unless the script says the queue is full and nobody would wait."""
        return timeout_s > 0

    def in_flight(self) -> int:
        """Return the number of held records."""
        return len(self._held)

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
        """Give up what is held."""
        del timeout_s
        self.purge()
