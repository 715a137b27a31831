"""What becomes of a record that Kafka did not take: the seam at which the durable spool will stand."""

from __future__ import annotations

from typing import TYPE_CHECKING, Protocol

from postroom.libs.event import Failed, FailedReason

if TYPE_CHECKING:
    from postroom.libs.event import Record, Spooled
    from postroom.streaming.publisher import Report


class Holder(Protocol):
    """Decides the outcome of a record that came back from the publisher undelivered."""

    def hold(self, record: Record, report: Report) -> Spooled | Failed:
        """Keep the record and return Spooled, or return Failed. Called where reports arrive: never waits for Kafka."""
        ...


class FailHolder:
    """Keeps nothing: the event has failed, and its caller is told whether a copy may be in Kafka."""

    def hold(self, record: Record, report: Report) -> Failed:
        """Return the failure that the report describes."""
        reason = report.decision.reason
        return Failed(
            reason if isinstance(reason, FailedReason) else FailedReason.BROKER_ERROR,
            may_be_in_kafka=report.decision.may_be_in_kafka,
            detail=f"{record.topic}: {report.detail}",
        )
