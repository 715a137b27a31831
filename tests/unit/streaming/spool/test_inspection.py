"""A look from outside: it sees what waits, touches nothing, and disturbs nobody."""

from __future__ import annotations

import errno
import threading
from typing import TYPE_CHECKING

import pytest

from postroom.libs.exceptions import SpoolUnavailableError
from postroom.streaming.spool.group_commit import Place
from postroom.streaming.spool.inspection import WaitingView, inspect_spool, waiting_records
from postroom.streaming.spool.record_format import Kind, pack_segment_header
from postroom.streaming.spool.spool import Spool
from postroom.testing.manual_clock import ManualClock
from postroom.testing.model_file_system import ModelFileSystem
from tests.unit.streaming.spool.spools import abandon, drained, quiet, record

if TYPE_CHECKING:
    from pathlib import Path


def _event_ids(root: Path) -> list[str]:
    return [one.event_id for one in waiting_records(root)]


def test_it_tells_who_has_a_slot_and_what_waits_in_it(tmp_path: Path) -> None:
    clock = ManualClock()
    spool = quiet(tmp_path, clock=clock, segment_bytes=500)
    spool.append_many([record(number, topic=f"t{number % 2}") for number in range(6)])
    clock.advance(5)
    spool.append(record(6, topic="dead"), kind=Kind.DEAD_LETTER).wait()
    for one in drained(spool)[:3]:
        spool.ack(one)
    spool.tend()
    (slot,) = inspect_spool(tmp_path).slots
    status = spool.status().slots[0]
    assert slot.name == "0001"
    assert slot.is_in_use
    assert slot.owner.startswith("pid ")
    assert (slot.records.by_topic, slot.dead_letters.by_topic) == (
        status.records.by_topic,
        status.dead_letters.by_topic,
    )
    assert slot.records.records == 3
    assert slot.records.bytes == status.records.bytes
    assert slot.dead_letters.oldest_ms == clock.time_ms()
    assert slot.records.oldest_ms == clock.time_ms() - 5000
    assert (slot.records.unreadable, slot.is_newer, slot.quarantined, slot.foreign) == (0, False, (), ())
    spool.stop()
    (slot,) = inspect_spool(tmp_path).slots
    assert (slot.is_in_use, slot.owner) == (False, "")
    assert slot.records.by_topic == status.records.by_topic


def test_it_lists_what_waits_with_lengths_and_never_with_content(tmp_path: Path) -> None:
    spool = quiet(tmp_path)
    now = spool._clock.time_ms()
    spool.append(record(1, key=None, attempt=3)).wait()
    spool.append(record(2)).wait()
    spool.ack(spool.read(Kind.RECORD, max_records=1)[0])
    spool.append(record(3), kind=Kind.DEAD_LETTER).wait()
    spool.tend()
    found = list(waiting_records(tmp_path))
    assert [one.place for one in found] == [Place("0001", Kind.RECORD, 2), Place("0001", Kind.DEAD_LETTER, 1)]
    assert found[0] == WaitingView(
        found[0].place, "topic", "id-2", 3, 22, found[0].appended_ms, attempt=1, sent_before=True
    )
    assert not found[1].sent_before
    assert abs(found[0].appended_ms - now) < 60_000
    spool.stop()


def test_it_changes_nothing_and_makes_nothing(tmp_path: Path) -> None:
    assert inspect_spool(tmp_path / "none").slots == ()
    assert list(waiting_records(tmp_path / "none")) == []
    assert not (tmp_path / "none").exists()
    spool = quiet(tmp_path)
    spool.append_many([record(number) for number in range(10)])
    abandon(spool)
    before = {path: (path.stat().st_mtime_ns, path.read_bytes()) for path in tmp_path.rglob("*") if path.is_file()}
    inspect_spool(tmp_path)
    assert len(list(waiting_records(tmp_path))) == 10
    after = {path: (path.stat().st_mtime_ns, path.read_bytes()) for path in tmp_path.rglob("*") if path.is_file()}
    assert after == before
    spool = quiet(tmp_path)
    assert spool.status().slots[0].name == "0001", "its lock was let go"
    spool.stop()


