"""Records as people and scripts read them: decoded where that is possible, described where it is not."""

from __future__ import annotations

import json

import pytest

from postroom.libs.event import Violation
from postroom.libs.exceptions import RegistryUnavailableError, SubjectNotFoundError
from postroom.schemas.avro_codec import Codec, frame
from postroom.services.record_view import RecordView
from postroom.streaming.dead_letter_queue import ProducerIdentity, Stage, dead_letter_record
from postroom.streaming.kafka_reader import ReadRecord
from postroom.testing.manual_clock import ManualClock

SCHEMA = {
    "type": "record",
    "name": "click",
    "fields": [{"name": "user_id", "type": "string"}, {"name": "raw", "type": "bytes"}],
}
NOW_MS = 1_795_416_182_091


class Schemas:
    """Knows schema 7, and counts who asks."""

    def __init__(self) -> None:
        self.asked = 0
        self.away = False

    def by_id(self, schema_id: int) -> str:
        """The schema, or what a registry raises."""
        self.asked += 1
        if self.away:
            raise RegistryUnavailableError("the registry did not answer")
        if schema_id != 7:
            raise SubjectNotFoundError("no such schema")
        return json.dumps(SCHEMA)


def record(
    value: bytes | None, key: bytes | None = b"k", headers: tuple[tuple[str, bytes | None], ...] = ()
) -> ReadRecord:
    """A record that was read."""
    return ReadRecord("clicks", 2, 17, key, value, headers, NOW_MS)


def encoded(event: dict[str, object]) -> bytes:
    """The event in the wire format, under schema 7."""
    value = Codec(SCHEMA).encode(event, frame(7))
    assert value is not None
    return value


def test_an_event_is_decoded_by_its_schema_and_the_schema_asked_for_once() -> None:
    """Bytes stand as the table of lexical forms says."""
    schemas = Schemas()
    view = RecordView(schemas)
    value = encoded({"user_id": "u1", "raw": b"\x00\xff"})
    for _ in range(3):
        told = view.describe(record(value, headers=(("ce_id", b"id-1"), ("odd", b"\xff"), ("null", None))))
    assert schemas.asked == 1
    assert told == {
        "topic": "clicks",
        "partition": 2,
        "offset": 17,
        "timestamp": "2026-11-23T06:43:02.091Z",
        "key": "k",
        "headers": [["ce_id", "id-1"], ["odd", {"base64": "/w=="}], ["null", None]],
        "kind": "event",
        "schema_id": 7,
        "event": {"user_id": "u1", "raw": told["event"]["raw"]},
    }
    json.dumps(told, allow_nan=False)


@pytest.mark.parametrize(
    ("value", "problem"),
    [
        (b"", "no schema id"),
        (b"hello world", "the first byte is not the zero"),
        (frame(8) + b"x", "schema 8: no such schema"),
        (frame(7) + b"\x02", ""),
        (b"{broken", ""),
    ],
)
def test_what_cannot_be_decoded_is_described(value: bytes, problem: str) -> None:
    """Its size and why; never an exception."""
    told = RecordView(Schemas()).describe(record(value, key=b"\xff"))
    assert (told["kind"], told["bytes"], told["key"]) == ("bytes", len(value), {"base64": "/w=="})
    assert told["problem"]
    assert problem in told["problem"]


def test_a_record_without_a_value_is_a_tombstone() -> None:
    told = RecordView(Schemas()).describe(record(None))
    assert (told["kind"], told["key"]) == ("tombstone", "k")


def test_plain_json_is_shown_as_it_is() -> None:
    """What `KafkaClient().publish(mapping)` writes."""
    told = RecordView(Schemas()).describe(record(b'{"user_id": "u1"}', key=None))
    assert (told["kind"], told["event"], told["key"]) == ("json", {"user_id": "u1"}, None)


def test_a_registry_that_is_away_is_asked_again_later_and_not_for_every_record() -> None:
    """Ten seconds later, on the clock that was handed in."""
    schemas, clock = Schemas(), ManualClock()
    view = RecordView(schemas, clock=clock)
    schemas.away = True
    for _ in range(3):
        told = view.describe(record(encoded({"user_id": "u1", "raw": b""})))
        assert told["problem"] == "schema 7: the registry did not answer"
    assert schemas.asked == 1
    schemas.away = False
    clock.advance(10)
    assert view.describe(record(encoded({"user_id": "u1", "raw": b""})))["kind"] == "event"


def test_a_dead_letter_is_told_with_its_reason_and_its_event() -> None:
    """The event in its lossless form; bytes as text, or base64."""
    letter = dead_letter_record(
        {"user_id": 7, "raw": b"\xff"},
        topic="clicks",
        reason="validation_failed",
        stage=Stage.VALIDATE,
        event_id="id-1",
        producer=ProducerIdentity("s", "h", "v"),
        now_ms=NOW_MS,
        violations=[Violation("user_id", "wrong_type", "string", "int")],
    )
    told = RecordView(Schemas()).describe(record(letter.value, headers=letter.headers))
    assert (told["kind"], told["reason"], told["going_to"], told["damage"]) == (
        "dead_letter",
        "validation_failed",
        "clicks",
        "",
    )
    assert told["event"] == {"user_id": 7, "raw": {"$bytes": "/w=="}}
    assert told["violations"] == [{"path": "user_id", "rule": "wrong_type", "expected": "string", "found": "int"}]
    assert (told["first_seen"], told["failed_at"]) == ("2026-11-23T06:43:02.091Z", "2026-11-23T06:43:02.091Z")
    json.dumps(told, allow_nan=False)
    connect = record(b"raw", headers=(("__connect.errors.topic", b"orders"),))
    assert RecordView(Schemas()).describe(connect)["event"] == "raw"


def test_a_timestamp_that_is_none_is_none() -> None:
    """-1 stands for none, and a far too large one is none either."""
    for milliseconds in (-1, 2**62):
        told = RecordView(Schemas()).describe(ReadRecord("t", 0, 0, None, None, (), milliseconds))
        assert told["timestamp"] is None
