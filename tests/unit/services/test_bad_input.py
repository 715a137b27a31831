"""Keys, ids, headers, times and types that no record can carry: one clear answer each; the next event goes through."""

from __future__ import annotations

from collections import UserDict
from types import MappingProxyType
from typing import TYPE_CHECKING, Any

import pytest

from postroom.libs.event import DeadLettered, Delivered, Outcome, Refused, RefusedReason
from postroom.testing.recording_service import RecordingService

if TYPE_CHECKING:
    from collections.abc import Iterator

GOOD = {"user_id": "u1", "timestamp": 1}
SECRET = "s3cr3t-payload"


@pytest.fixture
def post() -> Iterator[RecordingService]:
    with RecordingService() as post:
        yield post
        last = post.publish_event(GOOD).result(1)
        assert isinstance(last, Delivered), "the next good event must go through"
        balance = post.ledger.total()
        assert (balance.unaccounted, balance.pending) == (0, 0)


METADATA = [
    ("an empty event id", {"event_id": ""}),
    ("an event id with a space", {"event_id": "a b"}),
    ("an event id with a line end", {"event_id": "a\nb"}),
    ("an event id that is not ASCII", {"event_id": "ä"}),
    ("an event id of 257 characters", {"event_id": "x" * 257}),
    ("a key with a lone surrogate", {"key": "\ud800"}),
    ("a negative time", {"timestamp": -1}),
    ("a time in microseconds", {"timestamp": 1_795_416_182_091_000}),
    ("a header without a name", {"headers": {"": "x"}}),
    ("a header with a name of 257 bytes", {"headers": {"x" * 257: "x"}}),
    ("a header name with a lone surrogate", {"headers": {"\ud800": "x"}}),
    ("a header value with a lone surrogate", {"headers": {"x": "\ud800"}}),
    ("a thousand headers", {"headers": [("x", "y")] * 1_000}),
    ("headers of a megabyte", {"headers": {"x": b"y" * 1_000_000}}),
    ("a forged dead letter header", {"headers": {"dlq.reason": "x"}}),
    ("a forged Connect header", {"headers": {"__connect.errors.topic": "x"}}),
    ("a forged attempt", {"headers": {"x-attempt": "7"}}),
    ("a forged CloudEvents header", {"headers": {"ce_source": "x"}}),
    ("two types", {"headers": [("ce_type", "user_event"), ("ce_type", "other")]}),
    ("a type that is no text", {"headers": {"ce_type": b"\xff"}}),
]


@pytest.mark.parametrize(("what", "given"), METADATA, ids=[name for name, _ in METADATA])
def test_metadata_that_no_record_can_carry_is_refused(post: RecordingService, what: str, given: dict[str, Any]) -> None:
    outcome = post.publish_event(GOOD, **given).result(1)
    assert isinstance(outcome, Refused)
    assert (outcome.reason, outcome.retry_after_s) == (RefusedReason.INVALID_METADATA, None)
    assert outcome.detail
    assert post.publisher.records == []


MISUSE = [
    ("a list", [], {}),
    ("a number", 5, {}),
    ("nothing", None, {}),
    ("a type that is no text", GOOD, {"event_type": 5}),
    ("an id that is no text", GOOD, {"event_id": 5}),
    ("a key that is a number", GOOD, {"key": 5}),
    ("a time with a fraction", GOOD, {"timestamp": 1.5}),
    ("a time that is true", GOOD, {"timestamp": True}),
    ("a header that is a number", GOOD, {"headers": {"x": 5}}),
    ("a header name that is a number", GOOD, {"headers": {5: "x"}}),
]


@pytest.mark.parametrize(("what", "event", "given"), MISUSE, ids=[name for name, _, _ in MISUSE])
def test_an_argument_of_a_wrong_kind_raises_and_counts_nothing(
    post: RecordingService, what: str, event: Any, given: dict[str, Any]
) -> None:
    with pytest.raises(TypeError):
        post.publish_event(event, **given)
    assert post.ledger.total().received == 0


KEYS = [("none", None, b"u1"), ("empty", "", b""), ("bytes", b"\x00\xff", b"\x00\xff"), ("text", "ä", "ä".encode())]


