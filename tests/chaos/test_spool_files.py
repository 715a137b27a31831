"""The plain reader of the spool, shown right on spools that the product wrote, whole and damaged."""

from __future__ import annotations

import struct
from typing import TYPE_CHECKING

import pytest
from google_crc32c import value as crc32c

from postroom.libs.event import Record
from postroom.streaming.spool.record_format import Kind
from postroom.streaming.spool.spool import Spool
from tests.chaos.spool_files import read_spool

if TYPE_CHECKING:
    from pathlib import Path


def record(number: int, *, attempt: int = 1, size: int = 50) -> Record:
    headers = (("ce_id", b"id"), ("h\u00e9", bytes([number % 256])))
    key = None if number % 7 == 3 else f"k{number % 5}".encode()
    return Record("topic", key, b"\1" * size, headers, f"id-{number}", 1_000 + number, attempt)


def spool_of(root: Path) -> Spool:
    """One that does everything in the calling thread."""
    return Spool(root, background=False, segment_bytes=64 * 1024)


def stored_ids(root: Path) -> list[str]:
    return [one.event_id for one in read_spool(root).stored]


def segments(root: Path) -> list[Path]:
    return sorted(root.glob("0001/records/*.seg"))


def test_the_checksum_is_the_one_of_rfc_3720() -> None:
    assert crc32c(b"123456789") == 0xE3069283
    assert crc32c(bytes(32)) == 0x8A9136AA


def test_no_folder_is_an_empty_spool(tmp_path: Path) -> None:
    assert read_spool(tmp_path / "none").stored == []


def test_every_field_comes_back(tmp_path: Path) -> None:
    spool = spool_of(tmp_path)
    spool.start()
    spool.append(record(3, attempt=4), labels=(("type", b"user_event"),)).wait()
    spool.append(record(4), kind=Kind.DEAD_LETTER).wait()
    spool.stop()
    dead, first = sorted(read_spool(tmp_path).stored, key=lambda one: one.queue)
    assert (first.queue, dead.queue) == ("records", "dead_letters")
    assert first.event_id == "id-3"
    assert (first.topic, first.key, first.value) == ("topic", None, b"\1" * 50)
    assert first.headers == (("ce_id", b"id"), ("h\u00e9", b"\3"))
    assert first.labels == (("type", b"user_event"),)
    assert (first.timestamp_ms, first.attempts) == (1_003, 4)
    assert (dead.event_id, dead.key) == ("id-4", b"k4")
    assert not first.is_acknowledged
    assert first.slot == "0001"


def test_order_rotation_and_footers_are_followed(tmp_path: Path) -> None:
    spool = spool_of(tmp_path)
    spool.start()
    for number in range(2_000):
        spool.append(record(number)).wait()
    spool.stop()
    found = read_spool(tmp_path)
    assert len(segments(tmp_path)) > 2
    assert [one.event_id for one in found.stored] == [f"id-{number}" for number in range(2_000)]
    assert [one.sequence for one in found.stored] == sorted({one.sequence for one in found.stored})
    assert (found.torn_tails, found.bad_ranges, found.unknown, len(found.waiting)) == (0, 0, [], 2_000)


def test_acknowledgements_in_any_order_are_seen(tmp_path: Path) -> None:
    spool = spool_of(tmp_path)
    spool.start()
    for number in range(300):
        spool.append(record(number)).wait()
    handed_out = spool.read(Kind.RECORD, max_records=200)
    acknowledged = {one.record.event_id for one in handed_out[:50] + handed_out[60:90:3] + handed_out[199:]}
    for one in handed_out:
        if one.record.event_id in acknowledged:
            assert spool.ack(one)
    spool.tend()
    found = read_spool(tmp_path)  # while the spool is open: its owner does not have to end first
    spool.stop()
    assert {one.event_id for one in found.stored if one.is_acknowledged} == acknowledged
    assert all(one.was_handed_out for one in found.stored[:200])
    assert [one.event_id for one in read_spool(tmp_path).waiting] == [one.event_id for one in found.waiting]


