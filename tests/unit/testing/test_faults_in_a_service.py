"""What users see of a service under a fault script: spooled and drained, repeats marked, a full disk and after."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest

from postroom.libs.config_loader import load_config
from postroom.libs.event import (
    DeadLettered,
    Delivered,
    Failed,
    FailedReason,
    Outcome,
    Refused,
    RefusedReason,
    Spooled,
)
from postroom.testing.fault_script import FaultScript
from postroom.testing.manual_clock import ManualClock
from postroom.testing.recording_service import RecordingService, WriteAhead

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator
    from pathlib import Path

    from postroom.services.receipt import Receipt

PATIENCE_S = 20.0
BOTH_WAYS = pytest.mark.parametrize("write_ahead", ["off", "fsync"])


def event(number: int) -> dict[str, object]:
    return {"user_id": f"u{number % 3}", "timestamp": number}


class Desk:
    """A service with a spool, on a clock that stands still."""

    def __init__(self, folder: Path, write_ahead: WriteAhead = "off", *, seed: int = 0) -> None:
        self.clock = ManualClock()
        self.faults = FaultScript(seed=seed)
        self.post = RecordingService(
            clock=self.clock, faults=self.faults, spool_dir=folder, write_ahead=write_ahead
        ).start()
        self.receipts: list[Receipt] = []

    def publish(self, first: int, count: int = 1) -> list[Receipt]:
        receipts = [
            self.post.publish_event(event(number), event_id=f"id-{number}") for number in range(first, first + count)
        ]
        self.receipts += receipts
        return receipts

    def outcome(self, number: int) -> Outcome:
        return self.publish(number)[0].result(PATIENCE_S)

    def kinds(self) -> set[type[Outcome]]:
        return {type(receipt.result(PATIENCE_S)) for receipt in self.receipts}

    def published(self) -> list[tuple[int, int]]:
        """Number and attempt of what stands in the topic, in order."""
        return [(int(one.event_id[3:]), int(dict(one.headers).get("x-attempt", b"1"))) for one in self.post.published]

    def first_ones(self) -> list[int]:
        return list(dict.fromkeys(number for number, _ in self.published()))


@pytest.fixture
def desk(tmp_path: Path) -> Iterator[Desk]:
    made = Desk(tmp_path)
    yield made
    made.faults.all_well()
    made.post.close()
    assert made.post.ledger.total().unaccounted == 0
    assert all(receipt.done() for receipt in made.receipts)


class TestAway:
    @BOTH_WAYS
    def test_events_of_ten_minutes_are_spooled_and_sent_in_order_once_it_is_back(
        self, write_ahead: WriteAhead, tmp_path: Path
    ) -> None:
        desk = Desk(tmp_path, write_ahead)
        desk.publish(0, 5)
        desk.faults.away()
        desk.publish(5, 5)
        desk.clock.advance(3)
        assert {type(receipt.result(PATIENCE_S)) for receipt in desk.receipts[5:]} == {Spooled}
        desk.clock.advance(600)
        desk.publish(10, 5)
        assert {type(receipt.result(PATIENCE_S)) for receipt in desk.receipts[10:]} == {Spooled}
        assert desk.first_ones() == list(range(5))
        desk.faults.back()
        desk.post.wait_until_drained()
        assert desk.published() == [(number, 1) for number in range(15)]
        assert desk.outcome(15) == Delivered("user_events", 0, 15)
        balance = desk.post.ledger.total()
        assert (balance.delivered, balance.spooled, balance.unaccounted) == (16, 0, 0)
        desk.post.close()

    def test_without_a_spool_they_fail_when_patience_ends(self) -> None:
        clock = ManualClock()
        with RecordingService(clock=clock) as post:
            post.faults.away()
            receipt = post.publish_event(event(1))
            clock.advance(29)
            assert not receipt.done()
            clock.advance(2)
            outcome = receipt.result(PATIENCE_S)
        assert isinstance(outcome, Failed)
        assert (outcome.reason, outcome.may_be_in_kafka) == (FailedReason.KAFKA_UNAVAILABLE, False)

    def test_with_a_spool_a_frozen_broker_is_noticed_by_the_age_of_a_record(self, desk: Desk) -> None:
        desk.faults.slow(float("inf"))
        desk.publish(1)
        desk.clock.advance(14)
        assert not desk.receipts[0].done()
        desk.clock.advance(2)
        assert desk.kinds() == {Spooled}
        desk.faults.slow(0)
        desk.post.wait_until_drained()
        assert desk.published() == [(1, 2)]

    def test_a_dead_letter_waits_in_the_spool_too(self, desk: Desk) -> None:
        desk.faults.away()
        receipt = desk.post.publish_event({"user_id": "u1"})
        desk.clock.advance(3)
        outcome = receipt.result(PATIENCE_S)
        assert isinstance(outcome, Spooled)
        assert outcome.dead_letter == "validation_failed"
        desk.faults.back()
        desk.post.wait_until_drained()
        assert [letter.event for letter in desk.post.dead_letters] == [{"user_id": "u1"}]


class TestLostAcks:
    @BOTH_WAYS
    @pytest.mark.parametrize("silently", [True, False])
    def test_every_event_arrives_once_or_more_and_every_repeat_is_marked(
        self, silently: bool, write_ahead: WriteAhead, tmp_path: Path
    ) -> None:
        desk = Desk(tmp_path, write_ahead, seed=7)
        desk.faults.lose_acks(0.5, silently=silently)
        desk.publish(0, 40)
        desk.clock.advance(20)
        assert desk.kinds() <= {Delivered, Spooled}
        assert Spooled in desk.kinds()
        desk.faults.lose_acks(0)
        desk.post.wait_until_drained()
        assert desk.first_ones() == list(range(40))
        seen: set[int] = set()
        for number, attempt in desk.published():
            assert attempt > 1 or number not in seen
            seen.add(number)
        assert len(desk.published()) > 40
        desk.post.close()


class TestTopics:
    @pytest.mark.parametrize("trouble", [FaultScript.topic_gone, FaultScript.not_allowed])
    def test_the_events_of_a_topic_wait_until_somebody_has_mended_it(
        self, trouble: Callable[[FaultScript, str], object], desk: Desk
    ) -> None:
        trouble(desk.faults, "user_events")
        assert isinstance(desk.outcome(1), Spooled)
        assert isinstance(desk.post.publish_event({}).result(PATIENCE_S), DeadLettered), "another topic"
        desk.faults.back("user_events")
        desk.post.wait_until_drained()
        assert desk.first_ones() == [1]

    def test_the_name_of_a_contract_is_no_topic(self, desk: Desk) -> None:
        with pytest.raises(ValueError, match=r"'user_event' is none of the topics user_events, user_events\.dlq"):
            desk.faults.topic_gone("user_event")


class TestQueue:
    def test_without_room_an_event_is_refused_and_accepted_again_when_there_is_some(self) -> None:
        with RecordingService(clock=ManualClock()) as post:
            post.faults.queue_full()
            outcome = post.publish_event(event(1)).result(PATIENCE_S)
            assert isinstance(outcome, Refused)
            assert outcome.reason is RefusedReason.QUEUE_FULL
            post.faults.queue_has_room()
            assert isinstance(post.publish_event(event(2)).result(PATIENCE_S), Delivered)

    def test_a_fatal_error_costs_no_event(self, desk: Desk) -> None:
        desk.faults.slow(1)
        desk.publish(0, 3)
        desk.faults.fatal_error()
        desk.publish(3, 1)
        assert desk.kinds() == {Spooled}
        desk.faults.slow(0)
        desk.post.wait_until_drained()
        assert desk.published() == [(number, 2) for number in range(4)]


class TestDisk:
    def test_on_a_full_disk_events_are_refused_with_a_time_and_accepted_again_after(self, desk: Desk) -> None:
        desk.faults.away()
        desk.publish(1)
        desk.clock.advance(3)
        assert desk.kinds() == {Spooled}
        desk.faults.disk_full()
        outcome = desk.outcome(2)
        assert isinstance(outcome, Refused)
        assert outcome.reason is RefusedReason.SPOOL_FULL
        assert outcome.retry_after_s
        desk.faults.disk_freed()
        desk.clock.advance(outcome.retry_after_s)
        desk.faults.back()
        desk.post.wait_until_drained()
        assert isinstance(desk.outcome(3), Delivered)
        assert desk.first_ones() == [1, 3]

    def test_written_ahead_a_full_disk_refuses_though_kafka_is_there(self, tmp_path: Path) -> None:
        desk = Desk(tmp_path, "fsync")
        desk.faults.disk_full()
        outcome = desk.outcome(1)
        assert isinstance(outcome, Refused)
        assert outcome.reason is RefusedReason.SPOOL_FULL
        assert desk.published() == []
        desk.post.close()

    @pytest.mark.parametrize(
        "fault", [FaultScript.read_only, lambda faults: faults.disk_error("write")], ids=["read-only", "write"]
    )
    def test_a_broken_disk_refuses_or_fails_each_event_and_is_used_again_when_it_is_mended(
        self, fault: Callable[[FaultScript], object], tmp_path: Path
    ) -> None:
        desk = Desk(tmp_path, "fsync")
        fault(desk.faults)
        for number in range(5):
            assert isinstance(desk.outcome(number), Refused | Failed)
        desk.faults.disk_mended()
        desk.clock.advance(10)
        receipt = desk.publish(9)[0]
        assert receipt.safe
        desk.post.wait_until_drained()
        assert desk.first_ones() == [9]
        desk.post.close()

    def test_short_writes_cost_nothing(self, tmp_path: Path) -> None:
        desk = Desk(tmp_path, "fsync")
        desk.faults.short_writes().away()
        desk.publish(0, 3)
        desk.clock.advance(3)
        assert desk.kinds() == {Spooled}
        desk.faults.back()
        desk.post.wait_until_drained()
        assert desk.first_ones() == [0, 1, 2]
        desk.post.close()

    def test_a_disk_that_is_not_there_cannot_be_broken(self) -> None:
        with pytest.raises(ValueError, match="give RecordingService a spool_dir"):
            RecordingService().faults.disk_full()
        with pytest.raises(ValueError, match="give RecordingService a spool_dir"):
            RecordingService(faults=FaultScript().read_only())


class TestSettings:
    def test_a_spool_may_stand_in_the_settings(self, tmp_path: Path) -> None:
        config = load_config(overrides={"spool.dir": str(tmp_path)}, environ={})
        with RecordingService(config=config) as post:
            post.faults.topic_gone("user_events")
            assert isinstance(post.publish_event(event(1)).result(PATIENCE_S), Spooled)
            post.faults.back("user_events").disk_full()

    def test_the_arguments_come_before_the_settings(self, tmp_path: Path) -> None:
        config = load_config(overrides={"spool.dir": "/nowhere/at/all"}, environ={})
        with RecordingService(config=config, spool_dir=tmp_path, write_ahead="fsync") as post:
            assert post.publish_event(event(1)).safe
            assert post.parts.config.spool.dir == tmp_path

    @pytest.mark.parametrize("write_ahead", ["fsync", "sometimes"])
    def test_writing_ahead_needs_a_disk_and_one_of_the_words_for_it(self, write_ahead: WriteAhead) -> None:
        with pytest.raises(ValueError, match="write_ahead"):
            RecordingService(write_ahead=write_ahead)


class TestWaiting:
    def test_it_says_what_it_waited_for_in_vain(self, desk: Desk) -> None:
        desk.faults.topic_gone("user_events")
        desk.outcome(1)
        with pytest.raises(TimeoutError, match=r"after 0\.05 s 0 events are open, 0 on their way, and 1 wait"):
            desk.post.wait_until_drained(0.05)

    def test_without_a_spool_it_waits_for_open_events(self) -> None:
        clock = ManualClock()
        with RecordingService(clock=clock) as post:
            post.faults.slow(5)
            receipt = post.publish_event(event(1))
            post.wait_until_drained()
            assert receipt.done()

    def test_before_the_start_and_after_the_end_there_is_nothing_to_wait_for(self) -> None:
        post = RecordingService()
        post.wait_until_drained(0)
        post.start().close()
        post.wait_until_drained(0)


class TestTheNextOne:
    def test_it_finds_what_the_last_one_left_and_kafka_has_both(self, tmp_path: Path) -> None:
        first = Desk(tmp_path)
        first.publish(0, 2)
        first.faults.away()
        first.publish(2, 2)
        first.post.close()
        assert first.kinds() == {Delivered, Spooled}
        with RecordingService(spool_dir=tmp_path, records=first.post.publisher.records) as post:
            post.wait_until_drained()
            assert [one.event_id for one in post.published] == ["id-0", "id-1", "id-2", "id-3"]


def test_users_get_it_as_a_fixture(
    spooling_service: RecordingService, postroom_faults: FaultScript, postroom_clock: ManualClock, tmp_path: Path
) -> None:
    postroom_faults.away()
    receipt = spooling_service.publish_event(event(1))
    postroom_clock.advance(600)
    assert isinstance(receipt.result(PATIENCE_S), Spooled)
    assert (tmp_path / "spool").is_dir()
    postroom_faults.back()
    spooling_service.wait_until_drained()
    assert len(spooling_service.published) == 1
