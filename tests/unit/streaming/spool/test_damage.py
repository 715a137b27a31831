"""Cut and flipped files: what is lost is only what was hit, and it is kept for people."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import pytest

from postroom.streaming.spool.frame_scan import Frame, FrameScan
from postroom.streaming.spool.record_format import pack_segment_header, parse_segment_header
from postroom.testing.manual_clock import ManualClock
from postroom.testing.model_file_system import ModelFileSystem
from tests.unit.streaming.spool.spools import abandon, drained, ids, quiet, record

if TYPE_CHECKING:
    from pathlib import Path

    from postroom.streaming.spool.queue_reader import SpooledRecord
    from postroom.streaming.spool.spool import Spool

SEGMENT = "/spool/0001/records/00000000000000000001.seg"
COUNT = 6


def _model(**settings: Any) -> tuple[ModelFileSystem, Spool]:
    disk = ModelFileSystem()
    # A fixed salt: a random one makes some checksum begin with a zero byte now and then, and zeros are kept nowhere.
    settings = {"salt": lambda: b"saltsalt", "cursor_bytes": 256, "key_counters": 64, "fill_bytes": 0, **settings}
    return disk, quiet("/spool", file_system=disk, clock=ManualClock(), **settings)


def _again(disk: ModelFileSystem) -> Spool:
    return quiet("/spool", file_system=disk, clock=ManualClock(), cursor_bytes=256, key_counters=64)


def _filled(*, sealed: bool, together: bool = True) -> tuple[bytes, list[Frame], int]:
    """A segment with six records, of one group or of six: its bytes, its frames, where they end."""
    disk, spool = _model()
    records = [record(number, key=b"%d" % number) for number in range(COUNT)]
    for some in [records] if together else [[one] for one in records]:
        spool.append_many(some)
    end = len(disk.content(SEGMENT))
    if sealed:
        spool.stop()
    content = disk.content(SEGMENT)
    header = parse_segment_header(content[:128])
    assert header is not None
    scan = FrameScan(disk.open_to_read(SEGMENT), seed=header.seed, kind=1, next_sequence=1)
    return content, [found for found in scan.run(end) if isinstance(found, Frame)], end


def _opened(content: bytes) -> tuple[ModelFileSystem, Spool]:
    disk = ModelFileSystem()
    for folder in ("/spool", "/spool/0001", "/spool/0001/records"):
        disk.make_folder(folder)
    disk.put(SEGMENT, content)
    return disk, _again(disk)


@pytest.mark.parametrize("together", [False, True])
@pytest.mark.parametrize("sealed", [False, True])
def test_a_segment_cut_at_any_byte_gives_every_record_before_the_cut(sealed: bool, together: bool) -> None:
    content, frames, end = _filled(sealed=sealed, together=together)
    for cut in range(len(content)):
        disk, spool = _opened(content[:cut])
        whole = [frame.stored.record.event_id for frame in frames if frame.offset + frame.length <= cut]
        found = drained(spool)
        assert ids(found) == whole
        assert spool.waiting("topic") == len(whole)
        spool.append(record(99)).wait()
        assert ids(drained(spool)) == ["id-99"]
        _drop_all(spool, found)
        # What was cut off stands nowhere; what was left of the torn record is kept.
        kept = [disk.content(path) for path in disk.paths("/spool/0001") if "quarantine" in path]
        begins = 128
        for frame in frames:
            if frame.offset + frame.length <= cut:
                begins = frame.offset + frame.length
            elif frame.offset <= cut:
                begins = frame.offset
        if len(whole) < COUNT and begins < cut and cut >= 128:
            left = content[begins:cut].rstrip(b"\0")
            assert [data[128:].rstrip(b"\0") for data in kept] == [left] * bool(left)
        assert not kept or len(whole) < COUNT or cut > end, "a copy that is cut off is nothing to keep"


def _drop_all(spool: Spool, found: list[SpooledRecord]) -> None:
    for waiting in found:
        spool.ack(waiting)
    spool.tend()


@pytest.mark.parametrize("together", [False, True])
@pytest.mark.parametrize("sealed", [False, True])
def test_a_flip_of_any_bit_costs_at_most_the_record_it_hits(sealed: bool, together: bool) -> None:
    content, frames, end = _filled(sealed=sealed, together=together)
    everything = [frame.stored.record.event_id for frame in frames]
    framing = 0 if together else 36  # of one record alone there is no copy
    for bit in range(len(content) * 8):
        at = bit // 8
        flipped = bytearray(content)
        flipped[at] ^= 1 << bit % 8
        disk, spool = _opened(bytes(flipped))
        hit = next((frame for frame in frames if frame.offset - framing <= at < frame.offset + frame.length), None)
        expected = [name for name in everything if hit is None or name != hit.stored.record.event_id]
        found = drained(spool)
        assert ids(found) == expected, (at, bit)
        status = spool.status()
        assert status.records == len(expected)
        damages = status.slots[0].records.damages
        kept = [disk.content(path)[128:] for path in disk.paths("/spool/0001") if "quarantine" in path]
        if hit is not None:
            assert damages.ranges + damages.torn_tails == 1
            begin = hit.offset if at >= hit.offset else hit.offset - framing
            behind = hit.offset + hit.length
            if not sealed and hit is frames[-1]:  # then it is a torn tail, with all that is behind it
                behind = end
            if at >= hit.offset:  # its group says how long it is: also a zero at its end is kept
                assert kept == [flipped[begin:behind]]
            assert [one.rstrip(b"\0") for one in kept] == [flipped[begin:behind].rstrip(b"\0")]
        elif at < end:
            assert not kept
            assert damages.ranges + damages.torn_tails == 0
            assert together or at < 128
        for waiting in found:
            spool.ack(waiting)
        assert spool.is_empty
        # Nothing holds the keys of the lost one back, and nothing else holds any.
        assert not any(spool.holds_key("topic", b"%d" % number) for number in range(COUNT))


def test_a_zero_filled_tail_is_torn_and_leaves_no_trace() -> None:
    content, frames, _ = _filled(sealed=False)
    for zeros in (1, 27, 28, 60, 5000):
        disk, spool = _opened(content + bytes(zeros))
        assert len(drained(spool)) == len(frames)
        assert not spool.status().slots[0].quarantined
        assert not [path for path in disk.paths() if "quarantine" in path]


def test_a_frame_inside_a_value_is_not_taken_for_a_record() -> None:
    content, frames, _ = _filled(sealed=False)
    inside = content[128:]
    disk, spool = _model()
    spool.append(record(0)).wait()
    spool.append(frames[0].stored.record.__class__("topic", None, inside * 3, (), "outer", 0)).wait()
    spool.append(record(2)).wait()
    abandon(spool)
    hit = disk.content(SEGMENT).index(b"outer")
    broken = bytearray(disk.content(SEGMENT))
    broken[hit] ^= 1
    broken[hit - 30] ^= 1
    disk.put(SEGMENT, bytes(broken))
    assert ids(drained(_again(disk))) == ["id-0", "id-2"]


def test_a_segment_without_a_header_is_moved_aside_and_one_never_begun_is_removed() -> None:
    content, _, _ = _filled(sealed=False)
    for begun in (b"", bytes(1), bytes(128), bytes(4000)):
        disk, _ = _opened(begun)
        assert SEGMENT not in disk.paths()
        assert not [path for path in disk.paths() if "quarantine" in path]
    disk, spool = _opened(b"x" * 128 + content[128:])
    assert spool.status().slots[0].quarantined == ("records-00000000000000000001.seg.0",)
    assert disk.content("/spool/0001/quarantine/records-00000000000000000001.seg.0")[128:] == content[128:]
    assert spool.status().slots[0].records.damages.segments == 1


def test_a_segment_under_another_number_or_of_the_other_kind_is_moved_aside() -> None:
    content, _, _ = _filled(sealed=False)
    disk = ModelFileSystem()
    for folder in ("/spool", "/spool/0001", "/spool/0001/records", "/spool/0001/dead_letters"):
        disk.make_folder(folder)
    disk.put("/spool/0001/records/00000000000000000002.seg", content)
    disk.put("/spool/0001/dead_letters/00000000000000000001.seg", content)
    spool = _again(disk)
    assert drained(spool) == []
    assert len(spool.status().slots[0].quarantined) == 2


def test_files_that_it_does_not_know_stay_and_are_named(tmp_path: Path) -> None:
    spool = quiet(tmp_path)
    spool.append(record(1)).wait()
    spool.stop()
    foreign = tmp_path / "0001" / "records" / "notes.txt"
    foreign.write_text("mine")
    spool = quiet(tmp_path)
    assert spool.status().slots[0].records.foreign == ("notes.txt",)
    for waiting in drained(spool):
        spool.ack(waiting)
    spool.tend()
    spool.stop()
    assert foreign.read_text() == "mine"


@pytest.mark.parametrize("where", ["segment", "cursor"])
def test_a_slot_of_a_newer_version_is_left_untouched(where: str) -> None:
    disk = ModelFileSystem()
    for folder in ("/spool", "/spool/0001", "/spool/0001/records"):
        disk.make_folder(folder)
    if where == "segment":
        header = bytearray(pack_segment_header(1, 1, 1, 0, bytes(8)))
        header[8] = header[72] = 2
        disk.put(SEGMENT, bytes(header) + b"what a newer version put here")
    else:
        disk.put("/spool/0001/records/cursor", b"POSTCURS\x02\x00\xfd\xff" + bytes(500))
    before = {path: disk.content(path) for path in disk.paths()}
    spool = _again(disk)
    assert spool.status().slots[0].name == "0002"
    assert spool.status().newer_slots == ("0001",)
    spool.append(record(1)).wait()
    assert spool.take_over_unclaimed() == 0
    spool.stop()
    assert {path: disk.content(path) for path in before} == before


def test_a_broken_cursor_costs_no_record_and_marks_all_as_sent_before() -> None:
    disk, spool = _model()
    spool.append_many([record(number) for number in range(COUNT)])
    for waiting in drained(spool)[:3]:
        spool.ack(waiting)
    spool.tend()
    abandon(spool)
    path = "/spool/0001/records/cursor"
    good = disk.content(path)
    disk.put(path, b"\xff" * len(good))
    found = drained(_again(disk))
    assert len(found) == COUNT
    assert all(waiting.sent_before for waiting in found)


def test_a_bit_flipped_in_the_cursor_costs_no_record() -> None:
    disk, spool = _model()
    spool.append_many([record(number) for number in range(COUNT)])
    for waiting in drained(spool)[:3]:
        spool.ack(waiting)
    spool.tend()
    abandon(spool)
    path = "/spool/0001/records/cursor"
    good = disk.content(path)
    lock = "/spool/0001/LOCK"
    for bit in range(len(good) * 8):
        flipped = bytearray(good)
        flipped[bit // 8] ^= 1 << bit % 8
        disk.put(path, bytes(flipped))
        disk.put(lock, b"")
        spool = _again(disk)
        found = drained(spool)
        assert ids(found)[-3:] == ["id-3", "id-4", "id-5"]
        assert all(waiting.sent_before for waiting in found)
        abandon(spool)


def test_damage_that_has_no_room_in_quarantine_keeps_its_segment() -> None:
    content, frames, _ = _filled(sealed=True)
    header = parse_segment_header(content[:128])
    assert header is not None
    flipped = bytearray(content)
    flipped[frames[1].offset + 12] ^= 1
    disk = ModelFileSystem()
    for folder in ("/spool", "/spool/0001", "/spool/0001/records"):
        disk.make_folder(folder)
    disk.put(SEGMENT, bytes(flipped))
    spool = _again(disk)
    disk.free_bytes = 100
    found = drained(spool)
    assert len(found) == COUNT - 1
    for waiting in found:
        spool.ack(waiting)
    spool.tend()
    assert disk.content(SEGMENT) == bytes(flipped)
    disk.free_bytes = None
    spool.tend()
    assert SEGMENT not in disk.paths()
    assert spool.status().slots[0].quarantined == (f"1-00000000000000000001-{header.seed:08x}-{frames[1].offset}.bad",)


def test_a_queue_that_lost_its_cursor_drains_and_frees_room_on_a_full_disk() -> None:
    content, _, _ = _filled(sealed=True)
    disk, spool = _opened(content)
    disk.free_bytes = 0
    for waiting in drained(spool):
        assert spool.ack(waiting)
    spool.tend()
    assert SEGMENT not in disk.paths()


def test_a_segment_that_somebody_removed_holds_up_nothing() -> None:
    disk, spool = _model(segment_bytes=400)
    spool.append_many([record(number) for number in range(3)])
    spool.append_many([record(number) for number in range(3, 6)])
    disk.remove(SEGMENT)
    assert ids(drained(spool)) == ["id-3", "id-4", "id-5"]
    assert spool.status().slots[0].records.damages.missing_segments == 1


def test_status_knows_what_stands_in_quarantine_without_asking_a_disk_that_may_hang(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    content, frames, _ = _filled(sealed=False)
    at = frames[2].offset + frames[2].size - 1
    disk, spool = _opened(content[:at] + bytes([content[at] ^ 1]) + content[at + 1 :])
    assert len(drained(spool)) == COUNT - 1

    def hangs(_: str) -> None:
        pytest.fail("who asks for the status waits for the disk")

    with monkeypatch.context() as patch:
        for call in ("entry", "entries", "open_to_read", "space"):
            patch.setattr(disk, call, hangs)
        (name,) = spool.status().slots[0].quarantined
    assert name in disk.entries("/spool/0001/quarantine")
    spool.stop()
    again = _again(disk)
    assert again.status().slots[0].quarantined == (name,)
    disk.unlink(f"/spool/0001/quarantine/{name}")  # as people do who have looked at it
    again.tend()
    assert again.status().slots[0].quarantined == ()
    again.stop()
