"""A few events and dead letters, read back from the topics of a running service."""

from __future__ import annotations

import heapq
import json
from typing import TYPE_CHECKING

import msgspec

from postroom.services.addressing import lane_of_record
from postroom.streaming.dead_letter_queue import rebuild
from postroom.streaming.kafka_reader import KafkaReader
from postroom.streaming.librdkafka_settings import client_settings

if TYPE_CHECKING:
    from collections.abc import Callable

    from postroom.services.producer_service import ProducerService
    from postroom.streaming.kafka_reader import ReadRecord

_TEXT_CAP = 300


class Sample(msgspec.Struct, frozen=True):
    """One record as a person reads it: its place, its key (of a dead letter: the reason), its content in short."""

    place: str
    key: str
    text: str


def read_samples(service: ProducerService, count: int) -> tuple[list[Sample], list[Sample]]:
    """Return the last `count` events and dead letters of the service's default contract."""
    parts = service.parts
    lanes = parts.lanes.values()
    lane = parts.lanes[parts.config.contracts.default]
    reader = KafkaReader(client_settings(parts.config))

    def event(record: ReadRecord) -> Sample:
        its_lane = lane_of_record(lanes, record.topic, record.headers) or lane
        fields = {} if record.value is None else its_lane.decode(record.value)
        text = json.dumps({name: value for name, value in fields.items() if value is not None}, default=str)
        return Sample(_place(record), (record.key or b"").decode(errors="replace"), text[:_TEXT_CAP])

    def letter(record: ReadRecord) -> Sample:
        told = rebuild(record)
        return Sample(_place(record), told.reason, "; ".join(str(violation) for violation in told.violations))

    def samples(topic: str, shown: Callable[[ReadRecord], Sample]) -> list[Sample]:
        newest = heapq.nlargest(count, reader.read([topic], last=count), key=lambda record: record.timestamp_ms)
        return [shown(record) for record in reversed(newest)]

    return samples(lane.topic, event), samples(lane.dead_letter_topic, letter)


def _place(record: ReadRecord) -> str:
    return f"{record.topic}[{record.partition}] {record.offset}"
