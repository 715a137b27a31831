"""What a spool promises while everything works: order, counts, keys, kinds, acknowledgements, restarts."""

from __future__ import annotations

import signal
import threading
from typing import TYPE_CHECKING, Any

import msgspec
import pytest

from postroom.libs.exceptions import LifecycleError, NotRepresentableError, ReceiptTimeoutError, SpoolFullError
from postroom.streaming.spool.group_commit import Batch, Ticket
from postroom.streaming.spool.record_format import Kind
from postroom.streaming.spool.spool import Spool
from postroom.testing.manual_clock import ManualClock
from tests.unit.streaming.spool.spools import abandon, drained, ids, quiet, record

if TYPE_CHECKING:
    from pathlib import Path


def test_records_come_out_in_order_and_exactly_as_they_went_in(tmp_path: Path) -> None:
    spool = quiet(tmp_path)
    labels = (("event_type", b"user_event"), ("contract", b"user_event:1"))
    sent = [record(0), record(1, key=None, attempt=3), record(2, size=300_000)]
    for one in sent:
        spool.append(one, labels=labels).wait()
    found = drained(spool)
    assert [waiting.record for waiting in found] == sent
    assert all(waiting.labels == labels and not waiting.sent_before for waiting in found)
    assert [waiting.sequence for waiting in found] == sorted(waiting.sequence for waiting in found)
    assert drained(spool) == []
    spool.stop()


def test_the_two_kinds_are_separate_queues(tmp_path: Path) -> None:
    spool = quiet(tmp_path)
    spool.append(record(1), kind=Kind.DEAD_LETTER).wait()
    spool.append(record(2)).wait()
    assert ids(drained(spool)) == ["id-2"]
    (letter,) = drained(spool, Kind.DEAD_LETTER)
    assert letter.kind is Kind.DEAD_LETTER
    assert not spool.holds_key("other", b"key")
    assert (spool.status().records, spool.status().dead_letters) == (1, 1)
    spool.ack(letter)
    assert (spool.status().records, spool.status().dead_letters) == (1, 0)
    spool.stop()


def test_dead_letters_hold_back_no_key(tmp_path: Path) -> None:
    spool = quiet(tmp_path)
    spool.append(record(1), kind=Kind.DEAD_LETTER).wait()
    assert not spool.holds_key("topic", b"key")
    spool.stop()


def test_a_key_waits_from_the_append_to_the_last_acknowledgement_of_it(tmp_path: Path) -> None:
    spool = quiet(tmp_path)
    assert not spool.holds_key("topic", b"a")
    spool.append_many([record(1, key=b"a"), record(2, key=b"a"), record(3, key=b"b"), record(4, key=None)])
    assert spool.holds_key("topic", b"a")
    assert not spool.holds_key("another", b"a")
    assert not spool.holds_key("topic", None)
    found = drained(spool)
    spool.ack(found[1])
    assert spool.holds_key("topic", b"a")
    spool.ack(found[0])
    assert not spool.holds_key("topic", b"a")
    assert spool.holds_key("topic", b"b")
    spool.stop()


def test_keys_and_counts_are_there_again_after_a_restart_of_any_kind(tmp_path: Path) -> None:
    for leave in (Spool.stop, abandon):
        spool = quiet(tmp_path / leave.__name__, segment_bytes=1000)
        spool.append_many([record(number, topic=f"t{number % 2}", key=b"%d" % number) for number in range(40)])
        found = drained(spool)
        for waiting in found[3:30:2]:
            spool.ack(waiting)
        spool.tend()
        before = spool.status().slots[0].records.by_topic
        leave(spool)
        spool = quiet(tmp_path / leave.__name__)
        assert spool.is_counted
        assert spool.status().slots[0].records.by_topic == before
        left = [number for number in range(40) if number not in range(3, 30, 2)]
        assert ids(drained(spool)) == [f"id-{number}" for number in left]
        assert [number for number in range(40) if spool.holds_key(f"t{number % 2}", b"%d" % number)] == left
        spool.stop()


