"""The publisher in memory under a fault script keeps a publisher's promises and behaves as Kafka's client does."""

from __future__ import annotations

import math
import threading
from typing import TYPE_CHECKING

import pytest

from postroom.libs.event import FailedReason, Record
from postroom.libs.exceptions import LifecycleError, QueueFullError
from postroom.streaming.delivery import Action
from postroom.testing.fault_script import FaultScript
from postroom.testing.manual_clock import ManualClock
from postroom.testing.memory_publisher import MemoryPublisher
from tests.contract.test_publisher_suite import (  # noqa: F401 - the suite, here for one that is slow
    Bench,
    TestCondition,
    TestGivingUp,
    TestLife,
    TestReports,
    TestRoom,
)

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable

    from postroom.streaming.publisher import Report

PATIENCE_S = 20.0


@pytest.fixture
def bench() -> Bench:
    """The bench of the suite, with a publisher whose reports all come late, from its thread."""
    return Bench(MemoryPublisher(faults=FaultScript().slow(0.002)), "clicks")


def record(number: int, topic: str = "topic") -> Record:
    return Record(topic, b"key", b"value", (), str(number), 1_795_416_182_091)


class Desk:
    """A publisher on a clock that stands still, its script, and what was reported, in order."""

    def __init__(self, hand_over_after_s: float | None = None, records: Iterable[Record] = ()) -> None:
        self.faults = FaultScript(seed=5)
        self.clock = ManualClock()
        self.publisher = MemoryPublisher(
            faults=self.faults, clock=self.clock, hand_over_after_s=hand_over_after_s, records=records
        )
        self.reports: list[tuple[int, Report]] = []

    def publish(self, *numbers: int, topic: str = "topic") -> None:
        for number in numbers:
            self.publisher.publish(record(number, topic), self.heard(number))

    def heard(self, number: int) -> Callable[[Report], None]:
        return lambda report: self.reports.append((number, report))

    @property
    def numbers(self) -> list[int]:
        return [number for number, _ in self.reports]

    @property
    def actions(self) -> set[Action]:
        return {report.decision.action for _, report in self.reports}

    @property
    def in_kafka(self) -> list[int]:
        return [int(record.event_id) for record in self.publisher.records]

    def wait_for(self, count: int) -> None:
        """Wait for the publisher's thread; the test's timeout is the limit."""
        pause = threading.Event()
        while len(self.reports) < count:
            pause.wait(0.001)


