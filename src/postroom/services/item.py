"""One event on its way through the pipeline: what the steps know about it."""

from __future__ import annotations

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Callable

    from postroom.libs.event import Headers, Record, Violation
    from postroom.services.lane import Lane
    from postroom.services.ledger import Book
    from postroom.services.receipt import Receipt
    from postroom.streaming.publisher import Report


class Item:
    """The working paper of one event; the publisher calls `report` with the last word on its record.

    `record` is what is to be sent, None when the outcome was clear without sending. `dead_letter_reason` is set
    once that record is a dead letter. `attempt` is above 1 for a repeat that postroom causes. `raw` holds the bytes
    of an event that was handed in as bytes. `sequence` is 0 until the publisher has taken the record. Times are
    seconds of the service's monotonic clock.
    """

    __slots__ = (
        "_on_report",
        "attempt",
        "book",
        "dead_letter_reason",
        "handed_in",
        "lane",
        "raw",
        "receipt",
        "record",
        "sequence",
        "user_headers",
        "violations",
    )

    def __init__(
        self, receipt: Receipt, book: Book, handed_in: float, on_report: Callable[[Item, Report], None]
    ) -> None:
        self.receipt = receipt
        self.book = book
        self.handed_in = handed_in
        self.lane: Lane | None = None
        self.record: Record | None = None
        self.raw: bytes | None = None
        self.user_headers: Headers = ()
        self.dead_letter_reason = ""
        self.violations: tuple[Violation, ...] = ()
        self.sequence = 0
        self.attempt = 1
        self._on_report = on_report

    def report(self, report: Report) -> None:
        """Take the publisher's last word on `record`."""
        self._on_report(self, report)