def test_it_works_beside_an_owner_that_writes_and_removes(tmp_path: Path) -> None:
    spool = Spool(tmp_path, segment_bytes=5_000)
    spool.start()
    stop = threading.Event()

    def live() -> None:
        number = 0
        while not stop.is_set():
            spool.append_many([record(number + step) for step in range(20)])[-1].wait()
            number += 20
            for one in spool.read(Kind.RECORD, max_records=19):
                spool.ack(one)
            spool.tend()

    owner = threading.Thread(target=live)
    owner.start()
    try:
        for _ in range(60):
            view = inspect_spool(tmp_path)
            assert view.slots[0].is_in_use
            assert view.slots[0].records.unreadable == 0
            numbers = [int(name[3:]) for name in _event_ids(tmp_path)]
            assert numbers == sorted(set(numbers))
    finally:
        stop.set()
        owner.join()
        spool.stop()


def test_it_names_what_is_foreign_newer_damaged_or_in_quarantine() -> None:
    disk = ModelFileSystem()
    spool = quiet("/spool", file_system=disk, clock=ManualClock(), cursor_bytes=256, key_counters=64)
    spool.append_many([record(number) for number in range(4)])
    abandon(spool)
    disk.flip("/spool/0001/records/00000000000000000001.seg", (128 + 60) * 8)
    disk.put("/spool/notes.txt", b"mine")
    disk.make_folder("/spool/contracts")  # the registry's last answers
    disk.put("/spool/0001/more.txt", b"mine")
    disk.put("/spool/0001/records/notes.txt", b"mine")
    disk.put("/spool/0001/records/00000000000000000009.seg", b"nothing that we wrote")
    disk.make_folder("/spool/0001/quarantine")
    disk.put("/spool/0001/quarantine/kept.bad", b"kept")
    for folder in ("/spool/0002", "/spool/0002/records"):
        disk.make_folder(folder)
    header = bytearray(pack_segment_header(1, 1, 1, 0, bytes(8)))
    header[8] = header[72] = 2
    disk.put("/spool/0002/records/00000000000000000001.seg", bytes(header))
    view = inspect_spool("/spool", file_system=disk)
    first, second = view.slots
    assert view.foreign == ("notes.txt",)
    assert (first.foreign, first.records.foreign, first.quarantined) == (("more.txt",), ("notes.txt",), ("kept.bad",))
    assert (first.records.unreadable, first.records.records) == (2, 3)
    assert second.is_newer
    assert second.records.records == 0
    found = [one.event_id for one in waiting_records("/spool", file_system=disk)]
    assert found == ["id-1", "id-2", "id-3"]


def test_a_segment_that_the_disk_does_not_give_is_left_out_and_counted() -> None:
    disk = ModelFileSystem()
    spool = quiet("/spool", file_system=disk, clock=ManualClock(), cursor_bytes=256, key_counters=64, segment_bytes=360)
    for number in range(4):
        spool.append(record(number)).wait()
    abandon(spool)
    disk.fault = lambda operation, path: (
        OSError(errno.EIO, "broken") if operation == "open" and path.endswith("1.seg") else None
    )
    assert [one.event_id for one in waiting_records("/spool", file_system=disk)] == ["id-2", "id-3"]
    (slot,) = inspect_spool("/spool", file_system=disk).slots
    assert (slot.records.records, slot.records.unreadable) == (2, 1)


def test_a_lock_that_cannot_be_tried_counts_as_taken() -> None:
    disk = ModelFileSystem()
    spool = quiet("/spool", file_system=disk, clock=ManualClock(), cursor_bytes=256, key_counters=64)
    spool.stop()
    disk.fault = lambda operation, path: (
        OSError(errno.EACCES, "shut") if operation == "open" and path.endswith("LOCK") else None
    )
    (slot,) = inspect_spool("/spool", file_system=disk).slots
    assert slot.is_in_use
    assert "EACCES" in slot.owner
    disk.fault = None
    disk.remove("/spool/0001/LOCK")
    assert not inspect_spool("/spool", file_system=disk).slots[0].is_in_use


def test_a_root_that_cannot_be_read_is_a_typed_error(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    with pytest.raises(SpoolUnavailableError):
        inspect_spool(tmp_path / "file")
