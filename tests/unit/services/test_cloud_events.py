"""CloudEvents as they are handed in: both modes, every attribute, every way to get it wrong, and nothing guessed."""

from __future__ import annotations

import base64
import json
from collections.abc import Mapping
from dataclasses import replace
from typing import TYPE_CHECKING, Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from postroom.libs.config_loader import load_config
from postroom.libs.event import DeadLettered, DeadLetterReason, Delivered, Refused, RefusedReason
from postroom.schemas.data_contracts import contract_from_short_form
from postroom.services.cloud_events import STRUCTURED_TYPE, HandedIn, record_headers, taken_apart
from postroom.services.lane import MetadataError
from postroom.services.replay import Replay, Selection
from postroom.streaming.kafka_reader import ReadRecord
from postroom.testing.manual_clock import ManualClock
from postroom.testing.recording_service import RecordingService

if TYPE_CHECKING:
    from postroom.libs.event import Outcome, Record

MINIMAL = contract_from_short_form(
    "order",
    {"id": "string", "at": {"type": "long", "logicalType": "timestamp-millis"}},
    topic="orders",
    key_field="id",
)
WHOLE = replace(MINIMAL, headers="cloudevents")
DATA = {"id": "o-1", "at": "2026-11-23T06:43:02.091Z"}
ATTRIBUTES = {
    "specversion": "1.0",
    "id": "e-1",
    "type": "order",
    "source": "/shop/berlin",
    "time": "2026-11-23T06:43:02.091999Z",
    "subject": "o-1",
    "dataschema": "https://example.com/order.json",
    "partitionkey": "berlin",
    "sampledrate": 5,
    "vip": True,
}
HEADER = {"content-type": "application/cloudevents+json; charset=UTF-8"}
SAID = {
    "ce_specversion": b"1.0",
    "ce_source": b"/shop/berlin",
    "ce_time": b"2026-11-23T06:43:02.091999Z",
    "ce_subject": b"o-1",
    "ce_partitionkey": b"berlin",
    "ce_sampledrate": b"5",
    "ce_vip": b"true",
}


def service(contract: Any = WHOLE) -> RecordingService:
    config = load_config(overrides={"contracts.default": "order"}, environ={})
    return RecordingService([contract], config=config, clock=ManualClock())


def envelope(**changes: Any) -> dict[str, Any]:
    made = {**ATTRIBUTES, "datacontenttype": "application/json", "data": DATA, **changes}
    return {name: value for name, value in made.items() if value is not ...}


def binary(**changes: Any) -> list[tuple[str, str | bytes]]:
    made = {**ATTRIBUTES, "sampledrate": "5", "vip": "true", **changes}
    headers = [(f"ce_{name}", value) for name, value in made.items() if value is not ...]
    return [("content-type", "application/json"), *headers]


def handed_in(post: RecordingService, what: Any, headers: Any = HEADER, **more: Any) -> Outcome:
    event = json.dumps(what).encode() if isinstance(what, dict) else what
    return post.publish_event(event, headers=headers, **more).result(5)


