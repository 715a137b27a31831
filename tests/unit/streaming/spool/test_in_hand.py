"""What a spool promises about records that somebody has: read, claimed, acknowledged, put back."""

from __future__ import annotations

import errno
from typing import TYPE_CHECKING, Any

import pytest

from postroom.libs.exceptions import SpoolUnavailableError
from postroom.streaming.spool.group_commit import Place
from postroom.streaming.spool.record_format import Kind
from postroom.streaming.spool.spool import Spool
from postroom.streaming.spool.status import FoundRecords
from postroom.testing.manual_clock import ManualClock
from postroom.testing.model_file_system import ModelFileSystem
from tests.unit.streaming.spool.spools import abandon, drained, ids, quiet, record, until

if TYPE_CHECKING:
    from collections.abc import Iterable
    from pathlib import Path

    from postroom.streaming.spool.group_commit import Ticket


def _model(**settings: Any) -> tuple[ModelFileSystem, Spool]:
    disk = ModelFileSystem()
    return disk, _again(disk, **settings)


def _again(disk: ModelFileSystem, **settings: Any) -> Spool:
    settings = {"cursor_bytes": 256, "key_counters": 64, **settings}
    return quiet("/spool", file_system=disk, clock=ManualClock(), **settings)


def _claimed(spool: Spool, numbers: Iterable[int], **kinds: Any) -> list[Place]:
    tickets = [spool.append(record(number, **kinds), claim=True) for number in numbers]
    assert all(ticket.is_claimed for ticket in tickets)
    return [ticket.place for ticket in tickets]


def test_a_claimed_record_is_not_read_holds_no_key_and_does_not_count_as_waiting() -> None:
    _, spool = _model()
    (place,) = _claimed(spool, [1])
    spool.append(record(2, key=b"other")).wait()
    assert place == Place("0001", Kind.RECORD, 1)
    assert not spool.holds_key("topic", b"key")
    assert spool.waiting("topic") == 1
    assert ids(drained(spool)) == ["id-2"]
    spool.rewind(Kind.RECORD)
    assert drained(spool) == []
    assert not spool.is_empty, "it is on the disk"
    status = spool.status().slots[0].records
    assert (status.records, status.in_hand, status.claimed) == (2, 2, 1)
    assert spool.ack(place)
    assert not spool.ack(place)
    assert spool.status().records == 1


def test_a_claimed_record_that_was_put_back_is_read_in_its_order_and_holds_its_key() -> None:
    _, spool = _model()
    first, second = _claimed(spool, [1, 2])
    spool.append(record(3)).wait()
    assert spool.put_back([second], sent=True) == 1
    assert spool.put_back([second], sent=True) == 0
    assert spool.holds_key("topic", b"key")
    assert spool.waiting("topic") == 2
    found = drained(spool)
    assert [(one.record.event_id, one.sent_before) for one in found] == [("id-2", True), ("id-3", False)]
    spool.put_back([first], sent=False)
    assert drained(spool) == [], "the reader is past it"
    spool.rewind(Kind.RECORD)
    again = drained(spool)
    assert [(one.record.event_id, one.sent_before) for one in again] == [("id-1", False)]
    for one in (*found, *again):
        assert spool.ack(one)
    assert spool.is_empty
    assert not spool.has_waiting(Kind.RECORD)
    assert not spool.holds_key("topic", b"key")


def test_a_claim_of_a_process_that_died_is_an_ordinary_record_and_marked() -> None:
    disk, spool = _model()
    _claimed(spool, [1, 2])
    abandon(spool)
    spool = _again(disk)
    assert spool.holds_key("topic", b"key")
    assert [(one.record.event_id, one.sent_before) for one in drained(spool)] == [("id-1", True), ("id-2", True)]


def test_what_is_appended_after_a_crash_was_handed_to_nobody() -> None:
    disk, spool = _model()
    _claimed(spool, [1])
    abandon(spool)
    spool = _again(disk)
    spool.append(record(2)).wait()
    assert [one.sent_before for one in drained(spool)] == [True, False]


