"""A producer service without Kafka: the same checks, the same outcomes, everything kept in memory.

def test_checkout_publishes(recording_service):
    checkout(cart, post=recording_service)
    assert recording_service.published[0].event["user_id"] == "u1"
"""

from __future__ import annotations

from typing import TYPE_CHECKING

import msgspec

from postroom.libs.clock import SYSTEM_CLOCK, Clock
from postroom.libs.config_loader import Config, load_config
from postroom.libs.event import DeadLetterReason, FailedReason, RefusedReason
from postroom.observability.metrics import Metrics
from postroom.schemas.avro_codec import unframe
from postroom.services.producer_service import ProducerService
from postroom.streaming.dead_letter_queue import DeadLetter, rebuild
from postroom.streaming.delivery import Action, Decision
from postroom.streaming.publisher import Report
from postroom.testing.memory_publisher import MemoryPublisher

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping

    from postroom.libs.event import Headers
    from postroom.schemas.data_contracts import Contract


class PublishedEvent(msgspec.Struct, frozen=True, kw_only=True):
    """One event as a consumer would see it: decoded, with its key and headers."""

    topic: str
    event_type: str
    event: dict[str, object]
    key: bytes | None
    headers: Headers
    event_id: str
    timestamp_ms: int


class MemoryRegistry:
    """Gives every schema an id, in the order in which they come."""

    def __init__(self) -> None:
        self._ids: dict[str, int] = {}

    def register(self, subject: str, schema_json: str) -> int:
        """Return the id of the schema, the same for the same text."""
        del subject
        return self._ids.setdefault(schema_json, len(self._ids) + 1)

    def lookup(self, subject: str, schema_json: str) -> int:
        """Return the id of the schema; every schema is known here."""
        return self.register(subject, schema_json)

    def close(self) -> None:
        """Do nothing: there is nothing to let go of."""


class RecordingService(ProducerService):
    """Use it where the code under test takes a `ProducerService`.

    Events are checked against the same contracts and end in the same outcomes; `published` and `dead_letters` show
    what would stand in Kafka, and `fail_next` makes the next events fail. Settings are the packaged ones unless
    `config` is given: no file and no environment variable has a say.
    """

    def __init__(
        self,
        contracts: Mapping[str, Contract] | Iterable[Contract] | None = None,
        *,
        config: Config | None = None,
        clock: Clock = SYSTEM_CLOCK,
    ) -> None:
        self.publisher = MemoryPublisher()
        named = contracts if contracts is None or hasattr(contracts, "items") else {one.name: one for one in contracts}
        super().__init__(
            config or load_config(overrides={}, environ={}),
            publisher=self.publisher,
            registry=MemoryRegistry(),
            contracts=named,  # type: ignore[arg-type]  # the branch above made it a mapping
            clock=clock,
            metrics=Metrics(),
        )

    @property
    def published(self) -> list[PublishedEvent]:
        """The events that reached their topic, decoded, in order."""
        by_topic = {lane.topic: lane for lane in self.parts.lanes.values()} if self.publisher.records else {}
        found = []
        for record in self.publisher.records:
            lane = by_topic.get(record.topic)
            if lane is None or record.value is None:
                continue
            event = lane.contract.codec.decode(unframe(record.value)[1])
            found.append(
                PublishedEvent(
                    topic=record.topic,
                    event_type=lane.name,
                    event=event,
                    key=record.key,
                    headers=record.headers,
                    event_id=record.event_id,
                    timestamp_ms=record.timestamp_ms,
                )
            )
        return found

    @property
    def dead_letters(self) -> list[DeadLetter]:
        """The dead letters, rebuilt into what was handed in, with their reasons."""
        topics = {lane.topic for lane in self.parts.lanes.values()} if self.publisher.records else set()
        return [rebuild(record) for record in self.publisher.records if record.topic not in topics]

    def fail_next(
        self,
        reason: FailedReason | DeadLetterReason | RefusedReason = FailedReason.KAFKA_UNAVAILABLE,
        *,
        times: int = 1,
        may_be_in_kafka: bool = False,
    ) -> None:
        """Let the next `times` records meet trouble instead of being delivered.

        A `FailedReason` makes the events fail (`may_be_in_kafka` is passed on), a `DeadLetterReason` of a broker
        (`message_too_large`, `rejected_by_broker`) makes dead letters of them, `RefusedReason.QUEUE_FULL` refuses
        them. Raises ValueError for a reason that does not come from publishing.
        """
        if reason is RefusedReason.QUEUE_FULL:
            self.publisher.script.extend([None] * times)
            return
        if isinstance(reason, FailedReason):
            decision = Decision(Action.HOLD, reason, may_be_in_kafka=may_be_in_kafka)
        elif reason in {DeadLetterReason.MESSAGE_TOO_LARGE, DeadLetterReason.REJECTED_BY_BROKER}:
            decision = Decision(Action.DEAD_LETTER, DeadLetterReason(reason))
        else:
            raise ValueError(f"{reason.value} does not come from publishing: hand in such an event instead")
        self.publisher.script.extend([Report(decision, code=-1, detail="asked for by fail_next")] * times)

    def close(self, timeout_s: float | None = None) -> None:
        """Close as `ProducerService.close` does, by default at once: nothing changes here by waiting."""
        super().close(0.0 if timeout_s is None else timeout_s)

    def clear(self) -> None:
        """Forget what was published so far."""
        self.publisher.records.clear()
        self.publisher.script.clear()