@pytest.mark.parametrize(("what", "key", "sent"), KEYS, ids=[name for name, _, _ in KEYS])
def test_keys_go_out_as_they_are(post: RecordingService, what: str, key: Any, sent: bytes) -> None:
    post.publish_event(GOOD, key=key).result(1)
    assert post.publisher.records[0].key == sent


class Hostile(UserDict[str, object]):
    """Raises wherever it can."""

    def __iter__(self) -> Iterator[str]:
        raise RuntimeError(SECRET)

    def get(self, key: str, default: object = None) -> object:
        raise RuntimeError(SECRET)


def deep(levels: int) -> dict[str, object]:
    event: dict[str, object] = {}
    for _ in range(levels):
        event = {"user_id": event}
    return event


EVENTS = [
    ("nothing inside", {}),
    ("a secret in the wrong place", {"user_id": {SECRET: SECRET}, "timestamp": SECRET}),
    ("an unknown field", {**GOOD, SECRET + " with spaces": SECRET}),
    ("keys that are no text", {1: 2, None: 3}),
    ("a million nested levels of JSON", b'{"user_id":' * 100_000),
    ("65 levels", deep(65)),
    ("100,000 levels", deep(100_000)),
    ("no text in JSON", b"\xff\xfe"),
    ("UTF-16", '{"user_id": "u1", "timestamp": 1}'.encode("utf-16")),
    ("duplicate keys", b'{"user_id": "a", "user_id": "b", "timestamp": 1}'),
    ("not a number", b'{"user_id": "a", "timestamp": NaN}'),
    ("an endless number", b'{"user_id": "a", "timestamp": ' + b"9" * 5_000 + b"}"),
    ("a lone surrogate", b'{"user_id": "\\ud800", "timestamp": 1}'),
    ("text after the event", b'{"user_id": "a", "timestamp": 1} ' + SECRET.encode()),
    ("text with a lone surrogate", '{"user_id": "\ud800"}'),
    ("a set", {"user_id": {1, 2}, "timestamp": 1}),
    ("an object", {"user_id": object(), "timestamp": 1}),
    ("a hostile mapping", Hostile(user_id="u1")),
]


@pytest.mark.parametrize(("what", "event"), EVENTS, ids=[name for name, _ in EVENTS])
def test_an_event_that_breaks_its_contract_has_one_outcome_that_tells_no_value(
    post: RecordingService, what: str, event: Any
) -> None:
    outcome: Outcome = post.publish_event(event).result(5)
    assert not isinstance(outcome, Delivered)
    assert SECRET not in repr(outcome)
    error = outcome.error()
    assert error is not None
    assert SECRET not in str(error)
    for record in post.publisher.records:
        assert SECRET not in repr(record.headers)


def test_a_mapping_that_cannot_be_read_is_refused_and_is_no_defect_of_ours(post: RecordingService) -> None:
    outcome = post.publish_event(Hostile(user_id="u1")).result(1)
    assert isinstance(outcome, Refused)
    assert outcome.reason is RefusedReason.NOT_REPRESENTABLE


@pytest.mark.parametrize("kind", [dict, UserDict, MappingProxyType])
def test_the_event_itself_may_be_any_mapping(post: RecordingService, kind: Any) -> None:
    assert isinstance(post.publish_event(kind(GOOD)).result(1), Delivered)


def test_an_unknown_type_is_refused_with_the_known_ones(post: RecordingService) -> None:
    outcome = post.publish_event(GOOD, event_type="no_such_event").result(1)
    assert isinstance(outcome, Refused)
    assert outcome.reason is RefusedReason.UNKNOWN_EVENT_TYPE
    assert "user_event" in outcome.detail


def test_type_and_id_may_come_as_cloudevents_headers(post: RecordingService) -> None:
    post.publish_event(GOOD, headers={"ce_type": "user_event", "ce_id": "e-1", "trace": "t"}).result(1)
    (event,) = post.published
    assert (event.event_id, event.headers) == ("e-1", (("ce_id", b"e-1"), ("trace", b"t")))


def test_a_broken_event_keeps_its_key_where_it_has_one(post: RecordingService) -> None:
    outcome = post.publish_event({"user_id": "u7"}).result(1)
    assert isinstance(outcome, DeadLettered)
    assert post.publisher.records[0].key == b"u7"