def test_a_claim_that_cannot_be_noted_becomes_an_ordinary_record_and_its_callback_sees_it() -> None:
    disk, spool = _model()
    spool.append(record(0)).wait()
    disk.fault = lambda operation, path: (
        OSError(errno.EIO, "broken") if operation in {"write", "create"} and "cursor" in path else None
    )
    seen: list[tuple[bool, object]] = []
    ticket = spool.append(record(1), claim=True, on_stored=lambda done: seen.append((done.is_claimed, done.error)))
    assert ticket.wait() == 2
    assert seen == [(False, None)]
    assert spool.waiting("topic") == 2
    assert not spool.ack(ticket.place)
    disk.fault = None
    assert ids(drained(spool)) == ["id-0", "id-1"]


def test_a_claim_that_is_not_stored_is_told_so_and_counts_nowhere() -> None:
    disk, spool = _model()
    disk.fault = lambda operation, _path: OSError(errno.EIO, "broken") if operation == "sync" else None
    seen: list[Ticket] = []
    spool.append(record(1), claim=True, on_stored=seen.append)
    assert isinstance(seen[0].error, SpoolUnavailableError)
    assert not seen[0].is_claimed
    assert spool.put_back([seen[0].place], sent=False) == 0
    assert spool.waiting("topic") == 0
    assert not spool.holds_key("topic", b"key")


def test_the_mark_is_written_once_for_many_claims() -> None:
    disk, spool = _model()
    writes: list[str] = []
    disk.fault = lambda operation, path: writes.append(path) if operation == "sync" and "cursor" in path else None
    for place in _claimed(spool, range(3000)):
        assert spool.ack(place)
    assert len(writes) <= 2


