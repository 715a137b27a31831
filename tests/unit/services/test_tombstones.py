"""Records without a value: only where the contract allows them, and null stays null wherever they go."""

from __future__ import annotations

import asyncio
import time
from dataclasses import replace
from typing import TYPE_CHECKING, Any

import pytest

from postroom.libs.config_loader import load_config
from postroom.libs.event import DeadLettered, DeadLetterReason, Delivered, Refused, RefusedReason, Spooled
from postroom.schemas.data_contracts import contract_from_short_form
from postroom.services.async_service import AsyncProducerService
from postroom.services.record_view import RecordView
from postroom.services.replay import Replay, Selection
from postroom.services.verify import found_from
from postroom.streaming.dead_letter_queue import rebuild
from postroom.streaming.kafka_reader import ReadRecord
from postroom.testing.fault_script import FaultScript
from postroom.testing.manual_clock import ManualClock
from postroom.testing.recording_service import RecordingService
from tests.unit.services.test_spooling import FastClock

if TYPE_CHECKING:
    from pathlib import Path

    from postroom.libs.event import Record
    from postroom.schemas.data_contracts import Contract

PLAIN = contract_from_short_form("profile", {"user_id": "string", "city": "string"}, key_field="user_id")
PROFILE = replace(PLAIN, tombstones=True)
PATIENCE_S = 20.0


def service(contract: Contract = PROFILE, **more: Any) -> RecordingService:
    settings = {"contracts.default": "profile", **more.pop("settings", {})}
    return RecordingService([contract], config=load_config(overrides=settings, environ={}), **more)


def read_back(record: Record) -> ReadRecord:
    return ReadRecord(record.topic, 0, 0, record.key, record.value, record.headers, record.timestamp_ms)


def test_it_reaches_its_topic_with_key_and_id_and_without_a_value() -> None:
    with service(clock=ManualClock()) as post:
        receipt = post.publish_tombstone("u1", event_id="e-1", headers={"own": "x"}, timestamp=5)
        assert isinstance(receipt.result(5), Delivered)
        (record,) = post.tombstones
        assert (record.topic, record.key, record.value, record.timestamp_ms) == ("profile", b"u1", None, 5)
        assert record.headers == (("ce_id", b"e-1"), ("own", b"x"))
        assert post.published == []
        balance = post.ledger.total()
        assert (balance.received, balance.delivered, balance.unaccounted) == (1, 1, 0)


def test_the_whole_binding_says_nothing_about_data_that_is_not_there() -> None:
    with service(replace(PROFILE, headers="cloudevents")) as post:
        post.publish_tombstone(b"\x00")
        assert [name for name, _ in post.tombstones[0].headers] == [
            "ce_id",
            "ce_specversion",
            "ce_type",
            "ce_source",
            "ce_time",
        ]


def test_where_the_contract_does_not_allow_it_it_is_refused_with_a_remedy() -> None:
    with service(PLAIN) as post:
        outcome = post.publish_tombstone("u1").result(5)
        assert isinstance(outcome, Refused)
        assert (outcome.reason, outcome.retry_after_s) == (RefusedReason.TOMBSTONE_NOT_ALLOWED, None)
        assert "tombstones: true" in outcome.detail
        assert post.publisher.records == []
        assert post.ledger.total().unaccounted == 0


def test_it_needs_a_key_and_nothing_that_is_none_becomes_one_by_accident() -> None:
    with service() as post:
        with pytest.raises(TypeError, match="needs a key"):
            post.publish_tombstone(None)  # type: ignore[arg-type]
        with pytest.raises(TypeError):
            post.publish_tombstone(5)  # type: ignore[arg-type]
        with pytest.raises(TypeError, match="not NoneType"):
            post.publish_event(None, key="u1")  # type: ignore[arg-type]
        assert post.ledger.total().received == 0
        assert isinstance(post.publish_event(b"null", key="u1").result(5), DeadLettered)
        assert isinstance(post.publish_tombstone("").result(5), Delivered)  # Kafka takes an empty key, and so do events


def test_tasks_have_it_too() -> None:
    async def work(post: RecordingService) -> object:
        return await AsyncProducerService(post).publish_tombstone("u1")

    with service() as post:
        assert isinstance(asyncio.run(work(post)), Delivered)
        assert [record.key for record in post.tombstones] == [b"u1"]


@pytest.mark.parametrize("write_ahead", ["off", "fsync"])
def test_it_waits_in_the_spool_as_null_and_is_sent_as_null(write_ahead: str, tmp_path: Path) -> None:
    with service(spool_dir=tmp_path, write_ahead=write_ahead, clock=FastClock(), faults=FaultScript()) as post:
        post.faults.away()
        receipts = [post.publish_event({"user_id": "u1", "city": "x"}), post.publish_tombstone("u1")]
        assert [type(receipt.result(PATIENCE_S)) for receipt in receipts] == [Spooled, Spooled]
        post.faults.back()
        post.wait_until_drained(PATIENCE_S)
        assert [(record.key, record.value is None) for record in post.publisher.records] == [
            (b"u1", False),
            (b"u1", True),
        ]


