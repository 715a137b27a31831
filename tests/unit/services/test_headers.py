"""The headers of a record: the event id always, all of CloudEvents where the contract asks for it."""

from __future__ import annotations

import dataclasses

from postroom.schemas.data_contracts import packaged_contracts
from postroom.testing.manual_clock import ManualClock
from postroom.testing.recording_service import RecordingService

EVENT = {"user_id": "u1", "timestamp": 1}


def test_a_record_carries_its_event_id_and_the_callers_headers() -> None:
    with RecordingService() as post:
        post.publish_event(EVENT, event_id="e-1", headers=[("a", "1"), ("a", b"\x00")])
        assert post.published[0].headers == (("ce_id", b"e-1"), ("a", b"1"), ("a", b"\x00"))


def test_a_contract_can_ask_for_the_whole_cloudevents_binding() -> None:
    """CloudEvents 1.0, Kafka protocol binding, binary content mode: attributes as `ce_` headers, and `content-type`."""
    contract = dataclasses.replace(packaged_contracts()["user_event"], headers="cloudevents")
    with RecordingService([contract], clock=ManualClock()) as post:
        post.publish_event(EVENT, event_id="e-1", timestamp=1_795_416_182_091, headers={"own": "x"})
        headers = dict(post.published[0].headers)
    assert headers == {
        "ce_id": b"e-1",
        "ce_specversion": b"1.0",
        "ce_type": b"user_event",
        "ce_source": b"/postroom/postroom",
        "ce_dataschema": b"http://localhost:8081/schemas/ids/1",
        "ce_time": b"2026-11-23T06:43:02.091Z",
        "content-type": b"application/avro",
        "own": b"x",
    }


def test_a_repeat_is_marked_with_its_number() -> None:
    with RecordingService() as post:
        item = post.admit(EVENT, None, None, "e-1", None, None, attempt=3)
        post.hand_over(item, 1.0)
        assert dict(post.published[0].headers)["x-attempt"] == b"3"
        assert post.publisher.records[0].attempt == 3
