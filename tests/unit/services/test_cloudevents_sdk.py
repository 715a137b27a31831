"""The official SDK of CloudEvents and postroom read what the other writes: Kafka protocol binding, both modes."""

from __future__ import annotations

import json
from dataclasses import replace
from datetime import UTC, datetime
from typing import TYPE_CHECKING, Any

import pytest

from postroom.libs.event import Delivered
from postroom.schemas.data_contracts import contract_from_short_form
from postroom.testing.recording_service import RecordingService

if TYPE_CHECKING:
    from postroom.libs.event import Record

CONTRACT = replace(
    contract_from_short_form("order", {"id": "string", "cents": "long"}, topic="orders", key_field="id"),
    headers="cloudevents",
    tombstones=True,
)
MOMENT = datetime(2026, 11, 23, 6, 43, 2, 91_000, tzinfo=UTC)
ATTRIBUTES = {
    "specversion": "1.0",
    "id": "e-1",
    "type": "order",
    "source": "/shop/köln",
    "time": MOMENT,
    "subject": "o-1",
    "partitionkey": "berlin",
}
DATA = {"id": "o-1", "cents": 5}


def read_by_the_sdk(record: Record) -> Any:
    from cloudevents.core.bindings.kafka import KafkaMessage, from_kafka_event

    # None is a tombstone, which the SDK reads as an event without data, whatever its types say.
    return from_kafka_event(KafkaMessage(headers=dict(record.headers), key=record.key, value=record.value))  # type: ignore[arg-type]


@pytest.mark.parametrize("mode", ["to_binary_event", "to_structured_event"])
def test_what_the_sdk_writes_is_published_and_the_sdk_reads_the_record_as_the_same_event(mode: str) -> None:
    from cloudevents.core.bindings import kafka
    from cloudevents.core.v1.event import CloudEvent

    message = getattr(kafka, mode)(CloudEvent({**ATTRIBUTES, "datacontenttype": "application/json"}, DATA))
    with RecordingService([CONTRACT]) as post:
        receipt = post.publish_event(message.value, headers=message.headers, key=message.key)
        assert isinstance(receipt.result(5), Delivered)
        assert post.published[0].event == DATA
        (record,) = post.publisher.records
    event = read_by_the_sdk(record)
    attributes = event.get_attributes()
    assert {name: attributes[name] for name in ATTRIBUTES} == ATTRIBUTES
    assert attributes["datacontenttype"] == "application/avro"
    assert attributes["dataschema"].endswith("/schemas/ids/1")


def test_what_postroom_says_itself_is_a_valid_cloudevent_too() -> None:
    with RecordingService([CONTRACT]) as post:
        post.publish_event(DATA, event_type="order", event_id="e-2", timestamp=int(MOMENT.timestamp() * 1000))
        post.publish_tombstone("o-1", event_type="order", event_id="e-3")
        record, tombstone = post.publisher.records
    event = read_by_the_sdk(record)
    assert (event.get_id(), event.get_type(), event.get_source()) == ("e-2", "order", "/postroom/postroom")
    assert event.get_time() == MOMENT
    gone = read_by_the_sdk(tombstone)
    assert (gone.get_id(), gone.get_data()) == ("e-3", None)


def test_the_sdk_s_structured_form_is_what_a_file_of_cloudevents_holds() -> None:
    from cloudevents.core.formats.json import JSONFormat
    from cloudevents.core.v1.event import CloudEvent

    line = JSONFormat().write(CloudEvent(ATTRIBUTES, DATA))
    assert b"\n" not in line
    assert json.loads(line)["specversion"] == "1.0"
