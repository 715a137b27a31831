"""The records that a Kafka client has taken and not yet reported; each of them is reported once."""

from __future__ import annotations

from typing import TYPE_CHECKING, Protocol, TypeAlias

from postroom.streaming.delivery import DELIVERED, PURGE_QUEUE, REFUSED_TOGETHER, decide
from postroom.streaming.publisher import Report

if TYPE_CHECKING:
    from confluent_kafka import KafkaError, Message

    from postroom.libs.event import Record
    from postroom.libs.logger import Log
    from postroom.observability.metrics import Metrics
    from postroom.streaming.publisher import OnDone


class ReportListener(Protocol):
    """Hears what the client library says of a record."""

    expects_offsets: bool

    def fatal_error_met(self, problem: str) -> None: ...  # noqa: D102 - `DeliveryReports` says what they promise
    def not_delivered(self, taken: Taken, error: KafkaError, offset: int | None) -> None: ...  # noqa: D102
    def unproven(self, taken: Taken) -> None: ...  # noqa: D102
    def settle(self, taken: Taken, report: Report) -> None: ...  # noqa: D102


class Taken:
    """One record on its way, and the callback that librdkafka calls with its report."""

    __slots__ = ("listener", "never_connected", "number", "on_done", "record", "taken_at")

    def __init__(self, listener: ReportListener, number: int, record: Record, on_done: OnDone, taken_at: float) -> None:
        self.listener = listener
        self.number = number
        self.record = record
        self.on_done = on_done
        self.taken_at = taken_at
        self.never_connected = False

    def __call__(self, error: KafkaError | None, message: Message) -> None:
        """Take the client library's report; called from inside poll."""
        try:
            offset = message.offset()
        except SystemError:  # a fatal error that this very poll has met comes out here; it is the producer's, not ours
            self.listener.fatal_error_met("SystemError")
            offset = message.offset()
        if error is not None:
            self.listener.not_delivered(self, error, offset)
        elif offset is None and self.listener.expects_offsets:
            self.listener.unproven(self)
        else:
            self.listener.settle(self, Report(DELIVERED, message.partition() or 0, offset or 0))


Refused: TypeAlias = tuple[Taken, int, str]
"""A record of a refused batch, with the code and its name."""

NO_REPORT = Report(decide(PURGE_QUEUE), code=PURGE_QUEUE, detail="_PURGE_QUEUE without a report")
"""What is said of a record of which the client library says nothing any more."""


def not_sent_alone(refused: Refused) -> Report:
    """Return the report of a record of a refused batch that is given up before it was sent again."""
    _, code, name = refused
    return Report(REFUSED_TOGETHER, code=code, detail=f"{name} for a batch")


class OpenRecords:
    """The table of unreported records, by number, in the order in which they were taken.

    `taken` and `left` are how many were taken and reported since the start.
    """

    def __init__(self, metrics: Metrics, log: Log) -> None:
        self._metrics = metrics
        self._log = log
        self.by_number: dict[int, Taken] = {}
        self.taken = 0
        self.left = 0

    def __len__(self) -> int:
        return len(self.by_number)

    def oldest(self) -> Taken | None:
        """Return the one that was taken first; safe while others come and go."""
        while True:
            try:
                return next(iter(self.by_number.values()), None)
            except RuntimeError:  # a record came or went in this very moment
                continue

    def all(self) -> list[Taken]:
        """Return what is open now."""
        return list(self.by_number.values())

    def sent_something_maybe(self) -> None:
        """Note that a connection is, or was for a moment, up: from now on no open record is known to be unsent."""
        for taken in self.all():
            taken.never_connected = False

    def settle(self, taken: Taken, report: Report) -> None:
        """Hand the record's one report to its owner. A second report for the same record is counted, not passed on."""
        if self.by_number.pop(taken.number, None) is None:
            self._metrics.record_error("second_report")
            return
        self.left += 1
        if report.code:
            self._metrics.record_error(report.detail.split(" ", 1)[0].lower())
        try:
            taken.on_done(report)
        except Exception as exc:  # noqa: BLE001 - an error here would surface from another caller's poll: log and count it
            self._metrics.record_error("report_handler")
            self._log.error("report_handler_failed", operation="report", error=type(exc).__name__)
