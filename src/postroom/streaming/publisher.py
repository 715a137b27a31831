"""The seam between the pipeline and whatever moves bytes: Kafka, or a fake in a test."""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING, Protocol, TypeAlias

import msgspec

from postroom.libs.event import DeadLetterReason, FailedReason
from postroom.libs.exceptions import (
    AuthorizationError,
    KafkaConnectionError,
    ProducerFatalError,
    PublishError,
    RecordTooLargeError,
    TopicNotFoundError,
)

if TYPE_CHECKING:
    from postroom.libs.event import Record
    from postroom.streaming.delivery import Decision


class Report(msgspec.Struct, frozen=True, gc=False):
    """The one and last word about a published record.

    `partition` and `offset` are -1 unless it was delivered. `code` is librdkafka's error number, 0 for none;
    `detail` is text for people, without anything of the record's content.
    """

    decision: Decision
    partition: int = -1
    offset: int = -1
    code: int = 0
    detail: str = ""


OnDone: TypeAlias = Callable[[Report], None]


class Condition(msgspec.Struct, frozen=True):
    """How a publisher is doing at this moment.

    `connected`: whether a connection to Kafka is up, None when nothing is known yet; `since_s`: for how many seconds
    that has been so. A broker that is frozen keeps its connections: `oldest_s`, the age of the oldest unreported
    record in seconds (None when there is none), tells of that. `problem` is the last trouble with a connection,
    empty when there was none since one came up.
    """

    connected: bool | None
    since_s: float
    oldest_s: float | None
    problem: str


class Publisher(Protocol):
    """Takes records and answers for each of them exactly once."""

    def start(self) -> None:
        """Make ready to publish. Calling it again does nothing."""
        ...

    def publish(self, record: Record, on_done: OnDone) -> None:
        """Take the record; `on_done` gets its report later, or at once where it is refused on the spot.

        Raises QueueFullError when nothing was taken: there is no room, or the queue is just being emptied. After this
        or any other exception no report follows. Records are sent in the order of these calls.
        """
        ...

    def serve(self) -> None:
        """Handle the reports that have arrived, unless another thread is at it. Never waits."""
        ...

    def wait_for_room(self, timeout_s: float) -> bool:
        """Wait until the queue has room again, at most `timeout_s` seconds; False if it has none then."""
        ...

    def in_flight(self) -> int:
        """Return the number of records taken and not reported."""
        ...

    def condition(self) -> Condition:
        """Return how it is doing. Never waits, may be called from every thread and before `start()`."""
        ...

    def flush(self, deadline_s: float) -> int:
        """Wait up to `deadline_s` seconds for all reports; return how many are missing. The caller must act on it.

        When it returns 0, every `on_done` has not only been called but has returned.
        """
        ...

    def purge(self) -> None:
        """Give up on everything unreported: every such record gets its report before this returns.

        Meanwhile `publish` takes nothing (QueueFullError) and does not wait.
        """
        ...

    def close(self, timeout_s: float) -> None:
        """Take nothing more, flush for up to `timeout_s` seconds, purge the rest, let go of everything.

        Calling it again does nothing, unless an exception cut it short: then it goes on.
        """
        ...


def publish_error(topic: str, report: Report) -> PublishError:
    """Return the exception that says what `report` says about a record for `topic`."""
    reason = report.decision.reason
    where = f"{topic}: {report.detail}"
    match reason:
        case DeadLetterReason.MESSAGE_TOO_LARGE:
            return RecordTooLargeError(f"the record is too large for {where}", remedy="send less in one event")
        case FailedReason.TOPIC_MISSING:
            return TopicNotFoundError(f"no topic {where}", remedy="create it: postroom topics create")
        case FailedReason.NOT_AUTHORIZED:
            return AuthorizationError(f"not allowed to write to {where}", remedy="check user, password and ACLs")
        case FailedReason.KAFKA_UNAVAILABLE:
            return KafkaConnectionError(f"no broker took the record for {where}", remedy="check broker in kafka.yaml")
        case FailedReason.PRODUCER_FATAL:
            return ProducerFatalError(f"the producer gave up, {where}", remedy="send the record again")
        case _:
            return PublishError(f"the record was not published to {where}")
