"""Several contracts in one service, several types in one topic: the right one is found, every record says which."""

from __future__ import annotations

import dataclasses
from typing import TYPE_CHECKING

import pytest

from postroom.libs.config_loader import load_config
from postroom.libs.event import DeadLettered, Delivered, Refused, RefusedReason
from postroom.libs.exceptions import ConfigurationError
from postroom.schemas.data_contracts import contract_from_short_form
from postroom.services.addressing import lane_of_record
from postroom.services.replay import Replay, Selection
from postroom.streaming.kafka_reader import ReadRecord
from postroom.testing.recording_service import RecordingService

if TYPE_CHECKING:
    from collections.abc import Mapping

    from postroom.libs.event import Outcome, Record

ORDER = contract_from_short_form("order", {"id": "string"}, topic="shop", key_field="id")
REFUND = contract_from_short_form("refund", {"id": "string", "cents": "long"}, topic="shop", key_field="id")
CLICK = contract_from_short_form("click", {"url": "string"}, topic="clicks")
ALL = [ORDER, REFUND, CLICK]
SETTINGS = {
    "schema_registry.subject_strategy": "topic_record_name",
    "contracts.default": "click",
    "topics.clicks": "prod.clicks",
}


def service(**overrides: object) -> RecordingService:
    return RecordingService(ALL, config=load_config(overrides={**SETTINGS, **overrides}, environ={}))


def sent(post: RecordingService, event: Mapping[str, object], name: str | None = None, **more: object) -> Outcome:
    return post.publish_event(event, event_type=name, **more).result(5)  # type: ignore[arg-type]  # headers only


class TestWhichContract:
    def test_the_argument_then_the_attribute_then_the_default(self) -> None:
        with service() as post:
            sent(post, {"id": "a"}, "order", headers={"ce_type": "click"})
            sent(post, {"id": "a", "cents": 1}, headers={"ce_type": "refund"})
            sent(post, {"url": "/"})
            assert [one.event_type for one in post.published] == ["order", "refund", "click"]

    @pytest.mark.parametrize("name", ["clicks", "prod.clicks"])
    def test_a_topic_of_one_contract_names_it_as_contracts_or_the_cluster_call_it(self, name: str) -> None:
        with service(**{"contracts.default": "order"}) as post:
            assert isinstance(sent(post, {"url": "/"}, name), Delivered)
            assert post.published[0].event_type == "click"

    def test_a_topic_of_several_names_none_and_they_are_listed(self) -> None:
        with service() as post:
            outcome = sent(post, {"id": "a"}, "shop")
            assert outcome == Refused(
                RefusedReason.UNKNOWN_EVENT_TYPE, None, "that topic holds several types, name one: order, refund"
            )
            assert post.ledger.total().unaccounted == 0

    def test_a_contract_s_name_wins_over_a_topic_s(self) -> None:
        named_so = contract_from_short_form("clicks", {"n": "long"}, topic="numbers")
        with RecordingService([CLICK, named_so]) as post:
            assert isinstance(sent(post, {"n": 1}, "clicks"), Delivered)
            assert post.published[0].topic == "numbers"

    def test_what_is_no_name_is_refused_and_not_shown(self) -> None:
        with service() as post:
            outcome = sent(post, {}, "secret")
            assert outcome == Refused(RefusedReason.UNKNOWN_EVENT_TYPE, None, "known contracts: click, order, refund")


class TestOneTopic:
    def test_its_records_name_their_type_and_others_do_not(self) -> None:
        with service() as post:
            sent(post, {"id": "a"}, "order", event_id="1")
            sent(post, {"id": "a", "cents": 1}, "refund", event_id="2")
            sent(post, {"url": "/"}, event_id="3")
            assert [one.headers for one in post.published] == [
                (("ce_id", b"1"), ("ce_type", b"order")),
                (("ce_id", b"2"), ("ce_type", b"refund")),
                (("ce_id", b"3"),),
            ]
            assert post.published[1].event == {"id": "a", "cents": 1}

    def test_a_repeat_names_its_type_too(self) -> None:
        with service() as post:
            post.hand_over(post.admit({"id": "a"}, "order", None, "1", None, None, attempt=2), 1.0)
            assert post.published[0].headers == (("ce_id", b"1"), ("ce_type", b"order"), ("x-attempt", b"2"))

    def test_the_whole_binding_names_it_once(self) -> None:
        whole = dataclasses.replace(ORDER, headers="cloudevents")
        config = load_config(overrides=SETTINGS, environ={})
        with RecordingService([whole, REFUND, CLICK], config=config) as post:
            sent(post, {"id": "a"}, "order")
            names = [name for name, _ in post.published[0].headers]
            assert names.count("ce_type") == 1

    def test_the_books_of_the_topic_hold_all_its_types(self) -> None:
        with service() as post:
            sent(post, {"id": "a"}, "order")
            sent(post, {"id": "a"}, "refund")
            balance = post.ledger.by_topic()["shop"]
            assert (balance.received, balance.delivered, balance.dead_lettered, balance.unaccounted) == (2, 1, 1, 0)

    def test_one_subject_for_two_types_stops_the_start(self) -> None:
        post = service(**{"schema_registry.subject_strategy": "topic_name"})
        with pytest.raises(ConfigurationError, match="subject_strategy"):
            post.start()

    def test_a_foreign_type_in_it_belongs_to_no_lane(self) -> None:
        with service() as post:
            lanes = post.parts.lanes.values()
            assert lane_of_record(lanes, "shop", [("ce_type", b"parcel")]) is None
            assert lane_of_record(lanes, "shop", []) is None
            assert lane_of_record(lanes, "elsewhere", []) is None


def read_back(record: Record, offset: int) -> ReadRecord:
    return ReadRecord(record.topic, 0, offset, record.key, record.value, record.headers, record.timestamp_ms)


def test_a_replay_finds_the_contract_of_each_dead_letter_by_its_type() -> None:
    with service() as post:
        assert isinstance(sent(post, {"id": "a"}, "refund"), DeadLettered)
        assert isinstance(sent(post, {"id": 5}, "order"), DeadLettered)
        letters = [read_back(record, at) for at, record in enumerate(post.publisher.records)]
        assert {dict(letter.headers)["dlq.event_type"] for letter in letters} == {b"refund", b"order"}
    mended = dataclasses.replace(
        contract_from_short_form("refund", {"id": "string"}, topic="shop", key_field="id"), record_name="refund"
    )
    settings = load_config(overrides={**SETTINGS, "contracts.default": "order"}, environ={})
    with RecordingService([ORDER, mended], config=settings) as post:
        result = Replay(post, Selection()).run(lambda: letters, lambda: 0)
        assert (result.delivered, result.still_failing) == (1, 1)
        assert dict(post.published[0].headers)["ce_type"] == b"refund"


def test_somebody_else_s_dead_letter_is_replayed_by_its_ce_type_where_several_share_the_topic() -> None:
    def letter(*headers: tuple[str, bytes]) -> ReadRecord:
        return ReadRecord("shop.dlq", 0, 0, b"a", b'{"id": "a"}', (("ce_id", b"1"), *headers), 0)

    with service() as post:
        told = letter(("ce_specversion", b"1.0"), ("ce_source", b"/x"), ("ce_type", b"order"))
        assert Replay(post, Selection()).run(lambda: [told], lambda: 0).delivered == 1
        assert post.published[0].event_type == "order"
        for unknown in (letter(), letter(("ce_type", b"\xff")), letter(("ce_type", b"parcel"))):
            read = [unknown]
            assert Replay(post, Selection()).run(read.copy, lambda: 0).not_rebuildable == 1
