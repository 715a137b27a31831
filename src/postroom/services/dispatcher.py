"""Steps 4 and 5: every record takes the path of its topic, to the client library or to the spool. docs/design/0005.

One lock, the order lock, covers the state of the paths, the sequence number, and the call that hands a record over:
nothing comes between, so the records of a key stay in order whatever happens. Locks are taken in this order: the
client's poll lock, the order lock, the client's gate. Nothing here purges or flushes with the order lock in hand.
"""

from __future__ import annotations

import random
from typing import TYPE_CHECKING

from postroom.libs.event import DeadLetterReason, Failed, FailedReason, RefusedReason
from postroom.libs.exceptions import (
    LifecycleError,
    NotRepresentableError,
    PostroomError,
    QueueFullError,
    SpoolError,
    SpoolFullError,
)
from postroom.libs.logger import get_logger, limited
from postroom.services.hand_over import HandOver, is_brief
from postroom.services.marks import labels_of
from postroom.services.paths import Path, Signal, State
from postroom.services.settlement import QUEUE_FULL_RETRY_S
from postroom.streaming.delivery import Action, Decision
from postroom.streaming.publisher import Report
from postroom.streaming.spool.record_format import Kind

if TYPE_CHECKING:
    import threading
    from collections.abc import Callable, Iterable

    from postroom.libs.clock import Clock
    from postroom.libs.event import Record
    from postroom.services.item import Item
    from postroom.services.settlement import Settlement
    from postroom.streaming.publisher import Publisher
    from postroom.streaming.spool.group_commit import Ticket
    from postroom.streaming.spool.spool import Spool

_CHECK_S = 0.002
# Without a spool nobody probes a topic that takes nothing, and who is not ready gets no events that would: after this
# long without one that failed it is taken for mended, and the next one tells.
FORGOTTEN_AFTER_S = 60.0
# A topic whose records do not all come back by themselves gets them back by a purge, after this.
_COMES_BACK_S = 0.5


