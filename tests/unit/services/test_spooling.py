"""What a service does with a spool, on the double: every way in, every way out, each outcome, each book."""

from __future__ import annotations

import errno
import os
import signal
import threading
import time
from collections import Counter
from typing import TYPE_CHECKING, Any

import pytest

from postroom.libs.clock import SYSTEM_CLOCK
from postroom.libs.config_loader import load_config
from postroom.libs.event import (
    DeadLettered,
    DeadLetterReason,
    Delivered,
    Failed,
    FailedReason,
    Refused,
    RefusedReason,
    Spooled,
)
from postroom.schemas.data_contracts import contract_from_short_form
from postroom.services.dispatcher import Dispatcher
from postroom.services.drain import Drain
from postroom.services.keeper import Keeper
from postroom.services.paths import State
from postroom.services.replay import Replay, Selection
from postroom.services.spooling import Spooling
from postroom.streaming.dead_letter_queue import rebuild
from postroom.streaming.delivery import decide
from postroom.streaming.kafka_reader import ReadRecord
from postroom.streaming.publisher import Report
from postroom.streaming.spool.file_system import OsFileSystem
from postroom.streaming.spool.record_format import Kind
from postroom.streaming.spool.slots import Slots
from postroom.streaming.spool.spool import Spool
from postroom.testing.fault_script import FaultScript
from postroom.testing.memory_publisher import MemoryPublisher
from postroom.testing.recording_service import RecordingService

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

    from postroom.libs.event import Record
    from postroom.services.item import Item
    from postroom.services.receipt import Receipt
    from postroom.streaming.publisher import OnDone
    from postroom.streaming.spool.group_commit import Ticket
    from postroom.streaming.spool.queue_reader import SpooledRecord

PATIENCE_S = 30.0
FIELDS = {"user_id": "string", "timestamp": "long"}
CLICKS = contract_from_short_form("clicks", FIELDS, key_field="user_id")
ORDERS = contract_from_short_form("orders", FIELDS, key_field="user_id")
BOTH_WAYS = pytest.mark.parametrize("write_ahead", ["off", "fsync"])


class FastClock:
    """Runs twenty times as fast as the wall's: backoffs and patience take milliseconds."""

    def monotonic(self) -> float:
        return time.monotonic() * 20

    def time_ms(self) -> int:
        return time.time_ns() // 1_000_000

    def sleep(self, seconds: float) -> None:
        time.sleep(seconds / 20)


def service_with(folder: Path, write_ahead: str = "off", **settings: Any) -> RecordingService:
    overrides = {key.replace("__", "."): value for key, value in settings.items() if "__" in key}
    named = {key: value for key, value in settings.items() if "__" not in key}
    config = load_config(
        environ={},
        overrides={
            "contracts.default": "clicks",
            "spool.dir": str(folder),
            "spool.write_ahead": write_ahead,
            **overrides,
        },
    )
    return RecordingService([CLICKS, ORDERS], config=config, clock=FastClock(), **named)


def event(number: int, user: str = "u1") -> dict[str, object]:
    return {"user_id": user, "timestamp": number}


def wait_until(condition: Callable[[], object]) -> None:
    end = time.monotonic() + PATIENCE_S
    while not condition():
        assert time.monotonic() < end, "it did not happen"
        time.sleep(0.002)


def outcomes(receipts: list[Receipt]) -> Counter[str]:
    return Counter(type(receipt.result(PATIENCE_S)).__name__ for receipt in receipts)


def numbers(service: RecordingService, topic: str = "clicks") -> list[object]:
    return [one.event["timestamp"] for one in service.published if one.topic == topic]


def is_drained(service: RecordingService) -> bool:
    return not service.ledger.total().spooled


def state(service: RecordingService, topic: str = "clicks") -> State:
    return next(path.state for path in service.parts.dispatcher.paths() if path.topic == topic)


