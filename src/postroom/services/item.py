"""One event on its way through the pipeline: what the steps know about it."""

from __future__ import annotations

import contextlib
from enum import Enum
from typing import TYPE_CHECKING, Final

from postroom.libs.exceptions import ReceiptTimeoutError, SpoolError

if TYPE_CHECKING:
    from collections.abc import Callable

    from postroom.libs.event import Headers, Record, Violation
    from postroom.services.lane import Lane
    from postroom.services.ledger import Book
    from postroom.services.paths import Path
    from postroom.services.receipt import Receipt
    from postroom.streaming.publisher import Report
    from postroom.streaming.spool.group_commit import Ticket


class Tombstone(Enum):
    """What is handed in for a record without a value. Not None: that is what a forgotten `return` gives."""

    TOMBSTONE = "tombstone"


TOMBSTONE: Final = Tombstone.TOMBSTONE


class Item:
    """The working paper of one event; the publisher calls `report` with the last word on its record.

    `record` is what is to be sent, None when the outcome was clear without sending. `dead_letter_reason` is set
    once that record is a dead letter. `attempt` is above 1 for a repeat that postroom causes. `raw` holds the bytes
    of an event that was handed in as bytes. `sequence` is 0 until the record was taken by the publisher or the spool.
    `path` is the one it was sent on; `ticket` that of its place in the spool when it was written there first, and
    `is_ahead` says that it lies there and is safe. Times are seconds of the service's monotonic clock.
    """

    __slots__ = (
        "_on_report",
        "attempt",
        "book",
        "dead_letter_reason",
        "handed_in",
        "is_ahead",
        "lane",
        "path",
        "raw",
        "receipt",
        "record",
        "sequence",
        "ticket",
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
        self.path: Path | None = None
        self.ticket: Ticket | None = None
        self.is_ahead = False
        self._on_report = on_report

    def wait_until_stored(self, timeout_s: float) -> None:
        """Wait up to `timeout_s` seconds for the disk's answer; then the receipt says whether the event is safe."""
        assert self.ticket is not None
        with contextlib.suppress(SpoolError, ReceiptTimeoutError):  # why it is not, the receipt's outcome says
            self.ticket.wait(timeout_s)
            self.receipt.written_ahead()

    def report(self, report: Report) -> None:
        """Take the publisher's last word on `record`."""
        self._on_report(self, report)
