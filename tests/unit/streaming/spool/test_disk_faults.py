"""Disks that are full, broken, read-only or out of something: a typed answer, nothing lost, and on again afterwards."""

from __future__ import annotations

import errno
import os
import resource
import subprocess
import sys
from typing import TYPE_CHECKING, Any

import pytest

from postroom.libs.exceptions import SpoolFullError, SpoolUnavailableError
from postroom.streaming.spool.record_format import Kind
from postroom.streaming.spool.spool import Spool
from postroom.testing.manual_clock import ManualClock
from postroom.testing.model_file_system import ModelFileSystem
from tests.unit.streaming.spool.spools import abandon, drained, ids, quiet, record

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path


needs_root = pytest.mark.skipif(os.geteuid() != 0, reason="mounting needs root")


def _model(**settings: Any) -> tuple[ModelFileSystem, ManualClock, Spool]:
    disk, clock = ModelFileSystem(), ManualClock()
    settings = {"cursor_bytes": 256, "key_counters": 64, **settings}
    return disk, clock, quiet("/spool", file_system=disk, clock=clock, **settings)


def _again(disk: ModelFileSystem) -> Spool:
    return quiet("/spool", file_system=disk, clock=ManualClock(), cursor_bytes=256, key_counters=64)


def _failing(disk: ModelFileSystem, *operations: str, code: int = errno.EIO) -> None:
    disk.fault = lambda operation, _path: OSError(code, "broken") if operation in operations else None


class _ShortWrites(ModelFileSystem):
    """Takes at most seven bytes a write."""

    def room_for(self, node: object, count: int, offset: int) -> int:
        del node, offset
        return min(count, 7)


def test_short_writes_are_continued() -> None:
    disk = _ShortWrites()
    spool = quiet("/spool", file_system=disk, clock=ManualClock(), cursor_bytes=256, key_counters=64)
    spool.append_many([record(number) for number in range(5)])
    for waiting in drained(spool)[:2]:
        spool.ack(waiting)
    spool.stop()
    spool = _again(disk)
    assert ids(drained(spool)) == ["id-2", "id-3", "id-4"]


@pytest.mark.parametrize("operation", ["write", "sync", "truncate", "create", "sync_folder"])
def test_an_error_fails_its_batch_only_and_the_next_one_is_stored_elsewhere(operation: str) -> None:
    disk, _, spool = _model()
    spool.append(record(1)).wait()
    before = spool.status().slots[0].records.segments
    _failing(disk, operation, *(["write"] if operation == "truncate" else []))
    if operation in {"create", "sync_folder"}:
        spool._held[0].queues[Kind.RECORD]._writer._give_up(  # the next append needs a new segment
            spool._held[0].queues[Kind.RECORD]._writer._writer  # type: ignore[arg-type]  # there is one
        )
    ticket = spool.append(record(2, key=b"failed"))
    with pytest.raises(SpoolUnavailableError) as caught:
        ticket.wait()
    assert caught.value.may_resurface == (operation in {"sync", "truncate"})
    assert not spool.holds_key("topic", b"failed")
    disk.fault = None
    spool.append(record(3)).wait()
    assert spool.status().slots[0].records.segments == before + 1
    assert ids(drained(spool)) == ["id-1", "id-3"]
    abandon(spool)
    assert ids(drained(_again(disk))) == ["id-1", "id-3"]


def test_a_claim_that_the_disk_refuses_leaves_the_counts_as_they_were() -> None:
    disk, _, spool = _model()
    for topic in ("topic", "other"):  # the first of all, and one beside a topic that is counted
        _failing(disk, "write")
        ticket = spool.append(record(1, topic=topic), claim=True)
        assert isinstance(ticket.error, SpoolUnavailableError)
        assert not ticket.error.may_resurface
        disk.fault = None
        assert spool.waiting_by_topic(Kind.RECORD) == ({} if topic == "topic" else {"topic": 1})
        spool.append(record(2)).wait()
    assert ids(drained(spool)) == ["id-2", "id-2"]


def test_a_file_whose_sync_failed_is_never_written_or_believed_again() -> None:
    disk, _, spool = _model()
    spool.append(record(1)).wait()
    _failing(disk, "sync")
    spool.append(record(2))
    disk.fault = None
    path = "/spool/0001/records/00000000000000000001.seg"
    frozen = disk.content(path)
    for number in range(3, 9):
        spool.append(record(number)).wait()
    spool.stop()
    assert disk.content(path) == frozen


