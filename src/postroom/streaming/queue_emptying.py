"""Emptying the client library's queue, so that every record is reported, whatever the brokers do.

Facts this file is built on (measured with librdkafka 2.16.0, kept by tests):
- A purge goes on for a moment after it has returned and may take records that were produced after it: the gate stays
  closed until that moment has passed.
- The library's threads are not waited for: one may be busy for long with the name of its broker.
- What comes back from the wire waits for its next try for `producer.retry_backoff_ms` at least, in the queue.
"""

from __future__ import annotations

import contextlib
import threading
from typing import TYPE_CHECKING, Any

from postroom.streaming.open_records import NO_REPORT, not_sent_alone

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    from postroom.streaming.client_parts import ClientParts

# How long a purge may still take records after it returned: under 1 ms in 200 tries, so this is ample.
_PURGE_SETTLES_S = 0.1
# A purge is repeated for what came back from the wire meanwhile. Not at every look: each is work that waits for the
# library's threads, and what of it is done after the gate has opened again would take records that came later.
_PURGE_AGAIN_S = 0.05
# After this long without any report, what a purge has not reported will not be reported.
NO_MORE_REPORTS_S = 1.0
EMPTYING_POLL_S = 0.01
_CHECK_S = 0.002


class QueueEmptying:
    """Empties the queue; `lock` is held by the one who does. `is_poll_thread` says whether the caller brings reports.

    `is_asked_for`: somebody waits for the end of everything unreported, so no answer is waited for any more.
    """

    def __init__(self, parts: ClientParts, is_poll_thread: Callable[[], bool]) -> None:
        self._life = parts.life
        self._records = parts.records
        self._shutter = parts.shutter
        self._polling = parts.polling
        self._clock = parts.clock
        self._log = parts.log
        self._is_poll_thread = is_poll_thread
        self.lock = threading.RLock()
        self.is_asked_for = False

    def purge_now(self) -> None:
        """Have everything reported before this returns, and wait for no answer."""
        self.is_asked_for = True
        try:
            with self.emptied_queue() as producer:
                if producer is not None:
                    self.purge(producer, 0.0)
        finally:
            self.is_asked_for = False

    @contextlib.contextmanager
    def emptied_queue(self) -> Iterator[Any]:
        """Hold the gate shut: inside, nobody is in the middle of producing. Yields the producer, if there is one."""
        with self.lock:
            with self._shutter.gate:
                self._shutter.emptying = True
                producer = self._life.producer
            try:
                yield producer
            finally:
                self._shutter.emptying = False

    def purge(self, producer: Any, answers_s: float) -> None:
        """Have everything reported; for so long what is on the wire may still be answered. Inside `emptied_queue`."""
        if self._records:
            self._log.warning(
                "records_given_up",
                operation="purge",
                count=len(self._records),
                last_problem=self._life.watch.last_problem,
            )
        suspects, self._shutter.suspects = self._shutter.suspects, []
        self._polling.settle_all((refused[0], not_sent_alone(refused)) for refused in suspects)
        self.empty(producer, answers_s)
        self._polling.settle_all((taken, NO_REPORT) for taken in self._records.all())
        self.let_settle()

    def empty(self, producer: Any, answers_s: float) -> None:
        """Purge until all but the suspects is reported, or no more comes; after `answers_s` seconds the wire, too."""
        now = progress_at = self._clock.monotonic()
        answers_until, before = now + answers_s, -1
        purge_at, was_in_flight = now, False
        while (left := len(self._records) - len(self._shutter.suspects)) > 0:
            now = self._clock.monotonic()
            if left != before:
                before, progress_at = left, now
            elif now - max(progress_at, answers_until) > NO_MORE_REPORTS_S:
                return
            in_flight = now >= answers_until
            if now >= purge_at or in_flight is not was_in_flight:
                self._life.begin_purge(producer, in_flight=in_flight)
                purge_at, was_in_flight = now + _PURGE_AGAIN_S, in_flight
            if self._is_poll_thread():
                with self._polling.lock:
                    self._polling.poll(EMPTYING_POLL_S)
            else:
                self._clock.sleep(_CHECK_S)

    def let_settle(self) -> None:
        """Wait until a purge takes nothing any more that comes after it."""
        self._clock.sleep(_PURGE_SETTLES_S)
