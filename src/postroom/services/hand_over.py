"""Puts what came back from the client library into the spool: in order, marked where a copy may be in Kafka."""

from __future__ import annotations

from itertools import groupby
from typing import TYPE_CHECKING, TypeAlias

import msgspec

from postroom.libs.exceptions import LifecycleError, NotRepresentableError, PostroomError, SpoolFullError
from postroom.services.marks import labels_of, marked
from postroom.streaming.spool.record_format import Kind

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable

    from postroom.libs.clock import Clock
    from postroom.libs.event import Headers
    from postroom.services.item import Item
    from postroom.services.settlement import Settlement
    from postroom.streaming.publisher import Report
    from postroom.streaming.spool.group_commit import OnStored, Ticket
    from postroom.streaming.spool.spool import Spool

# A spool that says so has more in memory than its disk has written yet: milliseconds.
_BRIEF_S = 0.2
_BRIEF_WAIT_S = 0.005
# How long a hand-over waits for such a disk in all, for one record.
_DISK_PATIENCE_S = 10.0
# Records that are made ready before the disk gets the first of them.
_AT_ONCE = 1024

_Held: TypeAlias = "tuple[Item, Report]"


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

    def keep(self, held: list[_Held]) -> None:
        """Append these records in this order, and take out of `held` what is answered for by somebody else then.

        Waits for a disk that is slow, and not for one that is gone. What it does not raise by itself, Ctrl-C for one,
        leaves the others in `held`, for another call.
        """
        while held:
            some = held[:_AT_ONCE]
            for item, report in some:
                self._prepare(item, report)
            for (kind, labels), alike in groupby(some, key=_kind_and_labels):
                self._append(list(alike), kind, labels, held)

    def _prepare(self, item: Item, report: Report) -> None:
        """Make of an item's record what is to be kept: marked, or buried."""
        if report.decision.may_be_in_kafka:
            item.attempt += 1
            assert item.record is not None
            item.record = marked(item.record, item.record.attempt + 1)
        if self._buries_exhausted:
            self._settlement.exhaust(item)

    def _append(self, held: list[_Held], kind: Kind, labels: Headers, rest: list[_Held]) -> None:
        """Append what has the same labels, together: one after the other costs twice as much. `rest` begins with it."""
        end = self._clock.monotonic() + _DISK_PATIENCE_S
        while held:
            records = [item.record for item, _ in held if item.record is not None]
            try:
                tickets = self._spool.append_many(
                    records, kind=kind, labels=labels, on_stored=self._kept_in_order(held)
                )
            except LifecycleError as exc:
                self._refuse(held, exc)
                del rest[: len(held)]
                return
            except BaseException:  # nobody knows how many of them were taken: all come again, marked
                rest[: len(held)] = [(item, _maybe_twice(report)) for item, report in held]
                raise
            refused = [ticket for ticket in tickets if not ticket.is_taken]
            if len(refused) < len(held):
                end = self._clock.monotonic() + _DISK_PATIENCE_S
            taken = len(held) - len(refused)
            held = held[taken:]
            del rest[:taken]
            error = refused[0].error if refused else None
            if error is None:
                return
            if is_brief(error) and self._clock.monotonic() < end:
                self._clock.sleep(_BRIEF_WAIT_S)
            else:  # a record that no frame can hold is one for itself, a disk that takes nothing is so for all
                count = 1 if isinstance(error, NotRepresentableError) else len(held)
                self._refuse(held[:count], error)
                held = held[count:]
                del rest[:count]

    def _kept_in_order(self, held: list[_Held]) -> OnStored:
        in_order = iter(held)

        def on_stored(ticket: Ticket) -> None:
            item, report = next(in_order)
            self._on_kept(item, report, ticket)

        return on_stored

    def _refuse(self, held: Iterable[_Held], error: PostroomError) -> None:
        for item, report in held:
            self._on_refused(item, report, error)


def _maybe_twice(report: Report) -> Report:
    decision = msgspec.structs.replace(report.decision, may_be_in_kafka=True)
    return msgspec.structs.replace(report, decision=decision)


def _kind_and_labels(held: _Held) -> tuple[Kind, Headers]:
    item = held[0]
    return Kind.DEAD_LETTER if item.dead_letter_reason else Kind.RECORD, labels_of(item)


def is_brief(exc: PostroomError) -> bool:
    """True when the spool only asks for a moment: more waits in memory for the disk than should."""
    return isinstance(exc, SpoolFullError) and exc.retry_after_s is not None and exc.retry_after_s < _BRIEF_S
