"""How a service ends: its open events get their outcomes, what Kafka has not taken goes to the spool, parts let go."""

from __future__ import annotations

from typing import TYPE_CHECKING

from postroom.libs.event import Failed, FailedReason
from postroom.libs.logger import get_logger
from postroom.services.keeper import is_away

if TYPE_CHECKING:
    from postroom.libs.clock import Clock
    from postroom.observability.metrics import Metrics
    from postroom.services.components import Components
    from postroom.services.ledger import Ledger
    from postroom.services.settlement import Settlement

# Closing hands over to the spool so long before its time is over, and looks so often whether Kafka is away.
_RESERVE_S = 2.0
_LOOK_S = 0.25
_HANDED_OVER_IN_A_SECOND = 20_000  # records, on an overloaded machine; 60,000 on an idle one
# A repair or a report takes microseconds: so long it looks away in between.
_PAUSE_S = 0.002


class Closing:
    """Closes a service to which nothing is handed in any more. It may be cut short by Ctrl-C, and done once more."""

    def __init__(
        self, parts: Components, ledger: Ledger, settlement: Settlement, clock: Clock, metrics: Metrics
    ) -> None:
        self._parts = parts
        self._ledger = ledger
        self._settlement = settlement
        self._clock = clock
        self._metrics = metrics
        self._log = get_logger("postroom.producer_service")

    def finish_open_events(self, end: float, patience_s: float) -> None:
        """Wait until nothing is on its way: not with the publisher, nor from there to the spool or the dead letters.

        Gives up at `end` (monotonic seconds), `patience_s` seconds after closing began. With a spool, what is
        unacknowledged some time before that is handed over to it.
        """
        parts = self._parts
        publisher, spooling = parts.publisher, parts.spooling
        reserve_s = _reserve_s(patience_s, publisher.in_flight())
        if spooling is not None:
            spooling.stop_sending()
            end -= reserve_s
        while True:
            left = end - self._clock.monotonic()
            unsent = publisher.flush(max(0.0, left if spooling is None else min(left, _LOOK_S)))
            if unsent and (left <= 0 or (spooling is not None and is_away(publisher.condition()))):
                self._log.warning("closed_too_early", operation="close", count=unsent, spooled=spooling is not None)
                publisher.purge()
            if spooling is not None:
                parts.dispatcher.hand_over()
            # In this order: a repaired record goes from the repairs to the publisher, never back.
            if not self._settlement.repairing() and not publisher.flush(0.0):
                balance = self._ledger.total()
                if spooling is None or left + reserve_s <= 0 or not balance.pending + balance.in_flight:
                    return
            self._clock.sleep(_PAUSE_S)

    def let_go(self) -> None:
        """End the client library and the spool; give each event that has no outcome yet its last one."""
        parts = self._parts
        parts.publisher.close(0.0)
        if parts.spooling is not None:
            parts.dispatcher.hand_over()
            parts.spooling.stop()
            parts.dispatcher.hand_over()  # what the disk took last, when its path was closed: it lies there
        self._settlement.stop()
        self._disown_the_lost()

    def _disown_the_lost(self) -> None:
        orphans = self._ledger.disown()
        if orphans:
            self._log.error("events_unaccounted", operation="close", count=len(orphans))
        for receipt in orphans:
            self._metrics.record_error("unaccounted")
            receipt.resolve(Failed(FailedReason.UNACCOUNTED, may_be_in_kafka=True, detail="its report never came"))


def _reserve_s(patience_s: float, open_records: int) -> float:
    """Return how much of the time for closing is kept for handing over, in seconds."""
    return min(min(_RESERVE_S, patience_s / 4) + open_records / _HANDED_OVER_IN_A_SECOND, patience_s * 3 / 4)