class TestAway:
    def test_records_are_taken_and_not_reported_until_the_brokers_are_back(self) -> None:
        desk = Desk()
        desk.publish(0)
        desk.faults.away()
        desk.publish(1, 2, 3)
        desk.clock.advance(600)
        assert desk.publisher.flush(5) == 3
        assert (desk.publisher.in_flight(), desk.numbers, desk.in_kafka) == (3, [0], [0])
        desk.faults.back()
        assert desk.publisher.flush(PATIENCE_S) == 0
        assert desk.numbers == desk.in_kafka == [0, 1, 2, 3]
        assert desk.actions == {Action.DELIVERED}

    def test_after_their_return_nobody_has_to_ask_for_the_reports(self) -> None:
        desk = Desk()
        desk.faults.away()
        desk.publish(1, 2)
        desk.faults.back()
        desk.wait_for(2)
        assert desk.numbers == [1, 2]

    def test_the_condition_says_so_and_since_when(self) -> None:
        desk = Desk()
        desk.clock.advance(5)
        assert desk.publisher.condition().since_s == 5
        desk.faults.away()
        desk.clock.advance(2)
        desk.publish(1)
        desk.clock.advance(3)
        condition = desk.publisher.condition()
        assert (condition.connected, condition.since_s, condition.oldest_s) == (False, 5, 3)
        assert condition.problem
        desk.faults.away()
        assert desk.publisher.condition().since_s == 5, "saying it twice changes nothing"
        desk.faults.back()
        desk.wait_for(1)
        condition = desk.publisher.condition()
        assert (condition.connected, condition.since_s, condition.oldest_s) == (True, 0, None)
        assert not condition.problem

    def test_one_that_begins_while_they_are_away_knows_it(self) -> None:
        publisher = MemoryPublisher(faults=FaultScript().away())
        assert publisher.condition().connected is False

    @pytest.mark.parametrize(
        ("before", "meanwhile", "maybe"),
        [
            (lambda faults: faults.away(), lambda faults: None, False),
            (lambda faults: faults.slow(math.inf), lambda faults: faults.away(), True),
            (lambda faults: faults.away().slow(math.inf), lambda faults: faults.back().away(), True),
            (lambda faults: faults.slow(math.inf), lambda faults: None, True),
        ],
        ids=["never connected", "connected when it was taken", "connected in between", "frozen"],
    )
    def test_a_purge_says_never_sent_only_of_what_no_connection_can_have_sent(
        self, before: Callable[[FaultScript], object], meanwhile: Callable[[FaultScript], object], maybe: bool
    ) -> None:
        desk = Desk()
        before(desk.faults)
        desk.publish(1, 2)
        meanwhile(desk.faults)
        desk.publisher.purge()
        assert desk.numbers == [1, 2]
        for _, report in desk.reports:
            decision = report.decision
            assert (decision.action, decision.reason) == (Action.HOLD, FailedReason.KAFKA_UNAVAILABLE)
            assert decision.may_be_in_kafka is maybe
        assert (desk.publisher.in_flight(), desk.in_kafka) == (0, [])

    def test_what_is_unreported_for_too_long_is_given_up_by_itself(self) -> None:
        desk = Desk(hand_over_after_s=15)
        desk.faults.away()
        desk.publish(1, 2)
        desk.clock.advance(15.1)
        desk.wait_for(2)
        assert (desk.numbers, desk.actions) == ([1, 2], {Action.HOLD})

    def test_nothing_is_taken_while_it_is_being_emptied(self) -> None:
        desk = Desk()
        desk.faults.away()
        refused: list[bool] = []

        def handler(report: Report) -> None:
            desk.heard(1)(report)
            with pytest.raises(QueueFullError):
                desk.publish(2)
            refused.append(not desk.publisher.wait_for_room(0))

        desk.publisher.publish(record(1), handler)
        desk.publisher.purge()
        assert (desk.numbers, refused) == ([1], [True])
        desk.faults.back()
        desk.publish(3)
        assert desk.numbers == [1, 3]


class TestSlow:
    def test_reports_come_so_much_later_and_in_order(self) -> None:
        desk = Desk()
        desk.faults.slow(2)
        desk.publish(1)
        desk.clock.advance(1)
        desk.publish(2)
        assert desk.publisher.flush(0) == 2
        desk.clock.advance(1)
        desk.wait_for(1)
        assert (desk.numbers, desk.publisher.in_flight()) == ([1], 1)
        desk.clock.advance(1)
        desk.wait_for(2)
        assert desk.numbers == desk.in_kafka == [1, 2]

    def test_a_record_that_comes_when_it_is_fast_again_overtakes_none(self) -> None:
        desk = Desk()
        desk.faults.slow(100)
        desk.publish(1)
        desk.faults.at("after_publish", lambda: desk.faults.slow(0))
        desk.publish(2)
        assert desk.publisher.flush(PATIENCE_S) == 0
        assert desk.numbers == desk.in_kafka == [1, 2]

    def test_flush_moves_a_clock_that_moves_by_itself(self) -> None:
        desk = Desk()
        desk.faults.slow(3)
        desk.publish(1)
        assert desk.publisher.flush(2) == 1
        assert desk.publisher.flush(2) == 0


class TestLostAcks:
    def test_the_records_are_in_kafka_and_some_are_reported_as_timed_out(self) -> None:
        desk = Desk()
        desk.faults.lose_acks(0.5)
        desk.publish(*range(100))
        assert desk.in_kafka == desk.numbers == list(range(100))
        lost = [report for _, report in desk.reports if report.decision.action is Action.HOLD]
        assert 30 < len(lost) < 70
        assert all(report.decision.may_be_in_kafka and not report.decision.operator for report in lost)
        assert [report.offset for _, report in desk.reports if report not in lost] == [
            number for number, report in desk.reports if report not in lost
        ]

    def test_silently_lost_ones_are_not_heard_of_until_they_are_given_up_and_hold_up_nobody(self) -> None:
        desk = Desk()
        desk.faults.lose_acks(0.5, silently=True)
        desk.publish(*range(100))
        lost = [number for number in range(100) if number not in desk.numbers]
        assert 30 < len(lost) < 70
        assert (desk.in_kafka, desk.publisher.in_flight()) == (list(range(100)), len(lost))
        desk.reports.clear()
        desk.publisher.purge()
        assert desk.numbers == lost
        assert all(report.decision.may_be_in_kafka for _, report in desk.reports)
        assert len(desk.in_kafka) == 100

    def test_silently_lost_ones_grow_old(self) -> None:
        desk = Desk(hand_over_after_s=15)
        desk.faults.lose_acks(1, silently=True)
        desk.publish(1)
        desk.clock.advance(20)
        desk.wait_for(1)
        assert desk.actions == {Action.HOLD}


