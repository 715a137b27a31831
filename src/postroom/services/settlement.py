"""Steps 6 and 7 of the pipeline: what became of an event, and that it is counted. The one place for both."""

from __future__ import annotations

import queue
import threading
from typing import TYPE_CHECKING

from postroom.libs.event import (
    DeadLettered,
    DeadLetterReason,
    Delivered,
    Failed,
    FailedReason,
    Outcome,
    Refused,
    RefusedReason,
    Spooled,
)
from postroom.libs.exceptions import (
    InvalidMetadataError,
    NotRepresentableError,
    PostroomError,
    RecordTooLargeError,
)
from postroom.libs.logger import get_logger, limited
from postroom.schemas.csv_events import CSV_TYPE, CsvEvent
from postroom.streaming.dead_letter_format import is_hidden
from postroom.streaming.dead_letter_queue import ProducerIdentity, Stage, dead_letter_record, producer_identity

if TYPE_CHECKING:
    from collections.abc import Callable

    from postroom.libs.clock import Clock
    from postroom.libs.event import Event, Record, Violation
    from postroom.observability.metrics import Metrics
    from postroom.schemas.rules import RuleFailure
    from postroom.services.components import Components
    from postroom.services.item import Item
    from postroom.services.journal import AcceptedJournal
    from postroom.services.lane import Lane
    from postroom.streaming.publisher import Report

QUEUE_FULL_RETRY_S = 1.0
"""The wait that is suggested when the queue is full: room comes in batches, many times a second."""

_EMPTYING_S = 10.0

_JSON_TYPE = "application/json"
"""What events are that were handed in as bytes or text, unless they are rows of CSV."""


