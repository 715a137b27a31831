"""Puts what came back from the client library into the spool: in order, marked where a copy may be in Kafka."""

from __future__ import annotations

from typing import TYPE_CHECKING

from postroom.libs.exceptions import LifecycleError, NotRepresentableError, PostroomError, SpoolError, SpoolFullError
from postroom.services.marks import labels_of, marked
from postroom.streaming.spool.record_format import Kind

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable

    from postroom.libs.clock import Clock
    from postroom.services.item import Item
    from postroom.services.settlement import Settlement
    from postroom.streaming.publisher import Report
    from postroom.streaming.spool.group_commit import Ticket
    from postroom.streaming.spool.spool import Spool

# A spool that says so has more in memory than its disk has written yet: milliseconds.
_BRIEF_S = 0.2
_BRIEF_WAIT_S = 0.005
# How long a hand-over waits for such a disk in all, for one record.
_DISK_PATIENCE_S = 10.0


class HandOver:
    """Keeps items whose records Kafka did not take.

    Of each item either `on_kept` hears, on the thread that writes, once the disk has said whether the record is safe
    (`ticket.error`); or `on_refused`, inside `keep`, where the spool does not even take it.
    """

    def __init__(
        self,
        spool: Spool,
        settlement: Settlement,
        clock: Clock,
        *,
        buries_exhausted: bool,
        on_kept: Callable[[Item, Report, Ticket], object],
        on_refused: Callable[[Item, Report, PostroomError], object],
    ) -> None:
        self._spool = spool
        self._settlement = settlement
        self._clock = clock
        self._buries_exhausted = buries_exhausted
        self._on_kept = on_kept
        self._on_refused = on_refused

    def keep(self, held: Iterable[tuple[Item, Report]]) -> None:
        """Append these records in this order. Waits for a disk that is slow, and not for one that is gone."""
        for item, report in held:
            self._keep(item, report)

    def _keep(self, item: Item, report: Report) -> None:
        if report.decision.may_be_in_kafka:
            item.attempt += 1
            assert item.record is not None
            item.record = marked(item.record, item.record.attempt + 1)
        if self._buries_exhausted:
            self._settlement.exhaust(item)
        record, kind = item.record, Kind.DEAD_LETTER if item.dead_letter_reason else Kind.RECORD
        assert record is not None
        end = self._clock.monotonic() + _DISK_PATIENCE_S
        while True:
            try:
                self._spool.append(
                    record,
                    kind=kind,
                    labels=labels_of(item),
                    on_stored=lambda ticket: self._on_kept(item, report, ticket),
                )
            except (SpoolError, NotRepresentableError, LifecycleError) as exc:
                if is_brief(exc) and self._clock.monotonic() < end:
                    self._clock.sleep(_BRIEF_WAIT_S)
                    continue
                self._on_refused(item, report, exc)
            return


def is_brief(exc: PostroomError) -> bool:
    """True when the spool only asks for a moment: more waits in memory for the disk than should."""
    return isinstance(exc, SpoolFullError) and exc.retry_after_s is not None and exc.retry_after_s < _BRIEF_S