class TestAway:
    def test_one_whose_caller_was_interrupted_takes_no_other_with_it_when_all_come_back(
        self, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        """Ctrl-C just behind the produce call: the record comes back, and its caller was told that it may be sent."""
        publish = MemoryPublisher.publish

        def interrupted(self: MemoryPublisher, record: Record, on_done: OnDone) -> None:
            publish(self, record, on_done)
            raise KeyboardInterrupt

        with service_with(tmp_path) as service:
            service.publish_event(event(0)).result(PATIENCE_S)
            service.faults.slow(10_000)
            receipts = [service.publish_event(event(number)) for number in range(1, 10)]
            with monkeypatch.context() as patched:
                patched.setattr(MemoryPublisher, "publish", interrupted)
                with pytest.raises(KeyboardInterrupt):
                    service.publish_event(event(10))
            receipts += [service.publish_event(event(number)) for number in range(11, 20)]
            service.faults.away()
            assert outcomes(receipts) == {"Spooled": 18}
            service.faults.back()
            service.faults.slow(0).back()
            wait_until(lambda: is_drained(service))
            assert set(numbers(service)) >= {number for number in range(20) if number != 10}
        balance = service.ledger.total()
        assert (balance.failed, balance.delivered, balance.unaccounted) == (1, 19, 0)

    @BOTH_WAYS
    def test_what_kafka_cannot_take_is_spooled_and_sent_in_order_without_a_mark_when_it_is_back(
        self, write_ahead: str, tmp_path: Path
    ) -> None:
        with service_with(tmp_path, write_ahead) as service:
            service.publish_event(event(0)).result(PATIENCE_S)
            service.faults.away()
            receipts = [service.publish_event(event(number)) for number in range(1, 200)]
            assert outcomes(receipts) == {"Spooled": 199}
            assert state(service) is State.SPOOLING
            assert numbers(service) == [0]
            service.faults.back()
            wait_until(lambda: is_drained(service))
            assert numbers(service) == list(range(200))
            wait_until(lambda: state(service) is State.DIRECT)
            assert isinstance(service.publish_event(event(200)).result(PATIENCE_S), Delivered)
        balance = service.ledger.total()
        assert (balance.received, balance.accepted, balance.delivered, balance.unaccounted) == (201, 201, 201, 0)

    def test_written_ahead_an_event_is_safe_when_publish_event_returns(self, tmp_path: Path) -> None:
        with service_with(tmp_path, "fsync") as service:
            service.faults.away()
            receipt = service.publish_event(event(1))
            assert (receipt.safe, receipt.outcome) == (True, None)
            balance = service.ledger.total()
            assert (balance.accepted, balance.in_flight, balance.pending) == (1, 1, 0)
            assert isinstance(receipt.result(PATIENCE_S), Spooled)
            balance = service.ledger.total()
            assert (balance.accepted, balance.in_flight, balance.spooled) == (1, 0, 1)

    def test_without_write_ahead_an_event_is_safe_with_its_outcome_and_not_before(self, tmp_path: Path) -> None:
        with service_with(tmp_path) as service:
            service.faults.away()
            receipt = service.publish_event(event(1))
            assert not receipt.safe
            receipt.result(PATIENCE_S)
            assert receipt.safe

    @BOTH_WAYS
    def test_the_dead_letter_of_a_broken_event_waits_in_a_queue_of_its_own(
        self, write_ahead: str, tmp_path: Path
    ) -> None:
        with service_with(tmp_path, write_ahead) as service:
            service.faults.topic_gone("clicks.dlq")
            broken = service.publish_event({"user_id": 7})
            assert broken.result(PATIENCE_S) == Spooled("validation_failed")
            assert isinstance(service.publish_event(event(1)).result(PATIENCE_S), Delivered)
            assert service.dead_letters == []
            service.faults.back("clicks.dlq")
            wait_until(lambda: is_drained(service))
            assert [letter.event for letter in service.dead_letters] == [{"user_id": 7}]
        balance = service.ledger.total()
        assert (balance.delivered, balance.dead_lettered, balance.unaccounted) == (1, 1, 0)

    @BOTH_WAYS
    def test_a_topic_that_is_missing_holds_up_no_other_topic(self, write_ahead: str, tmp_path: Path) -> None:
        with service_with(tmp_path, write_ahead) as service:
            service.faults.topic_gone("orders")
            held = [service.publish_event(event(number), event_type="orders") for number in range(50)]
            assert outcomes(held) == {"Spooled": 50}
            going = [service.publish_event(event(number)) for number in range(50)]
            assert outcomes(going)["Delivered"] + outcomes(going)["Spooled"] == 50
            wait_until(lambda: len(numbers(service)) == 50)
            assert service.ledger.by_topic()["orders"].spooled == 50
            service.faults.back("orders")
            wait_until(lambda: is_drained(service))
            assert numbers(service, "orders") == list(range(50))

    def test_while_it_drains_new_keys_go_direct_and_keys_that_wait_stay_behind_their_own(self, tmp_path: Path) -> None:
        with service_with(tmp_path) as service:
            service.faults.away()
            outcomes([service.publish_event(event(number)) for number in range(100)])
            service.faults.back()
            late = [service.publish_event(event(number, f"u{number % 2 + 1}")) for number in range(100, 400)]
            outcomes(late)
            wait_until(lambda: is_drained(service))
            by_key: dict[object, list[int]] = {}
            for one in service.published:
                by_key.setdefault(one.event["user_id"], []).append(int(str(one.event["timestamp"])))
            assert all(seen == sorted(seen) for seen in by_key.values())
            assert sum(map(len, by_key.values())) == 400

    def test_a_full_queue_is_waited_for_and_then_handed_over_to_the_spool(self, tmp_path: Path) -> None:
        with service_with(tmp_path) as service:
            service.faults.slow(10_000)
            first = service.publish_event(event(0))
            service.faults.queue_full()
            receipt = service.publish_event(event(1), timeout=1.0)
            assert isinstance(receipt.result(PATIENCE_S), Spooled)
            assert isinstance(first.result(PATIENCE_S), Spooled)
            service.faults.slow(0).queue_has_room()
            wait_until(lambda: is_drained(service))
            assert numbers(service) == [0, 1]

    def test_who_gives_up_waiting_for_room_leaves_the_event_to_the_spool(self, tmp_path: Path) -> None:
        with service_with(tmp_path) as service:
            service.faults.slow(10_000)
            first = service.publish_event(event(0))
            service.faults.queue_full()
            item = service.admit(event(1), None, None, None, None, None)
            answers = iter([False, False, True])
            service.hand_over(item, 1e9, lambda: next(answers))
            assert isinstance(item.receipt.result(PATIENCE_S), Spooled)
            assert isinstance(first.result(PATIENCE_S), Spooled)

    def test_who_gives_up_waiting_for_room_is_refused_where_there_is_no_spool(self, tmp_path: Path) -> None:
        with service_with(tmp_path, spool__dir=None) as service:
            service.faults.queue_full()
            item = service.admit(event(1), None, None, None, None, None)
            service.hand_over(item, 1e9, lambda: True)
            outcome = item.receipt.outcome
            assert isinstance(outcome, Refused)
            assert outcome.reason is RefusedReason.QUEUE_FULL

    def test_who_does_not_wait_at_all_is_refused_when_the_queue_is_full(self, tmp_path: Path) -> None:
        with service_with(tmp_path) as service:
            service.publish_event(event(0)).result(PATIENCE_S)
            service.faults.queue_full()
            outcome = service.publish_event(event(1), timeout=0).outcome
            assert isinstance(outcome, Refused)
            assert state(service) is State.DIRECT
            assert (outcome.reason, outcome.retry_after_s) == (RefusedReason.QUEUE_FULL, 1.0)


class TestRepeats:
    @BOTH_WAYS
    def test_what_may_be_in_kafka_is_sent_again_under_its_id_with_a_mark_and_stays_in_order(
        self, write_ahead: str, tmp_path: Path
    ) -> None:
        with service_with(tmp_path, write_ahead, faults=FaultScript(seed=3)) as service:
            service.faults.lose_acks(0.5, silently=True)
            receipts = [service.publish_event(event(number)) for number in range(60)]
            told = outcomes(receipts)
            assert told["Spooled"] > 0
            service.faults.lose_acks(0)
            wait_until(lambda: is_drained(service))
            ids = Counter(one.event_id for one in service.published)
            assert len(ids) == 60
            assert max(ids.values()) > 1, "no acknowledgement was lost: this proves nothing"
            first: dict[str, object] = {}
            for one in service.published:
                if one.event_id in first:
                    assert dict(one.headers)["x-attempt"] > b"1"
                first.setdefault(one.event_id, one.event["timestamp"])
            assert list(first.values()) == list(range(60))
        assert service.ledger.total().unaccounted == 0

    def test_what_was_never_sent_carries_no_mark(self, tmp_path: Path) -> None:
        with service_with(tmp_path) as service:
            service.faults.away()
            outcomes([service.publish_event(event(number)) for number in range(20)])
            service.faults.back()
            wait_until(lambda: is_drained(service))
            assert [dict(one.headers).get("x-attempt") for one in service.published] == [None] * 20


class TestInterrupted:
    @pytest.mark.parametrize("moment", ["before", "behind"])
    def test_ctrl_c_in_the_middle_of_the_handing_over_loses_nothing(
        self, moment: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        """A person in front of a closing that takes its time: what was not handed over yet is, before it goes up."""
        append_many, calls = Spool.append_many, []

        def interrupted(self: Spool, records: Any, **more: Any) -> list[Ticket]:
            calls.append(1)
            if len(calls) == 2 and moment == "before":
                raise KeyboardInterrupt
            tickets = append_many(self, records, **more)
            if len(calls) == 2:
                raise KeyboardInterrupt
            return tickets

        service = service_with(tmp_path, delivery__hand_over_after_s=600)
        service.start()
        service.faults.slow(10_000)
        receipts = [service.publish_event(event(number)) for number in range(3000)]
        monkeypatch.setattr(Spool, "append_many", interrupted)
        with pytest.raises(KeyboardInterrupt):
            service.close(0.0)
        assert len(calls) > 2
        assert outcomes(receipts) == {"Spooled": 3000}
        balance = service.ledger.total()
        assert (balance.pending, balance.failed, balance.unaccounted) == (0, 0, 0)
        with service_with(tmp_path) as later:
            wait_until(lambda: later.ledger.total().taken_over >= 3000)
            wait_until(lambda: is_drained(later))
            sent = [(one.event["timestamp"], dict(one.headers).get("x-attempt")) for one in later.published]
        assert list(dict.fromkeys(number for number, _ in sent)) == list(range(3000))
        assert balance.spooled == len(sent)
        unmarked = Counter(number for number, mark in sent if mark is None)
        assert max(unmarked.values(), default=0) <= 1, "a repeat that is not marked"


class TestReplay:
    def test_where_there_is_no_room_for_markers_it_ends_in_good_order_and_counts_them(self, tmp_path: Path) -> None:
        """A hiccup of Kafka, whose records are being handed over, ended it with QueueFullError and no result."""
        with service_with(tmp_path) as service:
            for number in range(3):
                service.fail_next(DeadLetterReason.REJECTED_BY_BROKER)
                service.publish_event(event(number)).result(PATIENCE_S)
            letters = [
                ReadRecord(one.topic, 0, at, one.key, one.value, one.headers, 0)
                for at, one in enumerate(service.publisher.records)
            ]
            replay, events = Replay(service, Selection()), []
            service.faults.away()
            hand_over = service.hand_over

            def and_then_none(item: Item, timeout: float, **more: Any) -> None:
                hand_over(item, timeout, **more)
                events.append(item)
                if len(events) == len(letters):
                    item.receipt.result(PATIENCE_S)
                    service.faults.queue_full()

            service.hand_over = and_then_none  # type: ignore[assignment,method-assign]
            result = replay.run(lambda: letters, lambda: 0)
            assert (result.selected, result.delivered, replay.markers_lost) == (3, 3, 3)
            assert replay.wait_for_spool(0.0, SYSTEM_CLOCK) == 3
            service.faults.queue_has_room().back()
            wait_until(lambda: is_drained(service))
            assert numbers(service) == [0, 1, 2]
            assert replay.wait_for_spool(PATIENCE_S, SYSTEM_CLOCK) == 0


class TestRejected:
    @BOTH_WAYS
    def test_a_record_that_the_broker_refuses_while_it_drains_becomes_a_dead_letter_and_the_others_go_on(
        self, write_ahead: str, tmp_path: Path
    ) -> None:
        with service_with(tmp_path, write_ahead) as service:
            service.faults.away()
            outcomes([service.publish_event(event(number), headers={"tenant": "a"}) for number in range(5)])
            service.publisher.script.append(Report(decide(10), code=10, detail="MSG_SIZE_TOO_LARGE"))
            service.faults.back()
            wait_until(lambda: is_drained(service))
            assert numbers(service) == [1, 2, 3, 4]
            (letter,) = service.dead_letters
            assert (letter.event, letter.reason, letter.key) == (event(0), "message_too_large", b"u1")
            assert letter.headers == (("tenant", b"a"),)
        balance = service.ledger.total()
        assert (balance.delivered, balance.dead_lettered, balance.unaccounted) == (4, 1, 0)

    def test_a_record_that_fails_for_no_known_reason_is_given_up_after_five_tries_alone(self, tmp_path: Path) -> None:
        with service_with(tmp_path) as service:
            service.faults.away()
            outcomes([service.publish_event(event(number)) for number in range(3)])
            service.publisher.script.extend([Report(decide(-1), code=-1, detail="UNKNOWN")] * 5)
            service.faults.back()
            wait_until(lambda: is_drained(service))
            assert numbers(service) == [1, 2]
            assert [letter.reason for letter in service.dead_letters] == ["rejected_by_broker"]

    @BOTH_WAYS
    def test_a_record_that_is_refused_at_once_becomes_a_dead_letter_with_a_spool_too(
        self, write_ahead: str, tmp_path: Path
    ) -> None:
        with service_with(tmp_path, write_ahead) as service:
            service.publisher.script.append(Report(decide(10), code=10, detail="MSG_SIZE_TOO_LARGE"))
            outcome = service.publish_event(event(1)).result(PATIENCE_S)
            assert isinstance(outcome, DeadLettered)
        balance = service.ledger.total()
        assert (balance.dead_lettered, balance.spooled, balance.in_flight, balance.unaccounted) == (1, 0, 0, 0)
        assert not list((tmp_path / "0001" / "records").glob("*.seg")), "its place in the spool was not let go"


class TestExhausted:
    def test_one_that_the_disk_took_while_its_path_was_closing_becomes_one_too(
        self, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        stored = Dispatcher._stored

        def closed_meanwhile(self: Dispatcher, item: Item, ticket: Ticket) -> None:
            if ticket.is_claimed:
                self.close_paths(self.paths(Kind.RECORD))
            stored(self, item, ticket)

        with service_with(tmp_path, "fsync", delivery__on_exhausted="dead_letter") as service:
            service.publish_event(event(0)).result(PATIENCE_S)
            monkeypatch.setattr(Dispatcher, "_stored", closed_meanwhile)
            service.faults.away()
            receipt = service.publish_event(event(1))
            assert receipt.result(PATIENCE_S) == Spooled("delivery_exhausted")
            service.faults.back()
            wait_until(lambda: is_drained(service))
            assert [letter.reason for letter in service.dead_letters] == ["delivery_exhausted"]
            assert numbers(service) == [0]
        balance = service.ledger.total()
        assert (balance.delivered, balance.dead_lettered, balance.unaccounted) == (1, 1, 0)

    @BOTH_WAYS
    def test_one_whose_service_closes_in_that_moment_lies_in_the_spool(
        self, write_ahead: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        stop, stored, waiting = Spooling.stop, Dispatcher._stored, threading.Event()

        def late(self: Dispatcher, item: Item, ticket: Ticket) -> None:
            waiting.wait(PATIENCE_S)
            self.close_paths(self.paths(Kind.RECORD))
            stored(self, item, ticket)

        def stop_when_it_waits(self: Spooling) -> None:
            waiting.set()
            stop(self)

        service = service_with(tmp_path, write_ahead, delivery__on_exhausted="dead_letter").start()
        service.publish_event(event(0)).result(PATIENCE_S)
        monkeypatch.setattr(Dispatcher, "_stored", late)
        monkeypatch.setattr(Spooling, "stop", stop_when_it_waits)
        service.faults.away()
        item = service.admit(event(1), None, None, None, None, None)
        service.hand_over(item, 0.0)
        service.close(0.0)
        assert isinstance(item.receipt.result(0), Spooled)
        balance = service.ledger.total()
        assert (balance.received, balance.pending, balance.in_flight, balance.unaccounted) == (2, 0, 0, 0)
        assert balance.spooled == 1

    @BOTH_WAYS
    def test_asked_for_dead_letters_what_kafka_does_not_take_waits_as_one_and_can_be_replayed(
        self, write_ahead: str, tmp_path: Path
    ) -> None:
        with service_with(tmp_path, write_ahead, delivery__on_exhausted="dead_letter") as service:
            service.publish_event(event(0)).result(PATIENCE_S)
            service.faults.away()
            receipts = [service.publish_event(event(number)) for number in range(1, 6)]
            assert {receipt.result(PATIENCE_S) for receipt in receipts} == {Spooled("delivery_exhausted")}
            late = service.publish_event(event(6))
            assert late.result(PATIENCE_S) == Spooled("delivery_exhausted")
            service.faults.back()
            wait_until(lambda: is_drained(service))
            assert numbers(service) == [0]
            letters = [rebuild(record) for record in service.publisher.records if record.topic == "clicks.dlq"]
            assert [letter.event for letter in letters] == [event(number) for number in range(1, 7)]
        balance = service.ledger.total()
        assert (balance.delivered, balance.dead_lettered, balance.unaccounted) == (1, 6, 0)


class TestFull:
    @BOTH_WAYS
    def test_on_a_full_disk_events_are_refused_with_a_time_and_accepted_again_without_a_restart(
        self, write_ahead: str, tmp_path: Path
    ) -> None:
        with service_with(tmp_path, write_ahead) as service:
            service.faults.away()
            assert isinstance(service.publish_event(event(0)).result(PATIENCE_S), Spooled)
            service.faults.disk_full()
            outcome = service.publish_event(event(1)).result(PATIENCE_S)
            assert isinstance(outcome, Refused)
            assert outcome.reason is RefusedReason.SPOOL_FULL
            assert outcome.retry_after_s is not None
            service.faults.disk_freed()
            wait_until(lambda: isinstance(service.publish_event(event(2)).result(PATIENCE_S), Spooled))
            service.faults.back()
            wait_until(lambda: is_drained(service))
            assert 1 not in numbers(service)
        assert service.ledger.total().unaccounted == 0

    def test_on_a_full_disk_what_is_in_the_spool_still_drains(self, tmp_path: Path) -> None:
        with service_with(tmp_path) as service:
            service.faults.away()
            outcomes([service.publish_event(event(number)) for number in range(50)])
            service.faults.disk_full()
            service.faults.back()
            wait_until(lambda: is_drained(service))
            assert numbers(service) == list(range(50))

    def test_without_write_ahead_a_broken_disk_does_not_matter_while_kafka_is_there(self, tmp_path: Path) -> None:
        with service_with(tmp_path) as service:
            service.faults.disk_error("write", "sync")
            assert isinstance(service.publish_event(event(0)).result(PATIENCE_S), Delivered)

    def test_written_ahead_a_broken_disk_refuses_and_nothing_of_the_event_reaches_kafka(self, tmp_path: Path) -> None:
        with service_with(tmp_path, "fsync") as service:
            service.faults.disk_error("write")
            outcome = service.publish_event(event(0)).result(PATIENCE_S)
            assert isinstance(outcome, Refused)
            assert outcome.reason is RefusedReason.SPOOL_UNAVAILABLE
            assert service.published == []

    def test_a_sync_that_failed_says_that_the_event_may_come_back(self, tmp_path: Path) -> None:
        with service_with(tmp_path, "fsync") as service:
            service.publish_event(event(0)).result(PATIENCE_S)
            service.faults.disk_error("sync", times=1)
            outcome = service.publish_event(event(1)).result(PATIENCE_S)
            assert isinstance(outcome, Failed)
            assert (outcome.reason, outcome.may_be_in_kafka) == (FailedReason.SPOOL_UNAVAILABLE, True)

    def test_handed_over_to_a_full_disk_events_fail_and_say_both_reasons(self, tmp_path: Path) -> None:
        with service_with(tmp_path) as service:
            service.faults.disk_full()
            service.faults.away()
            outcome = service.publish_event(event(0)).result(PATIENCE_S)
            assert isinstance(outcome, Failed)
            assert outcome.reason is FailedReason.KAFKA_UNAVAILABLE
            assert "the spool did not keep it" in outcome.detail
        assert service.ledger.total().unaccounted == 0


class TestRestart:
    @BOTH_WAYS
    def test_closing_while_kafka_is_away_keeps_everything_and_the_next_service_sends_it_first(
        self, write_ahead: str, tmp_path: Path
    ) -> None:
        with service_with(tmp_path, write_ahead) as service:
            service.faults.away()
            receipts = [service.publish_event(event(number)) for number in range(30)]
        assert outcomes(receipts) == {"Spooled": 30}
        with service_with(tmp_path, write_ahead) as following:
            receipts = [following.publish_event(event(number)) for number in range(30, 40)]
            outcomes(receipts)
            wait_until(lambda: is_drained(following))
            assert numbers(following) == list(range(40))
        balance = following.ledger.total()
        assert (balance.received, balance.delivered, balance.unaccounted) == (40, 40, 0)

    def test_the_books_of_a_service_begin_with_what_it_finds(self, tmp_path: Path) -> None:
        with service_with(tmp_path) as service:
            service.faults.away()
            outcomes([service.publish_event(event(number), event_type="orders") for number in range(7)])
            service.publish_event({"user_id": 1}, event_type="orders").result(PATIENCE_S)
        faults = FaultScript().away()
        with service_with(tmp_path, faults=faults) as following:
            wait_until(lambda: following.ledger.by_topic()["orders"].spooled == 8)
            balance = following.ledger.by_topic()["orders"]
            assert (balance.received, balance.accepted, balance.unaccounted) == (8, 8, 0)

    def test_a_service_without_a_contract_of_the_topic_drains_it_all_the_same(self, tmp_path: Path) -> None:
        with service_with(tmp_path) as service:
            service.faults.away()
            outcomes([service.publish_event(event(number), event_type="orders") for number in range(3)])
        config = load_config(environ={}, overrides={"contracts.default": "clicks", "spool.dir": str(tmp_path)})
        with RecordingService([CLICKS], config=config, clock=FastClock()) as other:
            wait_until(lambda: is_drained(other) and len(other.publisher.records) == 3)
            assert {record.topic for record in other.publisher.records} == {"orders"}
        assert other.ledger.total().unaccounted == 0


@pytest.mark.parametrize("owner", [Spooling, Drain, Keeper], ids=lambda one: one.__name__)
def test_a_start_that_fails_behind_its_spool_leaves_no_thread_and_no_slot(
    owner: type, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    before = set(threading.enumerate())

    def no_more_threads(*_: object) -> None:
        raise RuntimeError("can't start new thread")

    monkeypatch.setattr(owner, "_take_over" if owner is Spooling else "start", no_more_threads)
    service = service_with(tmp_path)
    with pytest.raises(RuntimeError):
        service.start()
    assert set(threading.enumerate()) <= before
    assert Slots(OsFileSystem(), str(tmp_path), owner="").lock("0001") is not None


@pytest.mark.parametrize("owner", [Drain, Keeper, Spool], ids=lambda one: one.__name__)
def test_a_closing_that_was_cut_short_at_its_spool_leaves_no_thread_the_second_time(
    owner: type, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    before = set(threading.enumerate())
    service = service_with(tmp_path).start()
    service.publish_event(event(0)).result(PATIENCE_S)

    def interrupted(*_: object) -> None:
        monkeypatch.undo()
        raise KeyboardInterrupt

    if owner is Spool:
        monkeypatch.setattr(service.parts.spooling.spool._keeper, "join", interrupted)  # type: ignore[union-attr]
    else:
        monkeypatch.setattr(owner, "stop", interrupted)
    with pytest.raises(KeyboardInterrupt):
        service.close()
    service.close()
    left = {thread.name for thread in set(threading.enumerate()) - before}
    assert not {name for name in left if name.startswith(("spool-", "postroom-drain", "postroom-keeper"))}
    assert Slots(OsFileSystem(), str(tmp_path), owner="").lock("0001") is not None


def test_where_the_disk_does_not_hold_the_claims_events_are_left_to_the_drain_and_keep_their_order(
    tmp_path: Path,
) -> None:
    """The note that a record is handed out could not be written: nothing may overtake it on the direct way."""
    with service_with(tmp_path, "fsync") as service:
        spooling = service.parts.spooling
        assert spooling is not None
        keeper = spooling.spool._held[0].queues[Kind.RECORD]._keeper
        noted = keeper.note_handed_out
        failures: list[int] = []

        def refuse_once(*args: Any, **kwargs: Any) -> None:
            if not failures:
                failures.append(1)
                raise OSError(errno.EIO, "EIO")
            noted(*args, **kwargs)

        keeper.note_handed_out = refuse_once  # type: ignore[method-assign]  # one write of the cursor fails
        receipts = [service.publish_event(event(number)) for number in range(50)]
        outcomes(receipts)
        assert failures
        service.wait_until_drained()
        assert numbers(service) == list(range(50))
    assert service.ledger.total().unaccounted == 0


def die_at_the_oldest(folder: Path) -> None:
    """Be a process that has the oldest record alone in its hands, and dies."""
    pid = os.fork()
    if pid == 0:
        spool = Spool(folder)
        spool.start()
        found: list[SpooledRecord] = []
        while not found:
            found = spool.read(Kind.RECORD, max_records=1)
        spool.on_trial(found[0])
        os.kill(os.getpid(), signal.SIGKILL)
    assert os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1]) == -signal.SIGKILL


@pytest.mark.parametrize(("deaths", "buried"), [(4, False), (5, True)])
def test_a_record_that_five_processes_died_of_becomes_a_dead_letter_and_the_others_go_on(
    deaths: int, buried: bool, tmp_path: Path
) -> None:
    with service_with(tmp_path) as service:
        service.faults.away()
        outcomes([service.publish_event(event(number)) for number in range(4)])
    for _ in range(deaths):
        die_at_the_oldest(tmp_path)
    with service_with(tmp_path) as following:
        following.wait_until_drained()
        assert numbers(following) == ([1, 2, 3] if buried else [0, 1, 2, 3])
        assert [letter.reason for letter in following.dead_letters] == ["kills_the_sender"] * buried
    assert following.ledger.total().unaccounted == 0