def test_acknowledged_segments_are_removed_and_an_empty_spool_leaves_no_segment(tmp_path: Path) -> None:
    spool = quiet(tmp_path, segment_bytes=1000)
    for number in range(40):
        spool.append(record(number)).wait()
    folder = tmp_path / "0001" / "records"
    many = len(list(folder.glob("*.seg")))
    assert many > 3
    found = drained(spool)
    for waiting in reversed(found[1:]):
        assert spool.ack(waiting)
    spool.tend()
    assert len(list(folder.glob("*.seg"))) == 2  # the first, and the one that is written
    assert spool.ack(found[0])
    assert not spool.ack(found[0])
    spool.tend()
    spool.stop()
    assert list(folder.glob("*.seg")) == []
    spool = quiet(tmp_path)
    assert spool.is_empty
    spool.stop()


def test_after_a_crash_what_was_handed_out_is_marked_and_what_was_not_is_not(tmp_path: Path) -> None:
    spool = quiet(tmp_path)
    spool.append_many([record(number) for number in range(3000)])
    spool.read(Kind.RECORD, max_records=10, max_bytes=10**9)
    abandon(spool)
    spool = quiet(tmp_path)
    marks = [waiting.sent_before for waiting in drained(spool)]
    assert all(marks[:10])
    assert not any(marks[10 + 1024 :])
    spool.stop()
    spool = quiet(tmp_path)
    assert all(waiting.sent_before for waiting in drained(spool))
    spool.stop()


def test_a_clean_stop_marks_exactly_what_was_handed_out(tmp_path: Path) -> None:
    spool = quiet(tmp_path)
    spool.append_many([record(number) for number in range(20)])
    spool.read(Kind.RECORD, max_records=10)
    spool.stop()
    spool = quiet(tmp_path)
    assert [waiting.sent_before for waiting in drained(spool)] == [True] * 10 + [False] * 10
    spool.stop()


def test_reading_is_bounded_in_records_and_bytes_and_gives_at_least_one(tmp_path: Path) -> None:
    spool = quiet(tmp_path)
    spool.append_many([record(number, size=1000) for number in range(10)])
    assert len(spool.read(Kind.RECORD, max_records=3)) == 3
    assert len(spool.read(Kind.RECORD, max_bytes=2500)) == 3
    assert len(spool.read(Kind.RECORD, max_bytes=1)) == 1
    spool.stop()


def test_the_oldest_waiting_record_tells_its_age(tmp_path: Path) -> None:
    clock = ManualClock()
    spool = quiet(tmp_path, clock=clock)
    assert spool.status().slots[0].records.oldest_ms is None
    start = clock.time_ms()
    spool.append(record(1)).wait()
    clock.advance(5)
    spool.append(record(2)).wait()
    assert spool.status().slots[0].records.oldest_ms == start
    found = drained(spool)
    spool.ack(found[0])
    assert spool.status().slots[0].records.oldest_ms == start + 5000
    spool.ack(found[1])
    assert spool.status().slots[0].records.oldest_ms is None
    spool.stop()


def test_the_cap_refuses_with_a_time_and_takes_again_after_a_fifth_is_free(tmp_path: Path) -> None:
    spool = quiet(tmp_path, max_bytes=1_000_000, segment_bytes=50_000)
    number = 0
    with pytest.raises(SpoolFullError) as caught:
        while True:
            spool.append(record(number, size=1000)).wait()
            number += 1
    assert caught.value.retry_after_s is not None
    assert not caught.value.may_resurface
    assert 0.85 < spool.used_bytes / 1_000_000 <= 0.91
    assert spool.status().is_full
    found = drained(spool)
    assert len(found) == number
    for waiting in found[:80]:  # under a tenth: still full
        spool.ack(waiting)
    spool.tend()
    with pytest.raises(SpoolFullError):
        spool.append(record(0))
    refused = spool.append_many([record(1), record(2)])
    assert all(isinstance(ticket.error, SpoolFullError) for ticket in refused)
    for waiting in found[80:250]:
        spool.ack(waiting)
    spool.tend()
    spool.append(record(number)).wait()
    assert not spool.holds_key("topic", b"never")
    spool.stop()


def test_append_many_keeps_what_was_stored_before_the_record_that_cannot_be(tmp_path: Path) -> None:
    spool = quiet(tmp_path)
    tickets = spool.append_many([record(1), record(2, topic="\ud800"), record(3)])
    assert tickets[0].wait() > 0
    assert [type(ticket.error) for ticket in tickets[1:]] == [NotRepresentableError] * 2
    assert ids(drained(spool)) == ["id-1"]
    spool.stop()