@pytest.mark.parametrize("where", ["queue_writer.pack_group", "footer.Summary.add_batch"])
def test_a_fault_of_our_own_leaves_nobody_waiting_and_the_next_record_is_stored(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture, where: str
) -> None:
    spool = Spool(tmp_path)
    spool.start()
    spool.append(record(0)).wait()
    with monkeypatch.context() as patched:
        patched.setattr(f"postroom.streaming.spool.{where}", lambda *_: 1 // 0)
        with pytest.raises(SpoolUnavailableError) as caught:
            spool.append(record(1, key=b"other")).wait()
    is_written = where == "footer.Summary.add_batch"
    assert caught.value.may_resurface == is_written
    assert spool.holds_key("topic", b"other") == is_written
    assert "spool_writer_failed" in caplog.text
    spool.append(record(2)).wait()
    assert ids(drained(spool)) == ["id-0", "id-2"]
    spool.stop()


def test_three_errors_in_a_row_refuse_at_once_until_a_try_succeeds() -> None:
    disk, clock, spool = _model()
    _failing(disk, "sync", "sync_folder")
    for number in range(3):
        assert isinstance(spool.append(record(number)).error, SpoolUnavailableError)
    waits = []
    for _ in range(6):
        writes: list[str] = []
        disk.on_change = lambda writes=writes: writes.append("x")
        with pytest.raises(SpoolUnavailableError) as caught:
            spool.append(record(9))
        assert not writes, "refused without touching the disk"
        assert caught.value.retry_after_s is not None
        waits.append(caught.value.retry_after_s)
        clock.advance(caught.value.retry_after_s)
        spool.tend()  # tries, and fails
    assert waits == [1.0, 2.0, 4.0, 8.0, 8.0, 8.0]
    assert spool.status().slots[0].records.refusing_since is not None
    disk.on_change = disk.fault = None
    clock.advance(8)
    spool.tend()
    assert spool.status().slots[0].records.refusing_since is None
    spool.append(record(10)).wait()
    assert ids(drained(spool)) == ["id-10"]


def test_after_the_pause_the_next_caller_may_try_without_waiting_for_the_upkeep() -> None:
    disk, clock, spool = _model()
    _failing(disk, "write")
    for number in range(3):
        spool.append(record(number))
    disk.fault = None
    clock.advance(1)
    spool.append(record(4)).wait()
    spool.append(record(5)).wait()


def test_an_error_in_one_queue_does_not_touch_the_other() -> None:
    disk, _, spool = _model()
    disk.fault = lambda operation, path: (
        OSError(errno.EIO, "broken") if operation == "sync" and "dead_letters" in path else None
    )
    for number in range(4):
        ticket = spool.append_many([record(number)], kind=Kind.DEAD_LETTER)[0]
        assert isinstance(ticket.error, SpoolUnavailableError)
    spool.append(record(9)).wait()


def test_a_cursor_that_cannot_be_written_hands_nothing_out_and_loses_nothing() -> None:
    disk, _, spool = _model()
    spool.append_many([record(number) for number in range(3)])
    disk.fault = lambda operation, path: (
        OSError(errno.EIO, "broken") if operation == "write" and "cursor" in path else None
    )
    for _ in range(2):
        with pytest.raises(SpoolUnavailableError):
            spool.read(Kind.RECORD)
    disk.fault = None
    found = drained(spool)
    assert ids(found) == ["id-0", "id-1", "id-2"]
    assert not any(waiting.sent_before for waiting in found)


def test_a_disk_that_cannot_be_read_says_so_and_gives_everything_later() -> None:
    disk, _, spool = _model()
    spool.append_many([record(number) for number in range(3)])
    _failing(disk, "read")
    with pytest.raises(SpoolUnavailableError):
        spool.read(Kind.RECORD)
    _failing(disk, "open", code=errno.EMFILE)
    with pytest.raises(SpoolUnavailableError) as caught:
        spool.read(Kind.RECORD)
    assert "EMFILE" in str(caught.value)
    disk.fault = None
    assert len(drained(spool)) == 3


def test_upkeep_that_fails_is_tried_again() -> None:
    disk, _, spool = _model()
    spool.append_many([record(number) for number in range(3)])
    for waiting in drained(spool):
        spool.ack(waiting)
    _failing(disk, "write", "sync", "unlink", "create")
    spool.tend()
    disk.fault = None
    spool.tend()
    abandon(spool)
    assert drained(_again(disk)) == []


def test_a_full_disk_refuses_with_a_time_and_still_drains_and_takes_again() -> None:
    disk, clock, spool = _model(fill_bytes=0)
    spool.append_many([record(number) for number in range(20)])
    disk.free_bytes = 10
    with pytest.raises(SpoolFullError) as caught:
        spool.append(record(99, key=b"other")).wait()
    assert caught.value.retry_after_s is not None
    assert not caught.value.may_resurface
    found = drained(spool)
    assert len(found) == 20
    for waiting in found:
        assert spool.ack(waiting)
    spool.tend()
    assert not [path for path in disk.paths() if path.endswith(".seg")], "freed without a byte"
    abandon(spool)
    assert drained(_again(disk)) == [], "and noted without a byte"
    disk.free_bytes = None
    clock.advance(2)


@pytest.fixture
def small_disk(tmp_path: Path) -> Iterator[Path]:
    """A file system of 8 MiB and 40 names."""
    path = tmp_path / "small"
    path.mkdir()
    subprocess.run(["mount", "-t", "tmpfs", "-o", "size=8m,nr_inodes=40", "none", str(path)], check=True)
    yield path
    subprocess.run(["umount", "-l", str(path)], check=True)


def _fill(path: Path, left_bytes: int) -> Path:
    stuffing = path / "stuffing"
    free = os.statvfs(path)
    with stuffing.open("wb") as file:
        file.write(b"x" * (free.f_bavail * free.f_frsize - left_bytes))
    return stuffing


@needs_root
def test_a_really_full_disk_refuses_drains_and_takes_again_without_a_restart(small_disk: Path) -> None:
    spool = quiet(small_disk / "spool", max_disk_share=1.0, reserve_bytes=0, segment_bytes=64 * 1024)
    stuffing = None
    sent = 0
    while True:
        try:
            spool.append(record(sent, size=4000)).wait()
        except SpoolFullError:
            break
        sent += 1
        if sent == 300:
            stuffing = _fill(small_disk, left_bytes=100_000)
    assert stuffing is not None
    assert sent > 300
    assert os.statvfs(small_disk).f_bavail * 4096 < 200_000
    found = []
    for waiting in drained(spool):
        found.append(waiting.record.event_id)
        assert spool.ack(waiting)
    spool.tend()
    assert found == [f"id-{number}" for number in range(sent)]
    stuffing.unlink()
    spool.tend()
    spool._held[0].queues[Kind.RECORD]._availability._retry_at = 0.0  # a second later
    spool.append(record(sent)).wait()
    assert ids(drained(spool)) == [f"id-{sent}"]
    spool.stop()


@needs_root
def test_a_disk_that_fills_between_two_looks_at_it_costs_nothing_that_was_accepted(small_disk: Path) -> None:
    spool = quiet(small_disk / "spool", max_disk_share=1.0, reserve_bytes=0)
    spool.append(record(0)).wait()
    _fill(small_disk, left_bytes=0)
    accepted = ["id-0"]
    for number in range(1, 50):
        ticket = spool.append_many([record(number, size=4000)])[0]
        if ticket.error is None:
            accepted.append(f"id-{number}")
        else:
            assert isinstance(ticket.error, SpoolFullError)
    assert len(accepted) < 30, "what was filled ahead is room; there is no more"
    abandon(spool)
    spool = quiet(small_disk / "spool")
    assert ids(drained(spool)) == accepted
    spool.stop()


@needs_root
def test_no_names_left_is_a_full_disk_too(small_disk: Path) -> None:
    spool = quiet(small_disk / "spool", max_disk_share=1.0, reserve_bytes=0, segment_bytes=2000)
    for number in range(100):
        (small_disk / f"name{number}").touch() if number < 25 else None
    sent = 0
    with pytest.raises(SpoolFullError):
        while True:
            spool.append(record(sent, size=1000)).wait()
            sent += 1
    found = drained(spool)
    assert len(found) == sent > 1
    for waiting in found:
        spool.ack(waiting)
    spool.tend()
    spool._held[0].queues[Kind.RECORD]._availability._retry_at = 0.0
    spool.append(record(sent)).wait()
    spool.stop()


@needs_root
def test_a_folder_that_turns_read_only_refuses_and_keeps_what_it_has(small_disk: Path) -> None:
    spool = quiet(small_disk / "spool", max_disk_share=1.0, reserve_bytes=0)
    spool.append(record(1)).wait()
    spool.stop()
    subprocess.run(["mount", "-o", "remount,ro", str(small_disk)], check=True)
    try:
        with pytest.raises(SpoolUnavailableError) as caught:
            quiet(small_disk / "spool")
        assert "EROFS" in str(caught.value)
    finally:
        subprocess.run(["mount", "-o", "remount,rw", str(small_disk)], check=True)
    spool = quiet(small_disk / "spool")
    assert ids(drained(spool)) == ["id-1"]
    spool.stop()


LIMITED = """
import resource, sys
resource.setrlimit(resource.RLIMIT_FSIZE, (300_000, 300_000))
from postroom.libs.exceptions import SpoolFullError
from tests.unit.streaming.spool.spools import quiet, record, drained
spool = quiet(sys.argv[1])
sent = 0
try:
    while True:
        spool.append(record(sent, size=1000)).wait()
        sent += 1
except SpoolFullError as exc:
    assert not exc.may_resurface
assert len(drained(spool)) == sent > 100
print("ok")
"""


def test_a_limit_on_the_size_of_files_is_a_full_disk(tmp_path: Path) -> None:
    assert resource.getrlimit(resource.RLIMIT_FSIZE)
    done = subprocess.run([sys.executable, "-c", LIMITED, str(tmp_path)], capture_output=True, text=True, check=False)
    assert done.stdout == "ok\n", done.stderr


NO_FILES = """
import resource, sys
from postroom.libs.exceptions import SpoolUnavailableError
from tests.unit.streaming.spool.spools import quiet, record
resource.setrlimit(resource.RLIMIT_NOFILE, (3, 3))
try:
    quiet(sys.argv[1])
except SpoolUnavailableError as exc:
    print(exc)
"""


def test_no_file_handles_left_is_a_typed_error(tmp_path: Path) -> None:
    done = subprocess.run([sys.executable, "-c", NO_FILES, str(tmp_path)], capture_output=True, text=True, check=False)
    assert "EMFILE" in done.stdout, done.stderr


def test_a_slot_that_is_shut_away_is_passed_over() -> None:
    disk, _, spool = _model()
    spool.append(record(1)).wait()
    spool.stop()
    disk.fault = lambda operation, path: (
        PermissionError(errno.EACCES, "shut") if operation in {"create", "open"} and "/0001/" in path else None
    )
    spool = _again(disk)
    assert spool.status().slots[0].name == "0002"
    spool.append(record(2)).wait()
    assert ids(drained(spool)) == ["id-2"]


def test_a_segment_that_cannot_be_read_at_the_start_is_left_alone_and_read_by_a_later_one() -> None:
    disk, _, spool = _model()
    spool.append_many([record(number) for number in range(3)])
    spool.stop()
    disk.fault = lambda operation, path: (
        OSError(errno.EIO, "broken") if operation == "read" and path.endswith("1.seg") else None
    )
    spool = _again(disk)
    assert spool.status().slots[0].records.foreign == ("00000000000000000001.seg",)
    spool.append(record(3)).wait()
    assert ids(drained(spool)) == ["id-3"]
    disk.fault = None
    abandon(spool)
    found = drained(_again(disk))
    assert ids(found) == ["id-0", "id-1", "id-2", "id-3"]
    assert len({waiting.sequence for waiting in found}) == 4


def test_a_sealed_segment_keeps_nothing_in_memory_that_its_footer_says() -> None:
    disk, clock = ModelFileSystem(), ManualClock()
    spool = quiet("/spool", file_system=disk, clock=clock, segment_bytes=500, cursor_bytes=256, key_counters=64)
    for number in range(30):
        spool.append(record(number, key=b"%d" % number)).wait()
    segments = spool._held[0].queues[Kind.RECORD]._store.all()
    assert len(segments) > 5
    assert all(segment.key_hashes is None and not segment.has_acknowledged for segment in segments[:-1])


def _three_segments() -> tuple[ModelFileSystem, Spool]:
    disk, _, spool = _three_segments_and_their_clock()
    return disk, spool


def _three_segments_and_their_clock() -> tuple[ModelFileSystem, ManualClock, Spool]:
    disk, clock, spool = _model(segment_bytes=360)
    for number in range(6):
        spool.append(record(number)).wait()
    assert spool.status().slots[0].records.segments == 3
    return disk, clock, spool


def _unreadable(disk: ModelFileSystem, segment: int) -> None:
    disk.fault = lambda operation, path: (
        OSError(errno.EIO, "broken") if operation == "read" and path.endswith(f"{segment}.seg") else None
    )


def test_one_bad_place_on_the_disk_does_not_hold_up_what_is_behind_it_for_ever() -> None:
    disk, spool = _three_segments()
    _unreadable(disk, 2)
    found = spool.read(Kind.RECORD)
    assert ids(found) == ["id-0", "id-1"]
    for _ in range(2):
        with pytest.raises(SpoolUnavailableError):
            spool.read(Kind.RECORD)
    found += spool.read(Kind.RECORD)
    assert ids(found) == ["id-0", "id-1", "id-4", "id-5"]
    for waiting in found:
        assert spool.ack(waiting)
    spool.tend()
    assert spool.status().records == 2
    disk.fault = None
    abandon(spool)
    assert ids(drained(_again(disk))) == ["id-2", "id-3"]


def test_a_segment_that_was_passed_over_is_tried_again_after_a_while_and_holds_up_nobody_meanwhile() -> None:
    disk, clock, spool = _three_segments_and_their_clock()
    _unreadable(disk, 2)
    found = spool.read(Kind.RECORD)
    for _ in range(2):
        with pytest.raises(SpoolUnavailableError):
            spool.read(Kind.RECORD)
    found += spool.read(Kind.RECORD)
    assert spool.status().slots[0].records.passed_over == 1
    spool.rewind(Kind.RECORD)
    assert spool.read(Kind.RECORD) == [], "resting, and no error"
    clock.advance(61)
    assert spool.read(Kind.RECORD) == [], "tried once, still broken, and no error"
    spool.append(record(6)).wait()
    assert ids(spool.read(Kind.RECORD)) == ["id-6"]
    disk.fault = None
    assert spool.read(Kind.RECORD) == []
    clock.advance(61)
    assert ids(drained(spool)) == ["id-2", "id-3"]
    assert spool.status().slots[0].records.passed_over == 0


def test_a_segment_that_cannot_be_counted_is_passed_over_and_a_later_start_reads_it() -> None:
    disk, spool = _three_segments()
    abandon(spool)
    whole = _again(disk)
    abandon(whole)
    spool = Spool("/spool", file_system=disk, clock=ManualClock(), cursor_bytes=256, key_counters=64, background=False)
    counted = spool._count

    def count_on_a_bad_disk() -> None:
        _unreadable(disk, 2)
        counted()
        disk.fault = None

    spool._count = count_on_a_bad_disk  # type: ignore[method-assign]  # the headers were still readable
    spool.start()
    assert spool.is_counted
    assert spool.status().slots[0].records.foreign == ("00000000000000000002.seg",)
    assert ids(drained(spool)) == ["id-0", "id-1", "id-4", "id-5"]
    abandon(spool)
    assert ids(drained(_again(disk))) == [f"id-{number}" for number in range(6)]


def test_when_full_even_the_open_segment_goes_once_it_is_acknowledged() -> None:
    disk, _, spool = _model()
    spool.append_many([record(number) for number in range(20)])
    disk.free_bytes = 0
    spool.tend()
    with pytest.raises(SpoolFullError):
        spool.append(record(99))
    for waiting in drained(spool):
        assert spool.ack(waiting)
    spool.tend()
    assert not [path for path in disk.paths() if path.endswith(".seg")]
    disk.free_bytes = None
    spool.tend()
    spool.append(record(100)).wait()
    assert ids(drained(spool)) == ["id-100"]