class Settlement:
    """Gives each item its one outcome, counts it in the books, and resolves its receipt, in this order.

    Records that a broker refuses for their own sake become dead letters on a thread of their own, which may wait
    for room in the queue; the threads that bring reports never wait.
    """

    def __init__(
        self,
        parts: Callable[[], Components],
        *,
        journal: AcceptedJournal | None,
        clock: Clock,
        metrics: Metrics,
    ) -> None:
        self._parts = parts
        self._journal = journal
        self._clock = clock
        self._metrics = metrics
        self._log = limited(get_logger("postroom.producer_service"))
        self._rule_log = limited(get_logger("postroom.rules"), by="rule")
        self._repairs: queue.SimpleQueue[Callable[[], object] | None] = queue.SimpleQueue()
        self._repair_lock = threading.Lock()
        self._repairing = 0
        self._repair_thread: threading.Thread | None = None
        self._producer: ProducerIdentity | None = None
        self.journal_failures = 0

    # -- good outcomes

    def accept(self, item: Item, report: Report) -> None:
        """Count the delivery report of an item's record, or of its dead letter."""
        record, receipt, reason = item.record, item.receipt, item.dead_letter_reason
        assert record is not None
        if self._journal is not None and not item.is_ahead:
            self._write_journal(self._journal, item, record)
        latency_s = self._clock.monotonic() - item.handed_in
        outcome: Outcome
        if reason:
            known = item.book.dead_letter(receipt, reason, latency_s, hidden=is_hidden(record))
            outcome = DeadLettered(reason, record.topic, report.partition, report.offset, item.violations)
        else:
            known = item.book.deliver(receipt, latency_s)
            outcome = Delivered(record.topic, report.partition, report.offset)
        self._resolve(item, outcome, known=known)

    def written_ahead(self, item: Item) -> None:
        """Count that the item lies in the spool and is safe; its outcome follows."""
        assert item.record is not None
        if self._journal is not None:
            self._write_journal(self._journal, item, item.record)
        if not item.book.write_ahead(item.receipt, self._clock.monotonic() - item.handed_in):
            self._unknown(item)
        item.receipt.written_ahead()

    def spooled(self, item: Item) -> None:
        """Count that the item lies in the spool and is left to the drain."""
        assert item.record is not None
        if self._journal is not None and not item.is_ahead:
            self._write_journal(self._journal, item, item.record)
        known = item.book.spool(item.receipt, self._clock.monotonic() - item.handed_in)
        self._resolve(item, Spooled(item.dead_letter_reason), known=known)

    def fail_undelivered(self, item: Item, outcome: Failed) -> None:
        """End the way of an item whose record neither Kafka nor the spool took."""
        self.fail(item, outcome)
        assert item.record is not None
        self._log.warning(
            "event_not_delivered",
            operation="publish",
            event_id=item.record.event_id,
            topic=item.record.topic,
            error=outcome.detail,
        )

    def _write_journal(self, journal: AcceptedJournal, item: Item, record: Record) -> None:
        try:
            journal.accepted(
                event_id=record.event_id,
                key=record.key,
                topic=record.topic,
                sequence=item.sequence,
                dead_letter=bool(item.dead_letter_reason),
            )
        except PostroomError as exc:
            self.journal_failures += 1
            self._metrics.record_error(exc.code)
            self._log.error("journal_failed", operation="account", event_id=record.event_id, error=exc.code)

    # -- outcomes without a report

    def refuse(self, item: Item, reason: RefusedReason, retry_after_s: float | None = None, detail: str = "") -> None:
        """End the item's way before it reached a topic. `retry_after_s` is None where waiting cannot help."""
        item.record = None
        known = item.book.refuse(item.receipt, reason.value)
        self._resolve(item, Refused(reason, retry_after_s, detail), known=known)

    def fail(self, item: Item, outcome: Failed) -> None:
        """End the item's way without having made it safe."""
        known = item.book.fail(item.receipt, outcome.reason.value)
        self._resolve(item, outcome, known=known)

    def fail_for_defect(self, item: Item, operation: str, exc: BaseException, *, may_be_in_kafka: bool = False) -> None:
        """End the item's way because of a defect of ours, or because a signal's exception cut it short.

        Not silently, and without hurting the next one. Does nothing for an item that has its outcome.
        """
        if item.receipt.done():
            return
        self._log.error(
            "pipeline_defect", operation=operation, event_id=item.receipt.event_id, error=type(exc).__name__
        )
        item.record = None
        self.fail(item, Failed(FailedReason.INTERNAL, may_be_in_kafka=may_be_in_kafka, detail=type(exc).__name__))

    def _resolve(self, item: Item, outcome: Outcome, *, known: bool) -> None:
        if not known:
            self._unknown(item)
            if item.receipt.done():
                return
        item.receipt.resolve(outcome)

    def _unknown(self, item: Item) -> None:
        # The books will not balance, and that is right: this event was counted once too often or never.
        self._metrics.record_error("unaccounted")
        self._log.error("event_unaccounted", operation="account", event_id=item.receipt.event_id)

    # -- rules

    def tell_rule_failures(self, lane: Lane, failures: tuple[RuleFailure, ...]) -> None:
        """Count each rule that an event broke, once, and write a line now and then: also for rules that only count."""
        log = self._rule_log
        for rule in {failure.rule.name: failure.rule for failure in failures}.values():
            self._metrics.record_rule_failure(lane.name, rule.name, rule.action.value)
            log.warning("rule_failed", operation="check", rule=f"{lane.name}.{rule.name}", action=rule.action.value)

    # -- dead letters

    def make_dead_letter(
        self,
        item: Item,
        event: Event | bytes | None,
        reason: DeadLetterReason,
        stage: Stage,
        *,
        key: bytes | None,
        violations: tuple[Violation, ...] = (),
    ) -> None:
        """Give the item a dead letter to send, or refuse it where no dead letter can hold the event.

        None for `event` is a tombstone.
        """
        try:
            self._put_dead_letter(item, event, reason, stage, key, violations)
        except (NotRepresentableError, RecordTooLargeError) as exc:
            self.refuse(item, RefusedReason.NOT_REPRESENTABLE, detail=exc.message)
        except InvalidMetadataError as exc:
            self.refuse(item, RefusedReason.INVALID_METADATA, detail=exc.message)

    def _put_dead_letter(
        self,
        item: Item,
        event: Event | bytes | None,
        reason: DeadLetterReason,
        stage: Stage,
        key: bytes | None,
        violations: tuple[Violation, ...],
    ) -> None:
        lane = item.lane
        assert lane is not None
        config = self._parts().config
        kept, privacy = lane.to_keep(event)
        content_type = _JSON_TYPE
        if type(kept) is CsvEvent:
            kept, content_type = bytes(kept), CSV_TYPE
        record = dead_letter_record(
            kept,
            topic=lane.topic,
            reason=reason.value,
            stage=stage,
            event_id=item.receipt.event_id,
            producer=self.identity(),
            now_ms=self._clock.time_ms(),
            event_type=lane.name,
            key=key,
            headers=item.user_headers,
            violations=violations,
            contract=f"{lane.name}:{lane.contract.version}",
            schema_id=lane.schema_id,
            attempts=item.attempt,
            content_type=content_type,
            dead_letter_topic=lane.dead_letter_topic,
            max_header_bytes=config.dead_letters.max_header_bytes,
            max_message_bytes=config.producer.max_message_bytes,
            privacy=privacy,
        )
        item.record, item.dead_letter_reason, item.violations = record, reason.value, violations

    def exhaust(self, item: Item) -> bool:
        """Make a dead letter of an item that Kafka does not take; False where it is one, or none can hold it."""
        record, lane = item.record, item.lane
        if item.dead_letter_reason or record is None or lane is None:
            return False
        if lane.mask is not None:
            return False  # hidden values would be lost only because Kafka is slow: it is kept as the record that it is
        event = _original(item, lane, record)
        try:
            self._put_dead_letter(item, event, DeadLetterReason.DELIVERY_EXHAUSTED, Stage.PUBLISH, record.key, ())
        except (NotRepresentableError, RecordTooLargeError, InvalidMetadataError):
            return False  # then it is kept as the record that it is
        return True

    def identity(self) -> ProducerIdentity:
        """Return who this process is, for dead letters."""
        if self._producer is None:  # asks for the package's version and the host's name: once is enough
            self._producer = producer_identity(self._parts().config.producer.client_id)
        return self._producer

    # -- repairs: what must not be done where reports arrive

    def repair(self, item: Item, reason: DeadLetterReason) -> None:
        """Send the event of a record that the broker refused to the dead letter topic, on the thread for repairs."""
        self.later(lambda: self._bury_safely(item, reason))

    def later(self, work: Callable[[], object]) -> None:
        """Do `work` on the thread for repairs. Raises RuntimeError when it cannot start: the interpreter is ending."""
        with self._repair_lock:
            if self._repair_thread is None:
                thread = threading.Thread(target=self._run_repairs, name="postroom-repair", daemon=True)
                thread.start()  # raises when the interpreter is ending: then the event fails, and nothing waits for it
                self._repair_thread = thread
            self._repairing += 1
        self._repairs.put(work)

    def repairing(self) -> int:
        """Return how much waits for the thread for repairs."""
        return self._repairing

    def stop(self) -> None:
        """End the repair thread, if there is one; call it when nothing is on its way any more."""
        if self._repair_thread is not None:
            self._repairs.put(None)
            self._repair_thread.join(5.0)

    def _run_repairs(self) -> None:
        while (work := self._repairs.get()) is not None:
            try:
                work()
            except Exception as exc:  # noqa: BLE001 - the next one must not suffer for this one
                self._log.error("repair_failed", operation="repair", error=type(exc).__name__)
            finally:
                with self._repair_lock:
                    self._repairing -= 1

    def _bury_safely(self, item: Item, reason: DeadLetterReason) -> None:
        try:
            self._bury(item, reason)
        except Exception as exc:  # noqa: BLE001 - it fails, and says so
            self.fail_for_defect(item, "repair", exc)

    def _bury(self, item: Item, reason: DeadLetterReason) -> None:
        refused, lane = item.record, item.lane
        assert refused is not None
        assert lane is not None
        event = _original(item, lane, refused)
        self.make_dead_letter(item, event, reason, Stage.PUBLISH, key=refused.key)
        if item.record is None:
            return  # no dead letter can hold it, and its receipt says so
        parts = self._parts()
        parts.limiter.charge()
        # A full queue is emptied after that time at the latest.
        end = self._clock.monotonic() + parts.config.hand_over_after_s + _EMPTYING_S
        while not parts.dispatcher.send(item):
            left = end - self._clock.monotonic()
            if not left > 0 or not parts.dispatcher.wait_for_room(item, left):
                parts.dispatcher.turn_back(item)
                return


def _original(item: Item, lane: Lane, record: Record) -> Event | bytes | None:
    """Return the event of a record as it was handed in; None for a tombstone."""
    if item.raw is not None or record.value is None:
        return item.raw
    return lane.decode(record.value)
