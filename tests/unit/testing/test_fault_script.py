"""The fault script says what is asked of it, the same way every time, and refuses what cannot be meant."""

from __future__ import annotations

import errno
import math
from collections.abc import Callable
from typing import Any

import pytest

from postroom.testing.fault_script import DISK_OPERATIONS, STEPS, FaultScript, KafkaState, Step

ASKED = Callable[[FaultScript], object]


class TestNonsense:
    @pytest.mark.parametrize(
        "asked",
        [
            lambda faults: faults.slow(-1),
            lambda faults: faults.slow(math.nan),
            lambda faults: faults.lose_acks(1.1),
            lambda faults: faults.lose_acks(-0.1),
            lambda faults: faults.lose_acks(math.nan),
            lambda faults: faults.topic_gone(""),
            lambda faults: faults.not_allowed(""),
            lambda faults: faults.back("never gone"),
            lambda faults: faults.disk_full(-1),
            lambda faults: faults.short_writes(0),
            lambda faults: faults.disk_error(),
            lambda faults: faults.disk_error("smoke"),
            lambda faults: faults.disk_error("sync", code=12_345),
            lambda faults: faults.disk_error("sync", times=0),
            lambda faults: faults.at("lunch", print),
            lambda faults: faults.at("before_ack", print, nth=0),
        ],
    )
    def test_it_is_refused_and_changes_nothing(self, asked: ASKED) -> None:
        faults = FaultScript()
        with pytest.raises(ValueError):
            asked(faults)
        assert faults.kafka == KafkaState()
        assert faults.free_bytes is None
        assert all(faults.disk_refusal(operation, "path") is None for operation in DISK_OPERATIONS)
        assert faults.disk_room(100, 100) == 100

    def test_a_misspelt_topic_is_told_with_the_names_there_are(self) -> None:
        faults = FaultScript()
        faults.knows({"user_events", "user_events.dlq"})
        with pytest.raises(ValueError, match=r"'user_event' is none of the topics user_events, user_events\.dlq"):
            faults.topic_gone("user_event")
        faults.topic_gone("user_events.dlq")

    def test_a_topic_that_was_misspelt_before_anybody_knew_is_told_then(self) -> None:
        faults = FaultScript().not_allowed("user_event")
        with pytest.raises(ValueError, match="none of the topics"):
            faults.knows({"user_events"})

    @pytest.mark.parametrize(
        "asked",
        [
            lambda faults: faults.disk_full(),
            lambda faults: faults.disk_hangs(),
            lambda faults: faults.disk_error("sync"),
            lambda faults: faults.no_file_handles(),
            lambda faults: faults.read_only(),
            lambda faults: faults.short_writes(),
        ],
    )
    def test_a_disk_that_is_not_there_cannot_be_broken(self, asked: ASKED) -> None:
        faults = FaultScript()
        faults.has_no_disk("give it a spool")
        with pytest.raises(ValueError, match="no disk that could fail: give it a spool"):
            asked(faults)
        early: Any = FaultScript()
        asked(early)
        with pytest.raises(ValueError, match="no disk"):
            early.has_no_disk("give it a spool")
        faults.has_disk()
        asked(faults)


class TestStates:
    def test_its_words_can_be_said_in_one_breath(self) -> None:
        faults = (
            FaultScript().away().slow(2).lose_acks(0.25, silently=True).topic_gone("a").not_allowed("b").queue_full()
        )
        assert faults.kafka == KafkaState(
            is_away=True,
            delay_s=2.0,
            is_queue_full=True,
            loss_share=0.25,
            loss_is_silent=True,
            topics={"a": "gone", "b": "not_allowed"},
        )
        faults.back().slow(0).lose_acks(0).back("a").queue_has_room()
        assert faults.kafka == KafkaState(topics={"b": "not_allowed"})

    def test_all_well_ends_everything(self) -> None:
        faults = FaultScript().away().slow(2).lose_acks().topic_gone("a").queue_full().fatal_error()
        faults.disk_full().short_writes().disk_error("sync").disk_hangs().all_well()
        assert faults.kafka == KafkaState()
        faults.wait_for_disk()
        assert not faults.take_fatal_error()
        assert faults.disk_refusal("sync", "path") is None
        assert faults.disk_room(100, 100) == 100

    def test_who_listens_hears_of_every_change_until_the_end(self) -> None:
        faults, heard = FaultScript(), list[bool]()
        end = faults.listen(lambda: heard.append(faults.kafka.is_away))
        faults.away().back()
        end()
        end()
        faults.away()
        assert heard == [True, False]