class TestBothModes:
    def check(self, post: RecordingService) -> None:
        (one,) = post.published
        assert (one.event_id, one.key, one.timestamp_ms, one.event_type) == (
            "e-1",
            b"berlin",
            1_795_416_182_091,
            "order",
        )
        assert one.event["id"] == "o-1"
        assert dict(one.headers) == {
            **SAID,
            "ce_id": b"e-1",
            "ce_type": b"order",
            "ce_dataschema": b"http://localhost:8081/schemas/ids/1",
            "content-type": b"application/avro",
        }

    @pytest.mark.parametrize("as_text", [False, True])
    def test_a_structured_one_is_published_with_its_attributes(self, as_text: bool) -> None:
        text = json.dumps(envelope())
        with service() as post:
            outcome = post.publish_event(text if as_text else text.encode(), headers=HEADER).result(5)
            assert isinstance(outcome, Delivered)
            self.check(post)

    def test_a_binary_one_as_well(self) -> None:
        with service() as post:
            assert isinstance(handed_in(post, DATA, binary()), Delivered)
            self.check(post)

    def test_data_in_base64_is_the_same_data(self) -> None:
        encoded = base64.b64encode(json.dumps(DATA).encode()).decode()
        with service() as post:
            assert isinstance(handed_in(post, envelope(data=..., data_base64=encoded)), Delivered)
            self.check(post)

    def test_an_envelope_that_is_a_mapping_holds_python_values(self) -> None:
        event = {"id": "o-1", "at": __import__("datetime").datetime.fromisoformat("2026-11-23T06:43:02.091+00:00")}
        with service() as post:
            assert isinstance(post.publish_event(envelope(data=event), headers=HEADER).result(5), Delivered)
            self.check(post)
            assert isinstance(post.publish_event(envelope(data=DATA), headers=HEADER).result(5), DeadLettered)
            assert isinstance(post.publish_event(envelope(data=json.dumps(DATA)), headers=HEADER).result(5), Delivered)

    def test_small_records_keep_small_headers_and_the_caller_s_own(self) -> None:
        with service(MINIMAL) as post:
            handed_in(post, DATA, [*binary(), ("own", b"\xff")])
            (one,) = post.published
            assert one.headers == (("ce_id", b"e-1"), ("own", b"\xff"))
            assert (one.key, one.timestamp_ms) == (b"berlin", 1_795_416_182_091)

    def test_what_an_argument_says_counts(self) -> None:
        with service() as post:
            more = {"event_type": "order", "event_id": "mine", "key": "k", "timestamp": 7}
            handed_in(post, envelope(type="other", id="with space"), **more)
            (one,) = post.published
            assert (one.event_id, one.key, one.timestamp_ms) == ("mine", b"k", 7)
            assert dict(one.headers)["ce_time"] == SAID["ce_time"]  # when it happened stays what it was

    def test_without_time_and_key_it_is_as_with_any_event(self) -> None:
        with service() as post:
            handed_in(post, envelope(time=None, partitionkey=..., subject=None))
            (one,) = post.published
            assert (one.key, one.timestamp_ms) == (b"o-1", post._clock.time_ms())
            assert "ce_subject" not in dict(one.headers)

    def test_headers_of_binary_mode_beside_an_envelope_are_ignored(self) -> None:
        with service() as post:
            handed_in(post, envelope(), [*HEADER.items(), ("ce_specversion", "0.3"), ("ce_id", "x"), ("ce_id", "y")])
            self.check(post)

    def test_a_tombstone_may_be_one(self) -> None:
        with service(replace(WHOLE, tombstones=True)) as post:
            assert isinstance(post.publish_tombstone("k", headers=binary()).result(5), Delivered)
            headers = dict(post.tombstones[0].headers)
            assert headers == {**SAID, "ce_id": b"e-1", "ce_type": b"order"}
            outcome = post.publish_tombstone("k", headers=HEADER).result(5)
            assert isinstance(outcome, Refused)


class TestNothingIsGuessed:
    def test_fields_of_an_event_never_make_it_a_cloudevent(self) -> None:
        fields = {"specversion": "string", "id": "string", "type": "string", "source": "string", "data": "string"}
        contract = contract_from_short_form("odd", fields)
        event = dict.fromkeys(fields, "x")
        with RecordingService([contract]) as post:
            assert isinstance(post.publish_event(event, event_type="odd").result(5), Delivered)
            assert post.published[0].event == event

    @pytest.mark.parametrize("name", ["ce_source", "ce_time", "content-type"])
    def test_a_header_of_cloudevents_alone_is_refused_as_ever(self, name: str) -> None:
        with service() as post:
            assert isinstance(handed_in(post, DATA, {name: "application/json"}), Refused)

    @pytest.mark.parametrize(
        "media_type",
        ["application/cloudevents-batch+json", "application/cloudevents+avro", "application/cloudevents", ""],
    )
    def test_other_forms_are_refused(self, media_type: str) -> None:
        with service() as post:
            outcome = handed_in(post, envelope(), {"content-type": media_type})
            assert isinstance(outcome, Refused)
            assert outcome.reason is RefusedReason.INVALID_METADATA


