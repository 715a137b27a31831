"""The guide's shortest way, `KafkaClient().publish(event)`: a plain mapping as JSON, without any contract."""

from __future__ import annotations

import json
import threading
from typing import TYPE_CHECKING

from postroom.libs.event import Delivered, EventIds, Record
from postroom.libs.exceptions import ConfigurationError, NotRepresentableError
from postroom.streaming.delivery import Action
from postroom.streaming.publisher import publish_error

if TYPE_CHECKING:
    from collections.abc import Mapping

    from postroom.libs.clock import Clock
    from postroom.libs.config_loader import Config
    from postroom.streaming.publisher import Publisher, Report


def publish_as_json(publisher: Publisher, event: Mapping[str, object], config: Config, clock: Clock) -> Delivered:
    """Publish `event` to the first of the configured topics and wait until Kafka has acknowledged it.

    Raises NotRepresentableError for what plain JSON cannot hold, ConfigurationError without any topic, and the
    PublishError that fits when Kafka did not take it.
    """
    try:
        value = json.dumps(dict(event), allow_nan=False, ensure_ascii=False).encode()
    except (TypeError, ValueError, RecursionError) as exc:
        raise NotRepresentableError("the event cannot be written as JSON", remedy="use plain JSON types") from exc
    topic = next(iter(config.topics.values()), None)
    if topic is None:
        raise ConfigurationError("no topic is configured", remedy="name one under topics")
    now_ms = clock.time_ms()
    event_id = EventIds().next(now_ms)
    answered = threading.Event()
    reports: list[Report] = []

    def on_done(report: Report) -> None:
        reports.append(report)
        answered.set()

    publisher.publish(Record(topic, None, value, (("ce_id", event_id.encode()),), event_id, now_ms), on_done)
    answered.wait()  # bounded: every record gets its report within hand_over_after_s and a little
    report = reports[0]
    if report.decision.action is Action.DELIVERED:
        return Delivered(topic, report.partition, report.offset)
    raise publish_error(topic, report)