class TestTopics:
    @pytest.mark.parametrize(
        ("trouble", "reason"),
        [
            (FaultScript.topic_gone, FailedReason.TOPIC_MISSING),
            (FaultScript.not_allowed, FailedReason.NOT_AUTHORIZED),
        ],
    )
    def test_trouble_with_one_topic_is_no_trouble_with_others_and_ends(
        self, trouble: Callable[[FaultScript, str], object], reason: FailedReason
    ) -> None:
        desk = Desk()
        trouble(desk.faults, "one")
        desk.publish(1, topic="one")
        desk.publish(2, topic="other")
        decision = desk.reports[0][1].decision
        assert (decision.action, decision.reason, decision.operator) == (Action.HOLD, reason, True)
        assert desk.in_kafka == [2]
        desk.faults.back("one")
        desk.publish(3, topic="one")
        assert desk.in_kafka == [2, 3]

    def test_records_that_waited_together_have_one_fate(self) -> None:
        desk = Desk()
        desk.faults.away().topic_gone("one")

        def mends(report: Report) -> None:
            desk.faults.back("one")
            desk.heard(1)(report)

        desk.publisher.publish(record(1, "one"), mends)
        desk.publish(2, 3, topic="one")
        desk.publish(4, topic="other")
        desk.faults.back()
        desk.wait_for(4)
        assert desk.numbers == [1, 2, 3, 4]
        assert desk.in_kafka == [4]


class TestFullQueue:
    def test_there_is_no_room_until_there_is(self) -> None:
        desk = Desk()
        desk.faults.queue_full()
        with pytest.raises(QueueFullError):
            desk.publish(1)
        assert not desk.publisher.wait_for_room(0)
        before = desk.clock.monotonic()
        assert not desk.publisher.wait_for_room(5)
        assert 5 <= desk.clock.monotonic() - before < 5.1
        desk.faults.queue_has_room()
        assert desk.publisher.wait_for_room(0)
        desk.publish(1)
        assert desk.numbers == [1]

    def test_who_waits_gets_the_room_that_comes(self) -> None:
        faults = FaultScript().queue_full()
        publisher = MemoryPublisher(faults=faults)
        answers: list[bool] = []
        waiting = threading.Thread(target=lambda: answers.append(publisher.wait_for_room(PATIENCE_S)))
        waiting.start()
        faults.queue_has_room()
        waiting.join()
        assert answers == [True]


class TestFatalError:
    def test_everything_unreported_comes_back_and_then_there_is_a_new_producer(self) -> None:
        desk = Desk()
        desk.faults.slow(100)
        desk.publish(1, 2)
        desk.faults.fatal_error()
        desk.publish(3)
        desk.wait_for(3)
        reasons = [report.decision.reason for _, report in desk.reports]
        assert desk.numbers == [1, 2, 3]
        assert reasons == [FailedReason.KAFKA_UNAVAILABLE] * 2 + [FailedReason.PRODUCER_FATAL]
        assert all(report.decision.may_be_in_kafka for _, report in desk.reports)
        desk.faults.slow(0)
        assert desk.publisher.wait_for_room(PATIENCE_S)
        desk.publish(4)
        assert desk.in_kafka == [4]

    def test_until_then_nothing_is_taken(self) -> None:
        desk = Desk()
        desk.faults.fatal_error()
        goes_on = threading.Event()

        def handler(report: Report) -> None:
            goes_on.wait(PATIENCE_S)
            desk.heard(1)(report)

        desk.publisher.publish(record(1), handler)
        with pytest.raises(QueueFullError):
            desk.publish(2)
        goes_on.set()
        desk.wait_for(1)
        assert desk.publisher.wait_for_room(PATIENCE_S)