class TestBadEnvelopes:
    @pytest.mark.parametrize(
        ("changes", "named"),
        [
            ({"specversion": ...}, "specversion"),
            ({"specversion": "0.3"}, "specversion"),
            ({"specversion": 1}, "specversion"),
            ({"id": ...}, "id"),
            ({"id": ""}, "id"),
            ({"id": "two words"}, "id"),
            ({"id": "x" * 257}, "id"),
            ({"type": None}, "type"),
            ({"type": ["order"]}, "type"),
            ({"source": ...}, "source"),
            ({"source": ""}, "source"),
            ({"source": "a\nb"}, "source"),
            ({"subject": ""}, "subject"),
            ({"time": "yesterday"}, "time"),
            ({"time": "2026-11-24T06:43:02"}, "time"),
            ({"time": "2026-02-30T06:43:02Z"}, "time"),
            ({"time": "2026-11-24T06:43:60Z"}, "time"),
            ({"time": "1969-12-31T23:59:59.999Z"}, "time"),
            ({"time": "9999-12-31T23:59:59-23:59"}, "time"),
            ({"time": 1795416182091}, "time"),
            ({"partitionkey": ""}, "partitionkey"),
            ({"rate": 0.5}, "rate"),
            ({"rate": 2**31}, "rate"),
            ({"rate": {"a": 1}}, "rate"),
            ({"traceParent": "x"}, "traceParent"),
            ({"two words": "x"}, "<unprintable>"),
            ({"x" * 65: "x"}, "<unprintable>"),
            ({"": "x"}, "<unprintable>"),
            ({"datacontenttype": "text/xml"}, "datacontenttype"),
            ({"data": ...}, "data"),
            ({"data": None}, "data"),
            ({"data_base64": "e30="}, "data_base64"),
            ({"data": ..., "data_base64": "secret!"}, "data_base64"),
            ({"data": ..., "data_base64": 5}, "data_base64"),
        ],
        ids=str,
    )
    def test_they_are_refused_and_the_attribute_is_named(self, changes: dict[str, Any], named: str) -> None:
        with service() as post:
            outcome = handed_in(post, envelope(**changes))
            assert isinstance(outcome, Refused)
            assert (outcome.reason, outcome.retry_after_s) == (RefusedReason.INVALID_METADATA, None)
            assert named in outcome.detail
            for value in changes.values():
                assert not isinstance(value, str) or len(value) < 4 or value not in outcome.detail
            assert isinstance(handed_in(post, envelope()), Delivered)
            assert post.ledger.total().unaccounted == 0

    @pytest.mark.parametrize(
        ("headers", "named"),
        [
            (binary(specversion="0.3"), "specversion"),
            (binary(source=...), "source"),
            (binary(id=...), "id"),
            (binary(id=b"\xff"), "ce_id"),
            ([*binary(), ("ce_source", "again")], "ce_source"),
            (binary(data="{}"), "data"),
            (binary(BAD="x"), "BAD"),
            ([("content-type", "application/avro"), *binary()[1:]], "content-type"),
            ([("content-type", b"\xff"), *binary()[1:]], "content-type"),
            ([*binary(), ("dlq.reason", "x")], "dlq"),
            ([*binary(), *[("a", "")] * 95], "100 headers"),
            (binary(huge="x" * 20_000), "max_header_bytes"),
        ],
    )
    def test_in_binary_mode_as_well(self, headers: Any, named: str) -> None:
        with service() as post:
            outcome = handed_in(post, DATA, headers)
            assert isinstance(outcome, Refused)
            assert outcome.reason is RefusedReason.INVALID_METADATA
            assert named in outcome.detail

    @pytest.mark.parametrize("what", [b"[]", b"5", b"null", '"text"'])
    def test_json_that_is_no_envelope_is_refused(self, what: Any) -> None:
        with service() as post:
            outcome = post.publish_event(what, headers=HEADER).result(5)
            assert isinstance(outcome, Refused)
            assert "envelope" in outcome.detail

    def test_a_mapping_that_raises_or_has_odd_names_is_refused(self) -> None:
        class Hostile(Mapping[str, object]):
            def __getitem__(self, name: str) -> object:
                raise RuntimeError("secret")

            def __iter__(self) -> Any:
                raise RuntimeError("secret")

            def __len__(self) -> int:
                return 1

        odd: Any
        with service() as post:
            for odd in (Hostile(), {5: "x"}, envelope(data=[1]), envelope(data=object())):
                outcome = post.publish_event(odd, headers=HEADER).result(5)
                assert isinstance(outcome, Refused)
                assert "secret" not in outcome.detail

    @pytest.mark.parametrize("what", [b"", b"{", b'{"id": "a", "id": "b"}', b"\xff\xfe{", b"[" * 70 + b"]" * 70])
    def test_what_is_no_json_is_kept_whole_and_is_still_an_envelope_when_it_is_replayed(self, what: bytes) -> None:
        with service() as post:
            outcome = handed_in(post, what)
            assert isinstance(outcome, DeadLettered)
            assert outcome.reason == DeadLetterReason.DECODE_FAILED
            (letter,) = post.dead_letters
            assert (letter.event, letter.headers) == (what, (("content-type", STRUCTURED_TYPE.encode()),))

    @pytest.mark.parametrize("headers", [{5: "x"}, [("ce_specversion", 5)], [("a",)], [("content-type", None)]])
    def test_headers_of_a_wrong_kind_are_a_mistake_of_the_program(self, headers: Any) -> None:
        with service() as post:
            with pytest.raises(TypeError):
                post.publish_event(DATA, headers=headers)
            assert post.ledger.total().received == 0


def read_back(record: Record) -> ReadRecord:
    return ReadRecord(record.topic, 0, 0, record.key, record.value, record.headers, record.timestamp_ms)


