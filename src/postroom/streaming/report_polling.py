"""Who handles reports: one thread at a time, and nobody waits for reports in the middle of handling one.

`flush` goes on calling report callbacks after it has met a fatal error, with an exception pending that their first call
into the library raises. It is called only where records linger for long; `poll` does not do that.
"""

from __future__ import annotations

import contextlib
import threading
from typing import TYPE_CHECKING

from postroom.libs.exceptions import LifecycleError

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Iterator

    from postroom.libs.clock import Clock
    from postroom.streaming.delivery_reports import DeliveryReports
    from postroom.streaming.open_records import Taken
    from postroom.streaming.producer_life import ProducerLife
    from postroom.streaming.publisher import Report

_CHECK_S = 0.002


class ReportPolling:
    """Calls poll, or flush where somebody waits and records linger; `lock` is held while reports are handled.

    `flushing` is how many callers wait so.
    """

    def __init__(self, life: ProducerLife, reports: DeliveryReports) -> None:
        self._life = life
        self._reports = reports
        self._poller = 0  # the thread that is handling reports now
        self._rounds = 0  # how often that has ended
        self.lock = threading.Lock()
        self.flushing = 0

    def refuse_in_handlers(self) -> None:
        """Raise LifecycleError in a report handler: it would wait for itself."""
        if self._poller == threading.get_ident():
            raise LifecycleError("a report handler waits for reports", remedy="wait in another thread")

    def let_handlers_return(self, clock: Clock, timeout_s: float) -> bool:
        """Wait until whoever is handling reports now has done so; False when that takes longer.

        Not by the lock: Ctrl-C right behind an `acquire` that has a time limit would keep it for ever.
        """
        rounds, end = self._rounds, clock.monotonic() + timeout_s
        while self._poller and self._rounds == rounds:
            if not clock.monotonic() < end:
                return False
            clock.sleep(_CHECK_S)
        return True

    def poll(self, timeout_s: float) -> None:
        """Handle what has arrived, or arrives within the time. The lock is held."""
        producer = self._life.producer
        if producer is not None:
            self.poll_by(producer.flush if self.flushing else producer.poll, timeout_s)

    def poll_by(self, call: Callable[[float], object], timeout_s: float) -> None:
        """Call poll or flush, and handle the reports that it brings. The lock is held."""
        with self._handling():
            self._life.call(lambda: call(timeout_s))
            self._reports.end_batch()

    def settle_all(self, reports: Iterable[tuple[Taken, Report]]) -> None:
        """Report these records, as if from inside poll."""
        with self.lock, self._handling():
            for taken, report in reports:
                self._reports.settle(taken, report)

    @contextlib.contextmanager
    def _handling(self) -> Iterator[None]:
        self._poller = threading.get_ident()
        try:
            yield
        finally:
            self._poller, self._rounds = 0, self._rounds + 1