class TestSteps:
    def test_a_record_passes_them_in_this_order(self) -> None:
        desk = Desk()
        passed: list[object] = []
        for step in ("before_publish", "after_publish", "before_ack", "after_ack"):
            desk.faults.at(step, lambda step=step: passed.append((step, desk.in_kafka, desk.numbers)))  # type: ignore[misc]
        desk.publish(1)
        assert passed == [
            ("before_publish", [], []),
            ("after_publish", [], []),
            ("before_ack", [1], []),
            ("after_ack", [1], [1]),
        ]

    def test_what_is_not_acknowledged_has_no_ack(self) -> None:
        desk = Desk()
        desk.faults.at("before_ack", lambda: pytest.fail("there is none")).topic_gone("topic")
        desk.publish(1)
        assert desk.numbers == [1]


class TestHandlers:
    def test_what_a_handler_raises_is_logged_and_hurts_nobody(self, caplog: pytest.LogCaptureFixture) -> None:
        desk = Desk()

        def handler(_: Report) -> None:
            raise ZeroDivisionError

        desk.publisher.publish(record(1), handler)
        desk.faults.away()
        desk.publisher.publish(record(2), handler)
        desk.publish(3)
        desk.faults.back()
        desk.wait_for(1)
        assert desk.numbers == [3]
        assert "report_handler_failed" in caplog.text
        assert "ZeroDivisionError" in caplog.text

    def test_one_that_waits_for_reports_is_told_that_it_never_could(self) -> None:
        desk = Desk()
        desk.faults.away()
        told: list[str] = []

        def handler(_: Report) -> None:
            for call in (lambda: desk.publisher.flush(1), desk.publisher.purge, lambda: desk.publisher.close(1)):
                with pytest.raises(LifecycleError) as caught:
                    call()
                told.append(caught.value.code)

        desk.publisher.publish(record(1), handler)
        desk.publisher.purge()
        assert told == ["lifecycle"] * 3

    def test_flush_waits_for_the_handler_of_another_thread(self) -> None:
        desk = Desk()
        entered, goes_on = threading.Event(), threading.Event()

        def handler(report: Report) -> None:
            entered.set()
            goes_on.wait(PATIENCE_S)
            desk.heard(1)(report)

        publishing = threading.Thread(target=lambda: desk.publisher.publish(record(1), handler))
        publishing.start()
        assert entered.wait(PATIENCE_S)
        assert desk.publisher.in_flight() == 0
        assert desk.publisher.flush(0) == 1
        goes_on.set()
        publishing.join()
        assert desk.publisher.flush(0) == 0


class TestWhatItKeeps:
    def test_what_another_one_left_in_kafka_is_there_and_offsets_go_on(self) -> None:
        desk = Desk(records=[record(1), record(2), record(3, "other")])
        desk.publish(4)
        assert desk.in_kafka == [1, 2, 3, 4]
        assert desk.reports[0][1].offset == 2

    def test_held_records_wait_for_their_release_only(self) -> None:
        desk = Desk(hand_over_after_s=15)
        desk.publisher.holding = True
        desk.publish(1, 2)
        desk.clock.advance(100)
        desk.faults.away().back()
        assert desk.publisher.flush(0) == 2
        desk.publisher.holding = False
        desk.publish(3)
        assert desk.numbers == [], "nothing overtakes them"
        desk.publisher.release()
        assert desk.numbers == desk.in_kafka == [1, 2, 3]

    def test_held_records_make_no_others_old(self) -> None:
        desk = Desk(hand_over_after_s=15)
        desk.publisher.holding = True
        desk.publish(1)
        desk.publisher.holding = False
        desk.clock.advance(10)
        desk.publish(2)
        desk.clock.advance(10)
        assert desk.publisher.flush(0) == 2
        desk.publisher._turn()
        assert desk.numbers == []
        desk.clock.advance(6)
        desk.wait_for(2)
        assert (desk.numbers, desk.actions) == ([1, 2], {Action.HOLD})

    def test_its_thread_ends_with_it(self) -> None:
        desk = Desk()
        desk.faults.away()
        desk.publish(1)
        thread = desk.publisher._thread
        assert thread is not None
        desk.publisher.close(0)
        thread.join(PATIENCE_S)
        assert not thread.is_alive()
        assert desk.numbers == [1]