def test_without_a_cursor_nothing_is_acknowledged_and_all_may_have_been_sent(tmp_path: Path) -> None:
    spool = spool_of(tmp_path)
    spool.start()
    for number in range(10):
        spool.append(record(number)).wait()
    for one in spool.read(Kind.RECORD):
        spool.ack(one)
    spool.append(record(10)).wait()
    spool.tend()
    spool.stop()
    cursor = tmp_path / "0001" / "records" / "cursor"
    whole = cursor.read_bytes()
    before = len(read_spool(tmp_path).waiting)
    newer = max((0, 1), key=lambda half: struct.unpack_from("<Q", whole, half * len(whole) // 2 + 16)[0])
    damaged = bytearray(whole)
    damaged[newer * len(whole) // 2 + 30] ^= 1
    cursor.write_bytes(damaged)
    assert len(read_spool(tmp_path).waiting) >= before  # the older one counts
    cursor.unlink()
    found = read_spool(tmp_path)
    assert all(one.was_handed_out and not one.is_acknowledged for one in found.stored)


@pytest.mark.parametrize("where", [4, 30, 40])  # head, table, body
@pytest.mark.parametrize("together", [False, True])
def test_a_flipped_bit_costs_that_record_only(tmp_path: Path, where: int, together: bool) -> None:
    spool = spool_of(tmp_path)
    spool.start()
    for number in range(5):
        spool.append(record(number)).wait()
    if together:
        spool.append_many([record(number) for number in range(5, 20)])[-1].wait()
    else:
        for number in range(5, 20):
            spool.append(record(number)).wait()
    spool.stop()
    [path] = segments(tmp_path)
    data = bytearray(path.read_bytes())
    at = 128
    for _ in range(5):
        at += 36 + struct.unpack_from("<I", data, at + 20)[0]
    if together and where == 40:
        where = 28 + 8 * 15 + 5
    data[at + where] ^= 16
    path.write_bytes(data)
    found = read_spool(tmp_path)
    is_lost = not together or where > 40
    assert [one.event_id for one in found.stored] == [f"id-{n}" for n in range(20) if n != 5 or not is_lost]
    assert (found.bad_ranges, found.torn_tails) == (int(is_lost), 0)


@pytest.mark.parametrize("number", [0, 127, 128, 255, 256, 65_535, 65_536, 2**32 - 1, 2**32, 2**63 - 1])
def test_numbers_and_texts_of_every_length_are_read(tmp_path: Path, number: int) -> None:
    spool = spool_of(tmp_path)
    spool.start()
    size = min(number, 70_000)
    headers = tuple((f"n{n}", b"v") for n in range(min(size, 300)))
    handed_in = [
        Record("t" * min(size, 65_535), b"k" * size, b"v" * size, headers, "i" * size, sign * number)
        for sign in (1, -1)
    ]
    spool.append_many(handed_in)[-1].wait()
    spool.stop()
    found = read_spool(tmp_path).stored
    assert [
        Record(one.topic, one.key, one.value, one.headers, one.event_id, one.timestamp_ms) for one in found
    ] == handed_in


@pytest.mark.parametrize("together", [False, True])
def test_a_torn_tail_ends_the_segment_at_every_cut(tmp_path: Path, together: bool) -> None:
    spool = spool_of(tmp_path)
    spool.start()
    if together:
        spool.append_many([record(number) for number in range(4)])[-1].wait()
    else:
        for number in range(4):
            spool.append(record(number)).wait()
    [path] = segments(tmp_path)
    data = path.read_bytes().rstrip(b"\0")  # what is filled ahead is no part of the last frame
    spool.stop()
    for cut in range(129, len(data)):
        path.write_bytes(data[:cut])
        found = read_spool(tmp_path)
        assert [one.event_id for one in found.stored] == [f"id-{n}" for n in range(len(found.stored))]
        assert together or len(found.stored) < 4
        assert found.bad_ranges == 0
    path.write_bytes(data + bytes(500))
    found = read_spool(tmp_path)
    assert (len(found.stored), found.torn_tails) == (4, 0)


def test_what_the_product_sets_aside_is_shown_with_its_bytes(tmp_path: Path) -> None:
    spool = spool_of(tmp_path)
    spool.start()
    for number in range(20):
        spool.append(record(number)).wait()
    spool.stop()
    [path] = segments(tmp_path)
    data = bytearray(path.read_bytes())
    data[data.index(b"id-7") - 10] ^= 1
    path.write_bytes(data)
    again = spool_of(tmp_path)
    again.start()
    read = [one.record.event_id for one in again.read(Kind.RECORD)]
    again.tend()
    again.stop()
    found = read_spool(tmp_path)
    assert read == [f"id-{number}" for number in range(20) if number != 7]
    [kept] = found.quarantine.values()
    assert b"id-7" in kept


def test_a_file_that_the_specification_does_not_know_is_named(tmp_path: Path) -> None:
    spool = spool_of(tmp_path)
    spool.start()
    spool.append(record(1)).wait()
    spool.stop()
    (tmp_path / "0001" / "notes.txt").write_text("x")
    (tmp_path / "0001" / "records" / "old.seg").write_text("x")
    (tmp_path / "readme").write_text("x")
    assert read_spool(tmp_path).unknown == ["0001/notes.txt", "0001/records/old.seg", "readme"]


def test_a_copied_segment_gives_nothing_under_another_name(tmp_path: Path) -> None:
    spool = spool_of(tmp_path)
    spool.start()
    spool.append(record(1)).wait()
    spool.stop()
    [path] = segments(tmp_path)
    path.with_name("00000000000000009999.seg").write_bytes(path.read_bytes())
    assert stored_ids(tmp_path) == ["id-1"]