class TestChance:
    def lost(self, seed: int, topic: str = "topic", share: float = 0.5) -> list[bool]:
        faults = FaultScript(seed=seed).lose_acks(share)
        return [faults.loses_ack(topic) for _ in range(400)]

    def test_the_same_seed_loses_the_same_acks_and_another_one_others(self) -> None:
        assert self.lost(1) == self.lost(1)
        assert self.lost(1) != self.lost(2)
        assert self.lost(1) != self.lost(1, topic="other")

    def test_the_share_is_that_share(self) -> None:
        assert 150 < sum(self.lost(3)) < 250
        assert not any(self.lost(3, share=0))
        assert all(self.lost(3, share=1))

    def test_asked_for_again_it_begins_anew(self) -> None:
        faults = FaultScript(seed=1).lose_acks(0.5)
        first = [faults.loses_ack("topic") for _ in range(20)]
        faults.lose_acks(0.5)
        assert [faults.loses_ack("topic") for _ in range(20)] == first

    def test_what_happens_to_one_topic_does_not_depend_on_another(self) -> None:
        faults = FaultScript(seed=1).lose_acks(0.5)
        mixed = [faults.loses_ack(topic) for _ in range(400) for topic in ("topic", "other")]
        assert mixed[::2] == self.lost(1)


class TestDisk:
    def test_an_error_holds_until_it_is_mended_or_so_many_times(self) -> None:
        faults = FaultScript().disk_error("sync", "write").disk_error("read", code=errno.EACCES, times=2)
        for _ in range(5):
            error = faults.disk_refusal("sync", "/spool/file")
            assert error is not None
            assert (error.errno, error.filename) == (errno.EIO, "/spool/file")
        codes = [faults.disk_refusal("read", "") for _ in range(3)]
        assert [error and error.errno for error in codes] == [errno.EACCES, errno.EACCES, None]
        assert isinstance(codes[0], PermissionError)
        assert faults.disk_refusal("open", "") is None
        faults.disk_mended()
        assert faults.disk_refusal("sync", "") is None

    def test_a_full_disk_takes_what_fits_and_what_makes_no_file_longer(self) -> None:
        faults = FaultScript().disk_full(10)
        assert faults.disk_room(8, 8) == 8
        assert faults.disk_room(8, 8) == 2
        assert faults.disk_room(8, 8) == 0
        assert faults.disk_room(8, 3) == 5
        assert faults.disk_room(8, 0) == 8
        faults.disk_freed()
        assert faults.disk_room(8, 8) == 8

    def test_short_writes_use_up_no_more_room_than_they_write(self) -> None:
        faults = FaultScript().disk_full(10).short_writes(4)
        assert [faults.disk_room(100, 100) for _ in range(4)] == [4, 4, 2, 0]


class TestSteps:
    def test_an_action_happens_once_at_the_time_asked_for_and_not_at_other_steps(self) -> None:
        faults, happened = FaultScript(), list[str]()
        faults.at("before_ack", lambda: happened.append("second"), nth=2)
        faults.at("before_ack", lambda: happened.append("first"))
        steps: list[Step] = ["after_ack", "before_ack", "before_ack", "before_ack"]
        for step in steps:
            faults.reached(step)
            happened.append(step)
        assert happened == ["after_ack", "first", "before_ack", "second", "before_ack", "before_ack"]

    def test_counting_begins_where_it_is_asked_for(self) -> None:
        faults, happened = FaultScript(), list[int]()
        faults.at("before_ack", lambda: happened.append(0), nth=100)
        faults.reached("before_ack")
        faults.at("before_ack", lambda: happened.append(1))
        assert happened == []
        faults.reached("before_ack")
        assert happened == [1]

    def test_an_action_may_change_the_script_and_ask_for_more(self) -> None:
        faults, happened = FaultScript(), list[int]()

        def again() -> None:
            happened.append(1)
            faults.away().at("before_ack", again)

        faults.at("before_ack", again)
        for _ in range(3):
            faults.reached("before_ack")
        assert happened == [1, 1, 1]
        assert faults.kafka.is_away

    def test_every_step_has_a_name_of_its_own(self) -> None:
        assert len(set(STEPS)) == len(STEPS) == 12