def test_callbacks_come_in_the_order_of_the_records_and_one_that_raises_stops_nobody(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    spool = Spool(tmp_path, segment_bytes=20_000)
    spool.start()
    seen: list[int] = []

    def fail(_ticket: Ticket) -> None:
        raise RuntimeError("mine")

    tickets = [
        spool.append(
            record(number),
            claim=number % 2 == 0,
            on_stored=fail if number == 50 else lambda done: seen.append(done.sequence),
        )
        for number in range(200)
    ]
    until(lambda: len(seen) == 199, "all called")
    assert seen == [ticket.sequence for number, ticket in enumerate(tickets) if number != 50]
    spool.stop()
    assert "spool_callback_failed" in caplog.text


def test_a_callback_may_acknowledge_put_back_and_append(tmp_path: Path) -> None:
    spool = Spool(tmp_path)
    spool.start()

    def stored(ticket: Ticket) -> None:
        if ticket.sequence % 3 == 0:
            assert spool.ack(ticket.place)
        elif ticket.sequence % 3 == 1:
            assert spool.put_back([ticket.place], sent=False) == 1
        else:
            spool.append(record(1000 + ticket.sequence), kind=Kind.DEAD_LETTER)

    for number in range(1, 31):
        spool.append(record(number), claim=True, on_stored=stored)
    until(lambda: spool.waiting("topic", Kind.DEAD_LETTER) == 10, "all called")
    spool.rewind(Kind.RECORD)
    assert ids(drained(spool)) == [f"id-{number}" for number in range(1, 31, 3)]
    spool.stop()


def test_who_is_told_during_the_stop_can_still_acknowledge_and_put_back(tmp_path: Path) -> None:
    spool = Spool(tmp_path)
    spool.start()
    spool.append(record(0)).wait()
    answers: list[object] = []

    def stored(ticket: Ticket) -> None:
        is_even = ticket.sequence % 2 == 0
        answers.append(spool.ack(ticket.place) if is_even else spool.put_back([ticket.place], sent=False) == 1)

    for number in range(1, 400):
        spool.append(record(number), claim=True, on_stored=stored)
    spool.stop()
    assert answers == [True] * 399
    spool = quiet(tmp_path)
    found = drained(spool)
    assert ids(found) == [f"id-{number}" for number in range(0, 400, 2)], "sequences begin at 1"
    spool.stop()


def test_rewinding_passes_over_what_is_in_hand_and_brings_back_what_was_put_back(tmp_path: Path) -> None:
    spool = quiet(tmp_path, segment_bytes=1000)
    spool.append_many([record(number) for number in range(30)])
    found = spool.read(Kind.RECORD, max_records=20)
    for waiting in found[:15:2]:
        assert spool.ack(waiting)
    assert spool.put_back(found[1:10:2], sent=True) == 5
    assert spool.put_back(found[11:15:2], sent=False) == 2
    spool.rewind(Kind.RECORD)
    again = drained(spool)
    assert ids(again) == [f"id-{number}" for number in (1, 3, 5, 7, 9, 11, 13, *range(20, 30))]
    assert [waiting.sent_before for waiting in again] == [True] * 5 + [False] * 12
    assert all(spool.ack(waiting) for waiting in (*again, *found[15:]))
    assert spool.is_empty
    spool.stop()


def test_a_mark_of_an_earlier_try_stays_when_a_later_one_sends_nothing() -> None:
    disk, spool = _model()
    spool.append(record(1)).wait()
    for sent in (False, True, False, False):
        spool.put_back(drained(spool), sent=sent)
        spool.rewind(Kind.RECORD)
    assert [one.sent_before for one in drained(spool)] == [True]
    abandon(spool)
    spool = _again(disk)
    spool.put_back(drained(spool), sent=False)
    spool.rewind(Kind.RECORD)
    assert [one.sent_before for one in drained(spool)] == [True]


def test_a_clean_stop_marks_what_is_in_hand_or_was_sent_and_nothing_above_it() -> None:
    for keep, marked in ((3, 3), (0, 0)):
        disk, spool = _model()
        spool.append_many([record(number) for number in range(6)])
        found = drained(spool)
        spool.put_back(found[keep:], sent=False)
        spool.stop()
        assert [one.sent_before for one in drained(_again(disk))] == [True] * marked + [False] * (6 - marked)
    disk, spool = _model()
    spool.append_many([record(number) for number in range(6)])
    spool.put_back(drained(spool)[4:5], sent=True)
    spool.put_back(drained(spool), sent=False)
    spool.stop()
    assert len([one for one in drained(_again(disk)) if one.sent_before]) >= 5


def test_what_earlier_processes_left_is_told_once_for_each_slot() -> None:
    disk, own = _model()
    other = _again(disk)
    own.append_many([record(1), record(2, topic="b")])
    other.append_many([record(3)])
    assert own.newly_found(Kind.RECORD) == []
    abandon(own)
    abandon(other)
    spool = _again(disk)
    assert spool.newly_found(Kind.RECORD) == [FoundRecords("0001", "topic", 1), FoundRecords("0001", "b", 1)]
    assert spool.newly_found(Kind.RECORD) == []
    assert spool.take_over_unclaimed() == 1
    assert spool.newly_found(Kind.DEAD_LETTER) == []
    assert spool.newly_found(Kind.RECORD) == [FoundRecords("0002", "topic", 1)]
    assert spool.waiting_by_topic(Kind.RECORD) == {"topic": 2, "b": 1}
    assert spool.waiting("topic") == 2
    assert spool.waiting_by_topic(Kind.DEAD_LETTER) == {}


def test_a_record_counts_as_waiting_before_it_is_stored_and_not_after_it_failed() -> None:
    disk, spool = _model()
    counts: list[int] = []
    disk.on_change = lambda: counts.append(spool.waiting("topic"))
    spool.append(record(1)).wait()
    assert set(counts) == {1}
    disk.fault = lambda operation, _path: OSError(errno.EIO, "broken") if operation == "sync" else None
    spool.append(record(2))
    assert spool.waiting("topic") == 1
    assert spool.has_waiting(Kind.RECORD)
    assert not spool.has_waiting(Kind.DEAD_LETTER)
