"""What comes out of the spool: whose book it stands in, and how it becomes a dead letter when the broker refuses it.

A record may have been stored by this process or by one that is gone; then its event was received and accepted there,
and this process answers for it from the moment on at which it finds it.
"""

from __future__ import annotations

import contextlib
from typing import TYPE_CHECKING

from postroom.libs.exceptions import EventError, PostroomError
from postroom.libs.logger import get_logger, limited
from postroom.schemas.avro_codec import unframe
from postroom.schemas.privacy import LEFT_OUT
from postroom.services.cloud_events import without_what_is_said_anew
from postroom.services.marks import CONTRACT_LABEL, REASON_LABEL, TOPIC_LABEL, TYPE_LABEL, marked
from postroom.streaming.dead_letter_format import is_hidden
from postroom.streaming.dead_letter_queue import Stage, dead_letter_record
from postroom.streaming.spool.record_format import Kind

if TYPE_CHECKING:
    from collections.abc import Callable

    from postroom.libs.clock import Clock
    from postroom.libs.event import DeadLetterReason, Event, Record
    from postroom.services.components import Components
    from postroom.services.ledger import Book, Ledger
    from postroom.services.settlement import Settlement
    from postroom.streaming.spool.group_commit import Ticket
    from postroom.streaming.spool.queue_reader import SpooledRecord
    from postroom.streaming.spool.spool import Spool


class Carried:
    """Counts and buries records of the spool. Safe with threads."""

    def __init__(
        self, parts: Components, spool: Spool, *, ledger: Ledger, settlement: Settlement, clock: Clock
    ) -> None:
        self._parts = parts
        self._clock = clock
        self._spool = spool
        self._ledger = ledger
        self._settlement = settlement
        self._books: dict[str, Book] = {}
        self._own_books: dict[bytes, Book] = {}
        for lane in parts.lanes.values():
            self._books.setdefault(lane.topic, lane.book)
            self._books.setdefault(lane.dead_letter_topic, lane.book)
        self._log = limited(get_logger("postroom.drain"), by="topic")

    def count_found(self, kind: Kind) -> None:
        """Take into the books what earlier processes left in the spool, as far as it was not counted yet."""
        for found in self._spool.newly_found(kind):
            self._book_of_topic(found.topic).carry_over(found.records)

    def count_lost(self, kind: Kind) -> None:
        """Take out of the books what turned out unreadable, as far as it was not counted yet, and say so."""
        for topic, count in self._spool.newly_lost(kind).items():
            self._log.error(
                "records_unreadable", operation="drain", topic=topic, count=count, remedy="see the quarantine"
            )
            self._book_of_topic(topic).set_aside(count)

    def delivered(self, waiting: SpooledRecord) -> None:
        """Count a record that Kafka has acknowledged, or a dead letter."""
        book = self._book(waiting)
        if waiting.kind is Kind.RECORD:
            book.drain()
        else:
            reason = dict(waiting.labels).get(REASON_LABEL, b"").decode(errors="replace")
            book.drain_dead_letter(reason, hidden=is_hidden(waiting.record))

    def bury(self, waiting: SpooledRecord, reason: DeadLetterReason, on_failure: Callable[[], object]) -> None:
        """Put the record's event among the dead letters, in their queue of the spool; then let go of the record.

        Happens on the thread for repairs. `on_failure` is called when the disk did not take the dead letter.
        """
        self._settlement.later(lambda: self._bury(waiting, reason, on_failure))

    # -- inside

    def _book(self, waiting: SpooledRecord) -> Book:
        """Return the book in which the record was counted as spooled."""
        if self._spool.is_own(waiting):
            for name, logical in waiting.labels:
                if name == TOPIC_LABEL:
                    book = self._own_books.get(logical)
                    if book is None:
                        book = self._own_books[logical] = self._ledger.book(logical.decode())
                    return book
        return self._book_of_topic(waiting.record.topic)

    def _book_of_topic(self, topic: str) -> Book:
        return self._books.get(topic) or self._ledger.book(topic)

    def _bury(self, waiting: SpooledRecord, reason: DeadLetterReason, on_failure: Callable[[], object]) -> None:
        def stored(ticket: Ticket) -> None:
            if ticket.error is None:
                self._spool.ack(waiting)
            else:
                on_failure()

        try:
            record = self._dead_letter(waiting, reason)
            if waiting.sent_before:  # a try before this one may have buried it already
                record = marked(record, record.attempt + 1)
            labels = tuple(pair for pair in waiting.labels if pair[0] not in {REASON_LABEL, TOPIC_LABEL})
            own = ((TOPIC_LABEL, self._book(waiting).topic.encode()), (REASON_LABEL, reason.value.encode()))
            labels = (*labels, *own)
            self._spool.append(record, kind=Kind.DEAD_LETTER, labels=labels, on_stored=stored)
        except PostroomError as exc:
            self._log.error("burial_failed", operation="drain", event_id=waiting.record.event_id, error=exc.code)
            on_failure()

    def _dead_letter(self, waiting: SpooledRecord, reason: DeadLetterReason) -> Record:
        """Return the dead letter: of the event as it was if its contract is known here, else of the record's bytes."""
        record, labels = waiting.record, dict(waiting.labels)
        config = self._parts.config
        event_type = labels.get(TYPE_LABEL, b"").decode() or None
        lane = self._parts.lanes.get(event_type or "")
        event: Event | bytes | None = record.value
        schema_id: int | None = None
        is_known = False
        with contextlib.suppress(EventError):  # what nobody can decode is kept as it is: its bytes say all
            schema_id = None if record.value is None else unframe(record.value)[0]
            # Another version of the contract may decode it to something else, and not notice.
            if lane is not None and (CONTRACT_LABEL, labels.get(CONTRACT_LABEL)) in lane.labels:
                if record.value is not None:
                    event = lane.decode(record.value)
                is_known = True
        privacy = ""
        if lane is not None and is_known:
            event, privacy = lane.to_keep(event)
        elif config.dead_letters.hides and event is not None:  # whose fields these are nobody knows here
            event, privacy = b"", LEFT_OUT
        return dead_letter_record(
            event,
            topic=record.topic,
            reason=reason.value,
            stage=Stage.PUBLISH,
            event_id=record.event_id,
            producer=self._settlement.identity(),
            now_ms=self._clock.time_ms(),
            event_type=event_type,
            key=record.key,
            headers=without_what_is_said_anew(record.headers),
            contract=labels.get(CONTRACT_LABEL, b"").decode() or None,
            schema_id=schema_id,
            attempts=record.attempt,
            dead_letter_topic=None if lane is None else lane.dead_letter_topic,
            suffix=config.dead_letters.suffix,
            max_header_bytes=config.dead_letters.max_header_bytes,
            max_message_bytes=config.producer.max_message_bytes,
            privacy=privacy,
        )
