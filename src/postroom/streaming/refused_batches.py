"""The records of refused batches, sent again one by one: what the broker says then is said of this record."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from postroom.libs.exceptions import QueueFullError
from postroom.streaming.open_records import NO_REPORT, not_sent_alone
from postroom.streaming.queue_emptying import EMPTYING_POLL_S, NO_MORE_REPORTS_S

if TYPE_CHECKING:
    from postroom.streaming.client_parts import ClientParts
    from postroom.streaming.open_records import Taken
    from postroom.streaming.publisher import Report
    from postroom.streaming.queue_emptying import QueueEmptying

# How long a broker may take for one record that is sent alone.
_ALONE_S = 5.0


class RefusedBatches:
    """Sends the suspects of the shutter alone. For the poll thread, inside `emptied_queue`."""

    def __init__(self, parts: ClientParts, emptying: QueueEmptying) -> None:
        self._life = parts.life
        self._records = parts.records
        self._shutter = parts.shutter
        self._reports = parts.reports
        self._polling = parts.polling
        self._clock = parts.clock
        self._log = parts.log
        self._emptying = emptying

    def send_alone(self) -> None:
        """Send the records of refused batches again, each in a batch of its own, and wait for their reports."""
        producer = self._life.begin_other()
        suspects, self._shutter.suspects = sorted(self._shutter.suspects, key=lambda refused: refused[0].number), []
        self._log.warning("batch_refused", operation="publish", count=len(suspects), error=suspects[0][2])
        numbers = [refused[0].number for refused in suspects]
        self._reports.alone = frozenset(numbers)
        told: list[tuple[Taken, Report]] = []
        for refused in suspects:
            try:
                report = self._reports.produce(producer, refused[0])
            except QueueFullError:
                report = not_sent_alone(refused)
            if report is not None:
                told.append((refused[0], report))
        self._polling.settle_all(told)
        self._wait_for_answers(producer, numbers)
        self._life.end_other()

    def _wait_for_answers(self, producer: Any, numbers: list[int]) -> None:
        """Poll until each of these records is reported; give up those for which no answer comes, or none is wanted."""
        open_now = self._records.by_number
        left, since = numbers, self._clock.monotonic()
        given_up = False
        while left := [number for number in left if number in open_now]:
            before = self._records.left
            with self._polling.lock:
                self._polling.poll_by(producer.poll, EMPTYING_POLL_S)
                self._polling.poll(0.0)
            now = self._clock.monotonic()
            if self._records.left != before:
                since = now
            if not given_up and (self._shutter.fatal or self._emptying.is_asked_for or now - since > _ALONE_S):
                given_up, since = True, now
                self._life.begin_purge(producer, in_flight=True)
            elif given_up and now - since > NO_MORE_REPORTS_S:
                self._polling.settle_all([(taken, NO_REPORT) for number in left if (taken := open_now.get(number))])