class TestDeadLetters:
    def test_one_that_the_broker_refuses_is_kept_as_null_and_told_from_a_lost_value(self) -> None:
        with service() as post:
            post.fail_next(DeadLetterReason.REJECTED_BY_BROKER)
            assert isinstance(post.publish_tombstone("u1", headers={"own": "x"}).result(5), DeadLettered)
            (record,) = post.publisher.records
            assert (record.topic, record.key, record.value) == ("profile.dlq", b"u1", None)
            assert "dlq.content_type" not in dict(record.headers)
            (letter,) = post.dead_letters
            assert (letter.event, letter.is_tombstone, letter.rebuildable, letter.headers) == (
                None,
                True,
                True,
                (("own", b"x"),),
            )
            lost = rebuild(read_back(record.__class__("t", None, None, (("dlq.reason", b"x"),), "e", 0)))
            assert (lost.is_tombstone, lost.rebuildable) == (False, False)
            assert post.ledger.total().unaccounted == 0

    def test_a_key_that_no_dead_letter_can_hold_is_refused(self) -> None:
        with service() as post:
            post.fail_next(DeadLetterReason.MESSAGE_TOO_LARGE)
            outcome = post.publish_tombstone("k" * 1_000_000).result(5)
            assert isinstance(outcome, Refused)
            assert post.ledger.total().unaccounted == 0

    def test_a_replay_sends_it_again_as_null_if_the_contract_still_allows_it(self) -> None:
        with service() as post:
            post.fail_next(DeadLetterReason.REJECTED_BY_BROKER)
            post.publish_tombstone("u1", event_id="e-1").result(5)
            letters = [read_back(record) for record in post.publisher.records]
        with service() as post:
            assert Replay(post, Selection(), dry_run=True).run(lambda: letters, lambda: 0).delivered == 1
            assert Replay(post, Selection()).run(lambda: letters, lambda: 0).delivered == 1
            assert post.tombstones[0].headers == (("ce_id", b"e-1"), ("x-attempt", b"2"))
        with service(PLAIN) as post:
            result = Replay(post, Selection()).run(lambda: letters, lambda: 0)
            assert result.still_failing_by_rule == {"tombstone_not_allowed": 1}

    def test_a_forged_one_without_a_key_cannot_be_replayed(self) -> None:
        forged = ReadRecord("profile.dlq", 0, 0, None, None, (("dlq.tombstone", b"true"), ("ce_id", b"e-1")), 0)
        with service() as post:
            assert Replay(post, Selection()).run(lambda: [forged], lambda: 0).not_rebuildable == 1

    def test_one_that_kafka_does_not_take_in_time_can_become_one(self, tmp_path: Path) -> None:
        settings = {"delivery.on_exhausted": "dead_letter", "spool.dir": str(tmp_path)}
        with service(clock=FastClock(), settings=settings) as post:
            post.faults.away()
            receipt = post.publish_tombstone("u1")
            assert receipt.result(PATIENCE_S) == Spooled("delivery_exhausted")
            post.faults.back()
            post.wait_until_drained(PATIENCE_S)
            assert [letter.is_tombstone for letter in post.dead_letters] == [True]

    def test_one_that_the_broker_refuses_out_of_the_spool_is_kept_as_null(self, tmp_path: Path) -> None:
        with service(spool_dir=tmp_path, clock=FastClock()) as post:
            post.faults.away()
            assert isinstance(post.publish_tombstone("u1").result(PATIENCE_S), Spooled)
            post.fail_next(DeadLetterReason.REJECTED_BY_BROKER)
            post.faults.back()
            end = time.monotonic() + PATIENCE_S
            while not post.dead_letters and time.monotonic() < end:
                time.sleep(0.005)
            (letter,) = post.dead_letters
            assert (letter.is_tombstone, letter.key) == (True, b"u1")
            post.wait_until_drained(PATIENCE_S)
            assert post.ledger.total().unaccounted == 0


def test_those_who_read_topics_show_it_for_what_it_is() -> None:
    class NoSchemas:
        def by_id(self, schema_id: int) -> str:
            raise AssertionError(schema_id)

    with service() as post:
        post.publish_tombstone("u1", event_id="e-1")
        post.fail_next(DeadLetterReason.REJECTED_BY_BROKER)
        post.publish_tombstone("u2", event_id="e-2").result(5)
        there, letter = (read_back(record) for record in post.publisher.records)
    view = RecordView(NoSchemas())
    assert view.describe(there)["kind"] == "tombstone"
    told = view.describe(letter)
    assert (told["kind"], told["tombstone"], told["event"], told["damage"]) == ("dead_letter", True, None, "")
    assert (found_from(there).event_id, found_from(there).attempt) == ("e-1", 1)
