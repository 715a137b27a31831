"""When a draining by hand is over, and what it says: decided from one look, as a table."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from postroom.cli.spool_drain import STILL_S, DrainResult, Situation, Verdict, judge, progress, remedies
from postroom.cli.spool_folder import QueueLook, SlotLook
from postroom.services.spool_view import PathView

NOTHING = QueueLook(0, {}, 0, None, 0)


def path(problem: str | None, topic: str = "clicks", state: str = "spooling") -> PathView:
    return PathView(topic, "records", state, 5.0, problem, 1)


def look(**fields: Any) -> Situation:
    return Situation(**{"waiting": 10, **fields})


STILL = {"still_s": STILL_S}
MISSING, DENIED, AWAY = path("topic_missing"), path("not_authorized", "orders"), path("kafka_unavailable")


@pytest.mark.parametrize(
    ("now", "left_s", "verdict"),
    [
        (look(waiting=0), None, Verdict.EMPTY),
        (look(waiting=0), 0.0, Verdict.EMPTY),
        (look(waiting=0, is_counted=False), None, Verdict.GO_ON),
        (look(), None, Verdict.GO_ON),
        (look(), 1.0, Verdict.GO_ON),
        (look(), 0.0, Verdict.TIME_IS_UP),
        # Dead letters that the broker refuses are never waited for, other records are.
        (look(rejected=10), None, Verdict.STUCK),
        (look(rejected=10), 100.0, Verdict.STUCK),
        (look(rejected=9), None, Verdict.GO_ON),
        (look(rejected=10, is_counted=False), None, Verdict.GO_ON),
        # Kafka is waited for, without a limit for ever.
        (look(is_connected=False, **STILL), None, Verdict.GO_ON),
        (look(is_connected=False, **STILL), 0.0, Verdict.TIME_IS_UP),
        (look(closed=(AWAY,), **STILL), None, Verdict.GO_ON),
        (look(closed=(MISSING, AWAY), **STILL), None, Verdict.GO_ON),
        # A person is waited for as long as the limit says, and without one not for ever.
        (look(closed=(MISSING, DENIED), **STILL), None, Verdict.STUCK),
        (look(closed=(MISSING, DENIED), **STILL), 1.0, Verdict.GO_ON),
        (look(closed=(MISSING,), still_s=STILL_S - 1), None, Verdict.GO_ON),
        # Records that the disk does not give back.
        (look(**STILL), None, Verdict.STUCK),
        (look(closed=(path(None, state="draining"),), **STILL), None, Verdict.STUCK),
    ],
)
def test_it_is_over_when_nothing_is_left_or_nothing_will_move_or_time_is_up(
    now: Situation, left_s: float | None, verdict: Verdict
) -> None:
    assert judge(now, left_s) is verdict


def test_progress_says_what_it_waits_for() -> None:
    told = progress(look(elapsed_s=3.2, sent=1200, by_topic={"clicks": 10}, oldest_s=7800.0))
    assert told == "    3.2 s  sent 1,200  left 10 (clicks 10)  oldest 2 h 10 min"
    assert progress(look(is_connected=False, away_s=0.4)).endswith("left 10")
    away = progress(look(is_connected=False, away_s=65.0, problem="_TRANSPORT"))
    assert away.endswith("left 10  waits for Kafka, not there for 1 min 5 s (_TRANSPORT)")
    assert progress(look(closed=(MISSING,))).endswith("clicks: topic_missing")
    assert "left 10 and counting" in progress(look(is_counted=False))


def test_what_is_left_is_told_with_what_a_person_can_do() -> None:
    assert remedies(look(closed=(MISSING, DENIED))) == [
        "clicks: topic_missing; create it: postroom topics create",
        "orders: not_authorized; check user, password and ACLs",
    ]
    assert remedies(look(closed=(AWAY,))) == ["clicks: kafka_unavailable; see the log"]
    (rejected,) = remedies(look(rejected=10))
    assert "10 dead letters refused by the broker" in rejected
    (unread,) = remedies(look(**STILL))
    assert "could not be read" in unread
    assert remedies(look()) == []
    (away,) = remedies(look(is_connected=False, problem="_TRANSPORT"))
    assert away.startswith("Kafka did not answer (_TRANSPORT): bring it back")


def slot(waiting: int, owner: str | None) -> SlotLook:
    return SlotLook("0002", owner, False, QueueLook(waiting, {"clicks": waiting}, 100, 1.0, 0), NOTHING, (), ())


@pytest.mark.parametrize(
    ("verdict", "in_use", "code"),
    [
        (Verdict.EMPTY, (), 0),
        (Verdict.EMPTY, (slot(3, "pid 7"),), 3),
        (Verdict.STUCK, (), 1),
        (Verdict.STUCK, (slot(3, "pid 7"),), 1),
        (Verdict.TIME_IS_UP, (), 4),
        (Verdict.TIME_IS_UP, (slot(3, "pid 7"),), 4),
    ],
)
def test_the_exit_code_says_what_is_needed_a_person_or_time(
    verdict: Verdict, in_use: tuple[SlotLook, ...], code: int
) -> None:
    last = look(waiting=0) if verdict is Verdict.EMPTY else look(rejected=10, by_topic={"clicks": 10})
    result = DrainResult(str(Path("spool")), verdict, 5, last, in_use, (), 1.5)
    assert result.code == code
    told = result.told()
    assert (told["sent"], told["left"]) == (5, last.waiting)
    assert told["in_use"] == [{"slot": "0002", "owner": "pid 7", "waiting": 3} for _ in in_use]
    lines = "\n".join(result.lines())
    assert lines.startswith("Sent 5 in 1.5 s.")
    assert ("Nothing waits" in lines) is (code == 0)
    assert ("is in use by pid 7, which drains it itself: 3 wait" in lines) is bool(in_use)
    assert bool(told["problems"]) is (verdict is not Verdict.EMPTY)


def test_a_slot_of_a_newer_version_is_told_and_needs_a_person() -> None:
    result = DrainResult("spool", Verdict.EMPTY, 5, look(waiting=0), (), ("0003",), 1.5)
    assert result.code == 1
    assert result.problems == ["slot 0003 is of a newer version of postroom: drain it with that version"]
    assert "Nothing waits" not in "".join(result.lines())


def test_what_the_disk_lost_is_told_and_needs_a_person() -> None:
    result = DrainResult("spool", Verdict.EMPTY, 5, look(waiting=0, damaged=2, lost=1), (), (), 1.5)
    assert result.code == 1
    (told,) = result.problems
    assert told.startswith("2 places in its files could not be read, with 1 record that had been counted: set aside")
    assert (result.told()["damaged"], result.told()["lost"]) == (2, 1)