class TestDeadLetters:
    @pytest.mark.parametrize("contract", [MINIMAL, WHOLE], ids=["minimal", "whole"])
    @pytest.mark.parametrize("mode", ["structured", "binary"])
    def test_data_that_breaks_its_contract_is_kept_with_all_attributes_and_replays_as_the_same_event(
        self, contract: Any, mode: str
    ) -> None:
        broken = {"id": "o-1", "at": "today"}
        mended = contract_from_short_form("order", {"id": "string", "at": "string"}, topic="orders", key_field="id")
        with service(contract) as post:
            if mode == "structured":
                outcome = handed_in(post, envelope(data=broken))
            else:
                outcome = handed_in(post, broken, binary())
            assert isinstance(outcome, DeadLettered)
            (letter,) = post.dead_letters
            assert isinstance(letter.event, bytes)
            assert json.loads(letter.event) == broken
            assert {name: value for name, value in letter.headers if name != "ce_dataschema"} == SAID
            records = [read_back(record) for record in post.publisher.records]
        with service(replace(mended, headers="cloudevents")) as post:
            assert Replay(post, Selection()).run(lambda: records, lambda: 0).delivered == 1
            (one,) = post.published
            assert (one.event_id, one.key, one.timestamp_ms) == ("e-1", b"berlin", 1_795_416_182_091)
            assert SAID.items() <= dict(one.headers).items()
            assert one.event == broken

    def test_one_that_comes_out_of_the_spool_can_be_replayed_too(self, tmp_path: Any) -> None:
        """The headers that describe its Avro bytes stayed in the dead letter, and the replay was refused."""
        config = load_config(
            overrides={"contracts.default": "order", "spool.dir": str(tmp_path), "spool.write_ahead": "fsync"},
            environ={},
        )
        event = {"id": "o-1", "at": __import__("datetime").datetime.fromisoformat("2026-11-23T06:43:02.091+00:00")}
        with RecordingService([WHOLE], config=config) as post:
            post.fail_next(DeadLetterReason.REJECTED_BY_BROKER)
            post.faults.away()
            post.publish_event(event, event_id="e-1")
            post.faults.back()
            post.wait_until_drained()
            records = [read_back(record) for record in post.publisher.records]
            assert [record.topic for record in records] == ["orders.dlq"]
        with service() as post:
            assert Replay(post, Selection()).run(lambda: records, lambda: 0).delivered == 1


TEXT = st.text(st.characters(exclude_categories=["Cc", "Cs"]), min_size=1, max_size=20)
IDS = st.text(st.characters(min_codepoint=0x21, max_codepoint=0x7E), min_size=1, max_size=20)
EXTENSIONS = st.dictionaries(
    st.from_regex(r"\Ax[a-z0-9]{1,8}\Z"),
    st.one_of(TEXT, st.booleans(), st.integers(-(2**31), 2**31 - 1)),
    max_size=4,
)
NOTHING = HandedIn(b"", None, None, None, None)


@given(event_id=IDS, kind=TEXT, source=TEXT, extensions=EXTENSIONS, data=st.dictionaries(TEXT, st.integers() | TEXT))
def test_both_modes_mean_the_same_for_every_cloudevent(
    event_id: str, kind: str, source: str, extensions: dict[str, Any], data: dict[str, Any]
) -> None:
    attributes = {"specversion": "1.0", "id": event_id, "type": kind, "source": source, **extensions}
    texts = {name: str(value).lower() if isinstance(value, bool) else str(value) for name, value in attributes.items()}
    text = json.dumps({**attributes, "data": data})
    one = taken_apart(NOTHING._replace(event=text), HEADER, 10_000)
    other = taken_apart(
        NOTHING._replace(event=json.dumps(data).encode()), {f"ce_{k}": v.encode() for k, v in texts.items()}, 10_000
    )
    assert one[1:] == other[1:]
    assert (one.event_id, one.event_type) == (event_id, kind)
    assert isinstance(one.event, bytes)
    assert json.loads(one.event) == data


JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False, allow_infinity=False) | st.text(),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=8), inner, max_size=3),
    max_leaves=8,
)


@given(changes=st.dictionaries(st.sampled_from(sorted(envelope())) | st.text(max_size=10), JSON, max_size=4))
def test_no_envelope_is_more_than_taken_or_refused(changes: dict[str, Any]) -> None:
    try:
        taken = taken_apart(NOTHING._replace(event=json.dumps({**envelope(), **changes})), HEADER, 10_000)
    except MetadataError:
        return
    assert {name for name, _ in taken.headers} >= {"ce_specversion", "ce_source"}


@given(names=st.lists(st.sampled_from(["a", "b", "ce_source", "ce_x"]), max_size=5))
def test_headers_of_a_record_say_nothing_twice(names: list[str]) -> None:
    handed = tuple((name, b"theirs") for name in dict.fromkeys(names))
    own = (("ce_id", b"1"), ("ce_source", b"ours"))
    told = record_headers(own, handed, whole_binding=True)
    assert len({name for name, _ in told}) == len(told)
    assert dict(told) == {**dict(own), **dict(handed)}
    small = record_headers(own, handed, whole_binding=False)
    assert small == (*own, *(pair for pair in handed if not pair[0].startswith("ce_")))
