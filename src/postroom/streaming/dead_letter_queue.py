"""The queue of events that cannot be delivered as they are: sends a dead letter and waits until Kafka has it.

The record itself is made by `dead_letter_format.dead_letter_record` and read back by `dead_letter_rebuild.rebuild`.
"""

from __future__ import annotations

import importlib.metadata
import socket
import threading
from typing import TYPE_CHECKING, Self

from postroom.libs.clock import SYSTEM_CLOCK, Clock
from postroom.libs.event import DeadLettered, EventIds
from postroom.libs.exceptions import KafkaConnectionError, QueueFullError
from postroom.observability.metrics import METRICS, Metrics
from postroom.streaming.dead_letter_format import (
    BYTES_TYPE,
    ProducerIdentity,
    Stage,
    dead_letter_record,
    is_reserved_header,
)
from postroom.streaming.dead_letter_rebuild import DeadLetter, RecordLike, rebuild
from postroom.streaming.delivery import Action
from postroom.streaming.publisher import publish_error

if TYPE_CHECKING:
    from collections.abc import Sequence

    from postroom.libs.config_loader import Config
    from postroom.libs.event import Event, Headers, Record, Violation
    from postroom.streaming.publisher import Publisher, Report

__all__ = [
    "DeadLetter",
    "DeadLetterQueue",
    "ProducerIdentity",
    "RecordLike",
    "Stage",
    "dead_letter_record",
    "is_reserved_header",
    "producer_identity",
    "rebuild",
]

_CLOSE_TIMEOUT_S = 5.0


def producer_identity(service: str) -> ProducerIdentity:
    """Return who this process is, for the header `dlq.producer`."""
    return ProducerIdentity(service, socket.gethostname(), importlib.metadata.version("postroom"))


class DeadLetterQueue:
    """Keeps events for repair in the topic beside the one they were going to.

    `config` is found by `load_config()` and `publisher` is a `KafkaClient` of this queue's own where they are not
    given; both are made at the first `send_to_dlq`. Safe to use from several threads.
    """

    def __init__(
        self,
        publisher: Publisher | None = None,
        config: Config | None = None,
        *,
        clock: Clock = SYSTEM_CLOCK,
        metrics: Metrics = METRICS,
    ) -> None:
        self._publisher = publisher
        self._owned: Publisher | None = None
        self._config = config
        self._clock = clock
        self._metrics = metrics
        self._ids = EventIds()
        self._lock = threading.Lock()

    def send_to_dlq(
        self,
        event: Event | bytes,
        reason: str = "validation_failed",
        *,
        topic: str | None = None,
        stage: Stage = Stage.VALIDATE,
        event_id: str | None = None,
        event_type: str | None = None,
        key: bytes | None = None,
        headers: Headers = (),
        violations: Sequence[Violation] = (),
        content_type: str = BYTES_TYPE,
        timeout: float = 20.0,
    ) -> DeadLettered:
        """Send a dead letter and wait for its acknowledgement: when this returns, Kafka has it.

        `topic` is where the event was going (a name from `topics` or an actual one), by default the first of the
        configured topics; the event id is made where none is given. Raises `NotRepresentableError`,
        `InvalidMetadataError` or `RecordTooLargeError` for what cannot become a dead letter, and the `PublishError`
        that fits when Kafka did not acknowledge within `timeout` seconds; it may have a copy then, and sending again
        under the same event id is safe.
        """
        config, publisher = self._ready()
        now_ms = self._clock.time_ms()
        going_to = next(iter(config.topics.values())) if topic is None else config.topic(topic)
        record = dead_letter_record(
            event,
            topic=going_to,
            reason=reason,
            stage=stage,
            event_id=event_id if event_id is not None else self._next_id(now_ms),
            producer=producer_identity(config.producer.client_id),
            now_ms=now_ms,
            event_type=event_type,
            key=key,
            headers=headers,
            violations=violations,
            content_type=content_type,
            suffix=config.dead_letters.suffix,
            max_header_bytes=config.dead_letters.max_header_bytes,
            max_message_bytes=config.producer.max_message_bytes,
        )
        report = self._publish(publisher, record, timeout)
        self._metrics.record_dlq_event(reason, going_to)
        return DeadLettered(reason, record.topic, report.partition, report.offset, tuple(violations))

    def close(self) -> None:
        """Let go of the client that this queue made for itself; one that was handed in is left alone."""
        with self._lock:
            owned, self._owned = self._owned, None
        if owned is not None:
            owned.close(_CLOSE_TIMEOUT_S)

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def _ready(self) -> tuple[Config, Publisher]:
        with self._lock:
            if self._config is None:
                from postroom.libs.config_loader import load_config

                self._config = load_config()
            if self._publisher is not None:
                return self._config, self._publisher
            if self._owned is None:
                from postroom.streaming.kafka_client import KafkaClient

                self._owned = KafkaClient(self._config)
            return self._config, self._owned

    def _next_id(self, now_ms: int) -> str:
        with self._lock:
            return self._ids.next(now_ms)

    def _publish(self, publisher: Publisher, record: Record, timeout: float) -> Report:
        """Hand the record over as soon as there is room and wait for its report, `timeout` seconds in all."""
        end = self._clock.monotonic() + timeout
        answered = threading.Event()
        reports: list[Report] = []

        def on_done(report: Report) -> None:
            reports.append(report)
            answered.set()

        publisher.start()
        while True:
            try:
                publisher.publish(record, on_done)
                break
            except QueueFullError:
                left = end - self._clock.monotonic()
                if left <= 0 or not publisher.wait_for_room(left):
                    raise
        if not answered.wait(max(0.0, end - self._clock.monotonic())):
            raise KafkaConnectionError(
                f"the dead letter for {record.topic} was not acknowledged within {timeout:g} s; it may still arrive",
                remedy="send it again under the same event id",
            )
        report = reports[0]
        if report.decision.action is not Action.DELIVERED:
            raise publish_error(record.topic, report)
        return report