class Dispatcher:
    """Sends records on the path of their topic, and takes back what Kafka did not take.

    Without a spool there is one path for all, the direct one, and what comes back has failed.
    """

    def __init__(
        self,
        order_lock: threading.RLock,
        *,
        publisher: Publisher,
        settlement: Settlement,
        clock: Clock,
        spool: Spool | None = None,
        writes_ahead: bool = False,
        buries_exhausted: bool = False,
    ) -> None:
        self._lock = order_lock
        self._publisher = publisher
        self._settlement = settlement
        self._clock = clock
        self._spool = spool
        self._writes_ahead = writes_ahead
        self._buries_exhausted = buries_exhausted
        self._hand_over: HandOver | None = None
        if spool is not None:
            self._hand_over = HandOver(
                spool,
                settlement,
                clock,
                buries_exhausted=buries_exhausted,
                on_kept=self._kept,
                on_refused=self._not_kept,
            )
        self._sequence = 0
        self._paths: dict[str, Path] = {}
        self._random = random.Random()  # noqa: S311 - spreads waits, keeps no secret
        self._log = limited(get_logger("postroom.dispatcher"), by="topic")
        self.wake_keeper: Callable[[], object] = _nothing
        self.wake_drain: Callable[[Kind], object] = _nothing
        self.ask_rewind: Callable[[Kind], object] = _nothing

    # -- the way out

    def send(self, item: Item) -> bool:
        """Number the item and hand its record over; False when there is no room for it now.

        What it raises is the client library's surprise; nothing of the item was taken then.
        """
        record = item.record
        assert record is not None
        with self._lock:
            if self._spool is None:
                return self._publish(item, record)
            kind = Kind.DEAD_LETTER if item.dead_letter_reason else Kind.RECORD
            path = item.path = self.path(record.topic, kind)
            is_direct = path.is_direct or (
                path.state is State.DRAINING and not self._spool.holds_key(record.topic, record.key)
            )
            if self._buries_exhausted and path.state is State.SPOOLING and self._settlement.exhaust(item):
                return self.send(item)
            if self._writes_ahead and not item.is_ahead:
                return self._store(item, record, path, claim=is_direct)
            if is_direct:
                path.out.add(item)
                return self._publish(item, record)
            return path.state is not State.HANDING_OVER and self._store(item, record, path, claim=False)

    def _publish(self, item: Item, record: Record) -> bool:
        sequence = item.sequence = self._sequence = self._sequence + 1
        try:
            self._publisher.publish(record, item.report)
        except BaseException as exc:
            if item.path is not None:
                item.path.out.discard(item)
            if not isinstance(exc, QueueFullError):
                raise
            item.sequence, self._sequence = 0, sequence - 1
            return False
        return True

    def _store(self, item: Item, record: Record, path: Path, *, claim: bool) -> bool:
        """Give the record its place in the spool; what the disk says of it comes to `_stored`."""
        assert self._spool is not None
        sequence = item.sequence = self._sequence = self._sequence + 1
        try:
            ticket = self._spool.append(
                record,
                kind=path.kind,
                labels=labels_of(item),
                claim=claim,
                on_stored=lambda ticket: self._stored(item, ticket),
            )
        except (SpoolError, NotRepresentableError, LifecycleError) as exc:
            item.sequence, self._sequence = 0, sequence - 1
            if is_brief(exc):
                return False
            self._not_stored(item, exc)
        else:
            if self._writes_ahead:
                item.ticket = ticket
        return True

    def _refuse(self, item: Item, exc: PostroomError) -> None:
        if isinstance(exc, NotRepresentableError):
            self._settlement.refuse(item, RefusedReason.NOT_REPRESENTABLE, detail=exc.message)
            return
        reason = RefusedReason.SPOOL_FULL if isinstance(exc, SpoolFullError) else RefusedReason.SPOOL_UNAVAILABLE
        self._log.error("spool_refuses", operation="spool", error=exc.code, detail=exc.message)
        self._settlement.refuse(item, reason, getattr(exc, "retry_after_s", None), exc.message)

    # -- what the disk says; on the thread that writes, in the order of the records

    def _stored(self, item: Item, ticket: Ticket) -> None:
        try:
            if ticket.error is not None:
                self._not_stored(item, ticket.error)
            elif item.receipt.done():
                self._count_again(item, ticket)
            elif ticket.is_claimed:
                item.ticket, item.is_ahead = ticket, True
                self._settlement.written_ahead(item)
                with self._lock:
                    self._publish_ahead(item)
            else:
                self._settlement.spooled(item)
                self._release(item)
                self._leave_to_drain(item)
        except Exception as exc:  # noqa: BLE001 - a defect of ours must not leave the event open
            self._defect(item, "store", exc, may_be_in_kafka=True)

    def _leave_to_drain(self, item: Item) -> None:
        """See that the drain finds what was stored without a claim, also where the disk did not hold a claim."""
        path = item.path
        assert path is not None
        if path.is_direct:
            with self._lock:
                path.signal(Signal.FOUND, self._clock.monotonic())
        self.wake_drain(path.kind)

    def _count_again(self, item: Item, ticket: Ticket) -> None:
        """Count a stored record whose caller was interrupted while it was handed over, and told that it may be sent."""
        item.book.carry_over(1)
        if ticket.is_claimed and self._spool is not None and item.path is not None:
            with self._lock:
                item.path.signal(Signal.FOUND, self._clock.monotonic())
                self._spool.put_back([ticket.place], sent=False)
                self.ask_rewind(item.path.kind)

    def _not_stored(self, item: Item, error: PostroomError) -> None:
        """Answer for a record that arrived new, or as a dead letter, and that the spool did not keep."""
        if item.is_ahead:  # its dead letter found no room, but the record itself lies in the spool
            with self._lock:
                self._give_back(item, sent=True)
        elif item.receipt.done():
            return  # its caller was interrupted, and told that it may be sent
        elif isinstance(error, SpoolError) and error.may_resurface:
            self._fail(item, FailedReason.SPOOL_UNAVAILABLE, error, may_be_in_kafka=True)
        else:
            self._refuse(item, error)

    def _publish_ahead(self, item: Item) -> None:
        """Publish what lies on the disk now, or leave it to the drain where its path has closed meanwhile."""
        path, record, spool = item.path, item.record, self._spool
        assert path is not None
        assert record is not None
        assert spool is not None
        sent = False
        if path.is_direct or (path.state is State.DRAINING and not spool.holds_key(record.topic, record.key)):
            path.out.add(item)
            try:
                self._publisher.publish(record, item.report)
            except QueueFullError:
                path.out.discard(item)
            except Exception as exc:  # noqa: BLE001 - the event is safe: whatever the client says, the drain sends it
                path.out.discard(item)
                self._log.error("publish_failed", operation="publish", error=type(exc).__name__)
                sent = True
            else:
                return
        elif self._buries_exhausted and path.kind is Kind.RECORD and path.state is not State.DRAINING:
            path.held.append((item, _NEVER_SENT))
            self.wake_keeper()
            return
        self._give_back(item, sent=sent)

    def _give_back(self, item: Item, *, sent: bool) -> None:
        """Leave an item that lies in the spool to the drain. The order lock is held."""
        assert self._spool is not None
        assert item.ticket is not None
        assert item.path is not None
        place = item.ticket.place
        if item.path.kind is place.kind:
            item.path.signal(Signal.FOUND, self._clock.monotonic())
        elif item.lane is not None:  # what lies there is the record of which a dead letter was made
            self.path(item.lane.topic, place.kind).signal(Signal.FOUND, self._clock.monotonic())
        self._spool.put_back([place], sent=sent)
        self._settlement.spooled(item)
        item.is_ahead = False
        self.ask_rewind(place.kind)

    # -- the publisher's last word

    def on_report(self, item: Item, report: Report) -> None:
        """Act on what the report means. Called where reports arrive: never waits, never raises."""
        path, decision = item.path, report.decision
        try:
            if decision.action is Action.DELIVERED:
                self._settlement.accept(item, report)
                self._release(item)
                if self._spool is None and self._paths:
                    self._works(item)
            elif decision.action is Action.DEAD_LETTER and not item.dead_letter_reason:
                assert isinstance(decision.reason, DeadLetterReason)
                self._settlement.repair(item, decision.reason)
            elif self._spool is None or path is None:
                self._note_problem(item, report)
                self._fail_undelivered(item, report)
            else:
                self._take_back(item, path, report)
        except Exception as exc:  # noqa: BLE001 - a defect of ours must not leave the event open
            maybe = decision.may_be_in_kafka or decision.action is Action.DELIVERED
            self._defect(item, "report", exc, may_be_in_kafka=maybe)
        finally:
            if path is not None:
                path.out.discard(item)

    def _note_problem(self, item: Item, report: Report) -> None:
        """Remember, where there is no spool, that only a person can mend what keeps a topic from taking records."""
        reason, record = report.decision.reason, item.record
        if reason in _REMEDIES and record is not None:
            now = self._clock.monotonic()
            with self._lock:
                kind = Kind.DEAD_LETTER if item.dead_letter_reason else Kind.RECORD
                self.path(record.topic, kind).note_problem(reason, now + FORGOTTEN_AFTER_S)

    def _works(self, item: Item) -> None:
        path = None if item.record is None else self._paths.get(item.record.topic)
        if path is not None and path.problem is not None:
            with self._lock:
                path.works()

    def _defect(self, item: Item, operation: str, exc: Exception, *, may_be_in_kafka: bool) -> None:
        """End the item's way after a defect of ours: in the spool if it lies there, else it has failed."""
        if item.is_ahead and not item.receipt.done():
            self._log.error("pipeline_defect", operation=operation, error=type(exc).__name__)
            with self._lock:
                self._give_back(item, sent=True)
            return
        self._settlement.fail_for_defect(item, operation, exc, may_be_in_kafka=may_be_in_kafka)

    def _release(self, item: Item) -> None:
        """Let go of the item's place in the spool: it is safe elsewhere now."""
        if item.is_ahead and self._spool is not None and item.ticket is not None:
            self._spool.ack(item.ticket.place)

    def _take_back(self, item: Item, path: Path, report: Report) -> None:
        with self._lock:
            self.trouble(path, report)
            lies_there = item.is_ahead and item.ticket is not None and item.ticket.place.kind is path.kind
            if lies_there and not (self._buries_exhausted and path.kind is Kind.RECORD):
                self._give_back(item, sent=report.decision.may_be_in_kafka)
            elif item.record is not None:  # else its caller was interrupted while it was handed over, and was told so
                path.held.append((item, report))

    def _fail_undelivered(self, item: Item, report: Report, more: str = "") -> None:
        reason = report.decision.reason
        assert item.record is not None
        outcome = Failed(
            reason if isinstance(reason, FailedReason) else FailedReason.BROKER_ERROR,
            may_be_in_kafka=report.decision.may_be_in_kafka,
            detail=f"{item.record.topic}: {report.detail}{more}",
        )
        self._settlement.fail_undelivered(item, outcome)

    def _fail(self, item: Item, reason: FailedReason, exc: PostroomError, *, may_be_in_kafka: bool) -> None:
        outcome = Failed(reason, may_be_in_kafka=may_be_in_kafka, detail=exc.message)
        self._settlement.fail_undelivered(item, outcome)

    # -- paths

    def path(self, topic: str, kind: Kind) -> Path:
        """Return the path to `topic`, opened at the first call. The order lock is held."""
        path = self._paths.get(topic)
        if path is None:
            path = self._paths[topic] = Path(topic, kind, self._clock.monotonic())
            spool = self._spool
            if spool is not None and (not spool.is_counted or spool.waiting(topic, kind)):
                path.signal(Signal.FOUND, self._clock.monotonic())
        return path

    def paths(self, kind: Kind | None = None) -> list[Path]:
        """Return the paths there are, of one kind or all."""
        return [path for path in list(self._paths.values()) if kind is None or path.kind is kind]

    def trouble(self, path: Path, report: Report | None = None) -> None:
        """Close the path: Kafka does not take its records. The order lock is held."""
        now = self._clock.monotonic()
        reason = FailedReason.KAFKA_UNAVAILABLE if report is None else report.decision.reason
        if path.signal(Signal.TROUBLE, now):
            path.failed(reason, now, self._random)
            told = {"topic": path.topic, "error": path.problem, "detail": _told(report)}
            if path.problem in _REMEDIES:
                told["remedy"] = _REMEDIES[path.problem]
            self._log.warning("path_closed", operation="publish", **told)
            self.wake_keeper()

    def close_paths(self, topics: Iterable[Path]) -> None:
        """Close these paths: what is with the client library comes back, what arrives new goes to the spool."""
        with self._lock:
            for path in topics:
                self.trouble(path)

    def found(self) -> None:
        """Say that there may be records in the spool for any topic. The order lock is held."""
        for path in self.paths():
            path.signal(Signal.FOUND, self._clock.monotonic())

    def wait_for_room(self, item: Item, timeout_s: float) -> bool:
        """Wait up to `timeout_s` seconds until it makes sense to send the item again; False if it does not by then."""
        path = item.path
        if path is None or path.is_direct or path.state is State.DRAINING:
            return self._publisher.wait_for_room(timeout_s)
        end = self._clock.monotonic() + timeout_s
        self._clock.sleep(_CHECK_S)
        while path.state is State.HANDING_OVER:
            if not self._clock.monotonic() < end:
                return False
            self._clock.sleep(_CHECK_S)
        return True

    def turn_back(self, item: Item) -> None:
        """End the way of an item for which there was no room: in the spool if it lies there, else it is refused."""
        if item.is_ahead:
            with self._lock:
                self._give_back(item, sent=True)
        else:
            self._settlement.refuse(item, RefusedReason.QUEUE_FULL, QUEUE_FULL_RETRY_S)

    def overflow(self, item: Item) -> bool:
        """Hand over to the spool what the client library has held for too long; False where there is none.

        For a caller whose patience with a full queue has ended: its record goes to the spool behind the others.
        """
        path = item.path
        if self._spool is None or path is None or self._writes_ahead:
            return False
        if path.is_direct or path.state is State.DRAINING:
            self.close_paths([path for path in self.paths() if path.out or path is item.path])
        return True

    # -- handing over; called by the keeper, and by closing

    def must_purge(self) -> bool:
        """True when a closed path waits for records that do not come back by themselves."""
        now = self._clock.monotonic()
        return any(
            path.state is State.HANDING_OVER and (path.out or path.drain_out) and now - path.since > _COMES_BACK_S
            for path in self.paths()
        )

    def hand_over(self) -> None:
        """Put what came back on closed paths into the spool, in sequence order, and let what arrives new follow."""
        for path in self.paths():
            held: list[tuple[Item, Report]] = []
            try:
                with self._lock:
                    if not path.held and path.state is not State.HANDING_OVER:
                        continue
                    if path.out or path.drain_out:
                        continue
                    held, path.held = sorted(path.held, key=lambda pair: pair[0].sequence), []
                count = len(held)
                if held:
                    assert self._hand_over is not None
                    self._hand_over.keep(held)
            finally:
                if held:  # Ctrl-C, for one: what is left of it comes first at the next call
                    with self._lock:
                        path.held[:0] = held
            with self._lock:
                if path.signal(Signal.HANDED_OVER, self._clock.monotonic()):
                    self._log.warning("path_spools", operation="spool", topic=path.topic, count=count)
                    self.wake_drain(path.kind)

    def _kept(self, item: Item, report: Report, ticket: Ticket) -> None:
        try:
            if ticket.error is None and item.receipt.done():
                item.book.carry_over(1)  # a second copy: the hand-over was interrupted when it had taken the first
            elif ticket.error is None:
                self._settlement.spooled(item)
                self._release(item)
            elif not item.receipt.done():
                self._not_kept(item, report, ticket.error)
        except Exception as exc:  # noqa: BLE001 - a defect of ours must not leave the event open
            self._defect(item, "keep", exc, may_be_in_kafka=True)

    def _not_kept(self, item: Item, report: Report, exc: PostroomError) -> None:
        if item.is_ahead or (isinstance(exc, SpoolError) and exc.may_resurface):
            self._not_stored(item, exc)
        else:
            self._fail_undelivered(item, report, f"; the spool did not keep it: {exc.message}")


_REMEDIES = {
    FailedReason.TOPIC_MISSING: "create it: postroom topics create",
    FailedReason.NOT_AUTHORIZED: "check user, password and ACLs",
}
"""What a person has to do before Kafka takes these records."""


_NEVER_SENT = Report(Decision(Action.HOLD, FailedReason.KAFKA_UNAVAILABLE))
"""What is as good as a report for a record whose path closed while the disk took it."""


def _told(report: Report | None) -> str:
    return "no connection" if report is None else report.detail


def _nothing(*_: object) -> None:
    """Wake nobody: without a spool there is nobody."""