def test_a_ticket_that_is_not_written_in_time_says_so() -> None:
    with pytest.raises(ReceiptTimeoutError):
        Ticket(Batch("0001", Kind.RECORD), 1).wait(0.0)


def test_all_who_wait_for_a_batch_are_woken_also_when_some_have_given_up_or_are_interrupted() -> None:
    batch, answers = Batch("0001", Kind.RECORD), []

    def patient() -> None:
        answers.append(batch.wait(None))

    threads = [threading.Thread(target=patient) for _ in range(8)]
    for thread in threads:
        thread.start()
    assert not batch.wait(0.0)
    assert not batch.wait(-1.0)

    def interrupt(*_: object) -> None:
        batch.complete(None)
        raise InterruptedError

    before = signal.signal(signal.SIGALRM, interrupt)
    try:
        signal.setitimer(signal.ITIMER_REAL, 0.01)
        with pytest.raises(InterruptedError):
            batch.wait(None)
    finally:
        signal.signal(signal.SIGALRM, before)
    for thread in threads:
        thread.join()
    assert answers == [True] * 8
    assert batch.wait(0.0)
    assert batch.wait(1e12)


def test_sixteen_threads_append_and_every_record_is_there_once(tmp_path: Path) -> None:
    spool = Spool(tmp_path, segment_bytes=20_000)
    spool.start()

    def work(worker: int) -> None:
        for number in range(50):
            spool.append(record(worker * 50 + number, key=b"%d" % worker)).wait()

    threads = [threading.Thread(target=work, args=(worker,)) for worker in range(16)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    found = drained(spool)
    assert sorted(ids(found)) == sorted(f"id-{number}" for number in range(800))
    for worker in range(16):
        of_worker = [waiting.record.event_id for waiting in found if waiting.record.key == b"%d" % worker]
        assert of_worker == [f"id-{worker * 50 + number}" for number in range(50)]
    spool.stop()


def test_reading_and_acknowledging_beside_writing_loses_and_repeats_nothing(tmp_path: Path) -> None:
    spool = Spool(tmp_path, segment_bytes=20_000)
    spool.start()
    got: list[str] = []

    def drain() -> None:
        while len(got) < 2000:
            for waiting in spool.read(Kind.RECORD, max_records=50):
                got.append(waiting.record.event_id)
                assert spool.ack(waiting)

    drainer = threading.Thread(target=drain)
    drainer.start()
    for start in range(0, 2000, 20):
        spool.append_many([record(number) for number in range(start, start + 20)])[-1].wait()
    drainer.join()
    assert got == [f"id-{number}" for number in range(2000)]
    assert spool.is_empty
    spool.stop()
    assert not list((tmp_path / "0001" / "records").glob("*.seg"))


def test_until_a_start_has_counted_every_key_waits(tmp_path: Path) -> None:
    spool = quiet(tmp_path)
    spool.append(record(1, key=b"a")).wait()
    spool.stop()
    spool = Spool(tmp_path, background=False)
    spool._count = lambda: None  # type: ignore[method-assign]  # the moment before
    spool.start()
    assert not spool.is_counted
    assert spool.holds_key("topic", b"anything")
    assert not spool.is_empty
    assert drained(spool) == []
    del spool._count
    spool._count()
    assert not spool.holds_key("topic", b"anything")
    assert ids(drained(spool)) == ["id-1"]
    spool.stop()


def test_a_spool_that_is_not_running_says_so(tmp_path: Path) -> None:
    spool = Spool(tmp_path, background=False)
    for call in (lambda: spool.append(record(1)), spool.take_over_unclaimed):
        with pytest.raises(LifecycleError):
            call()
    spool.start()
    with pytest.raises(LifecycleError):
        spool.start()
    spool.stop()
    spool.stop()
    with pytest.raises(LifecycleError):
        spool.append(record(1))
    with pytest.raises(LifecycleError):
        spool.start()
    assert spool.read(Kind.RECORD) == []


def test_stopping_stores_what_was_appended_and_not_waited_for(tmp_path: Path) -> None:
    spool = Spool(tmp_path)
    spool.start()
    tickets = [spool.append(record(number)) for number in range(500)]
    spool.stop()
    assert all(ticket.is_done and ticket.error is None for ticket in tickets)
    spool = quiet(tmp_path)
    assert len(drained(spool)) == 500
    spool.stop()


def test_folders_and_files_are_for_their_owner_only(tmp_path: Path) -> None:
    spool = quiet(tmp_path / "deep" / "root")
    spool.append(record(1)).wait()
    spool.stop()
    for path in (tmp_path / "deep").rglob("*"):
        assert path.stat().st_mode & 0o777 == (0o700 if path.is_dir() else 0o600), path


def test_no_name_on_the_disk_tells_anything_of_a_record(tmp_path: Path) -> None:
    spool = quiet(tmp_path)
    spool.append(record(1, topic="secret_topic", key=b"secret_key")).wait()
    assert not [path for path in tmp_path.rglob("*") if "secret" in path.name]
    spool.stop()


def test_more_than_memory_should_hold_is_refused_with_a_short_time(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("postroom.streaming.spool.queue_intake.MAX_WAITING_BYTES", 500)
    spool = quiet(tmp_path)
    queue = spool._own[Kind.RECORD]  # type: ignore[index]  # it is running
    queue._writer.commit_next = lambda: False  # type: ignore[method-assign]  # a disk that takes its time
    first = spool.append(record(1, size=1000))
    with pytest.raises(SpoolFullError) as caught:
        spool.append(record(2))
    assert caught.value.retry_after_s == 0.1
    del queue._writer.commit_next
    spool.stop()
    assert first.wait() == 1


@pytest.mark.parametrize("part", ["value", "key", "headers"])
def test_many_large_ones_do_not_pass_the_bound_of_memory_together(
    part: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """256 at once of a megabyte each were taken where 64 MiB is the most, and packed anew at each try."""
    mib = 1024 * 1024
    monkeypatch.setattr("postroom.streaming.spool.queue_intake.MAX_WAITING_BYTES", 3 * mib)
    spool = quiet(tmp_path)
    queue = spool._own[Kind.RECORD]  # type: ignore[index]  # it is running
    queue._writer.commit_next = lambda: False  # type: ignore[method-assign]  # a disk that takes its time
    large: dict[str, Any] = {part: (("h", bytes(100_000)),) if part == "headers" else bytes(100_000)}
    tickets = spool.append_many([msgspec.structs.replace(record(number), **large) for number in range(200)])
    taken = [ticket for ticket in tickets if ticket.is_taken]
    assert tickets[: len(taken)] == taken
    assert mib < queue._writer.waiting.size <= 3 * mib
    assert {type(ticket.error) for ticket in tickets[len(taken) :]} == {SpoolFullError}
    del queue._writer.commit_next
    spool.stop()
    assert [ticket.wait() for ticket in taken] == list(range(1, len(taken) + 1))


def test_a_cursor_made_with_another_size_is_read_and_replaced(tmp_path: Path) -> None:
    spool = quiet(tmp_path, cursor_bytes=4096)
    spool.append_many([record(number) for number in range(5)])
    for waiting in drained(spool)[:2]:
        spool.ack(waiting)
    spool.stop()
    path = tmp_path / "0001" / "records" / "cursor"
    assert path.stat().st_size == 8192
    spool = quiet(tmp_path, cursor_bytes=1024)
    found = drained(spool)
    assert ids(found) == ["id-2", "id-3", "id-4"]
    spool.ack(found[0])
    spool.stop()
    assert path.stat().st_size == 2048
    spool = quiet(tmp_path, cursor_bytes=1024)
    assert ids(drained(spool)) == ["id-3", "id-4"]
    spool.stop()


def test_acknowledgements_beyond_the_room_of_the_cursor_are_only_read_again(tmp_path: Path) -> None:
    spool = quiet(tmp_path, cursor_bytes=100, segment_bytes=1000)
    spool.append_many([record(number) for number in range(100)])
    for waiting in drained(spool):
        if int(waiting.record.event_id[3:]) % 4:
            spool.ack(waiting)
    spool.tend()
    abandon(spool)
    spool = quiet(tmp_path, cursor_bytes=100)
    found = drained(spool)
    again = {int(name[3:]) for name in ids(found)}
    assert set(range(0, 100, 4)) <= again
    assert 1 not in again
    assert all(waiting.sent_before for waiting in found)
    spool.stop()
