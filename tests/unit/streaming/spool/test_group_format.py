"""Groups of frames: whatever is hit, each body that is whole is found, and nothing that was never written."""

from __future__ import annotations

from itertools import islice
from typing import TYPE_CHECKING

import pytest
from hypothesis import given
from hypothesis import strategies as st

from postroom.libs.event import Record
from postroom.streaming.spool.frame_scan import Damage, Frame, FrameScan
from postroom.streaming.spool.group_format import (
    ENTRY_BYTES,
    HEAD_BYTES,
    GroupHead,
    group_bytes,
    pack_group,
    parse_head,
    parse_table,
)
from postroom.streaming.spool.record_format import FRAMES_BEGIN, pack_bodies
from postroom.testing.model_file_system import ModelFileSystem

if TYPE_CHECKING:
    from collections.abc import Callable

SEED = 0x5EED
BODIES = st.lists(st.binary(max_size=40), min_size=1, max_size=20)
GROUPS = st.lists(st.integers(1, 6), min_size=1, max_size=5)


def _groups(counts: list[int], value: bytes = b"v") -> tuple[bytes, list[bytes]]:
    """Groups of so many records each, as they stand in a segment, and the bodies."""
    data = bytes(FRAMES_BEGIN)
    bodies: list[bytes] = []
    for count in counts:
        first = len(bodies) + 1
        some = pack_bodies([Record("t", None, value, (), f"id-{first + n}", 0) for n in range(count)], (), 0)
        data += pack_group(SEED, 1, first, some)
        bodies += some
    return data, bodies


def _scanned(data: bytes, passes: Callable[[int], bool] | None = None) -> list[Frame | Damage]:
    disk = ModelFileSystem()
    disk.make_folder("/d")
    disk.put("/d/f", data)
    scan, found = FrameScan(disk.open_to_read("/d/f"), seed=SEED, kind=1, next_sequence=1), []
    while (one := scan.next(len(data), passes)) is not None:
        found.append(one)
    return found


def _sequences(found: list[Frame | Damage]) -> list[int]:
    return [one.sequence for one in found if isinstance(one, Frame)]


@given(GROUPS, st.data())
def test_a_file_that_grows_while_it_is_read_is_read_to_its_end(counts: list[int], draw: st.DataObject) -> None:
    """What was read of it ahead, zeros for one, is no word about what stands there when its turn comes."""
    data, bodies = _groups(counts)
    there = draw.draw(st.integers(FRAMES_BEGIN, len(data)))
    disk = ModelFileSystem()
    disk.make_folder("/d")
    disk.put("/d/f", data[:there] + bytes(len(data) - there))
    file = disk.open_to_read("/d/f")
    scan = FrameScan(file, seed=SEED, kind=1, next_sequence=1)
    found: list[Frame | Damage] = []
    passed = draw.draw(st.integers(0, len(bodies)))
    while len(found) <= 2 * len(bodies):
        if len(found) == passed:
            disk.put("/d/f", data)
            file = disk.open_to_read("/d/f")
            scan._file = file  # the model has no file that one writes while another reads it
        if (one := scan.next(len(data))) is None:
            break
        found.append(one)
    assert len(found) <= 2 * len(bodies), "it goes on for ever"
    if not any(isinstance(one, Damage) for one in found[:passed]):
        assert _sequences(found) == list(range(1, len(bodies) + 1))


@given(st.integers(0, 2**32 - 1), st.sampled_from([1, 2, 255]), st.integers(1, 2**63), BODIES)
def test_a_group_gives_back_what_it_was_made_of(seed: int, kind: int, first: int, bodies: list[bytes]) -> None:
    group = pack_group(seed, kind, first, bodies)
    head = parse_head(seed, group, 0)
    assert head is not None
    assert (head.kind, head.is_copy, head.first_sequence, head.frames) == (kind, False, first, len(bodies))
    assert head.size == len(group) == group_bytes(len(bodies), sum(map(len, bodies)))
    table = parse_table(head, group[HEAD_BYTES : HEAD_BYTES + head.table_bytes])
    assert table is not None
    assert table.lengths == tuple(map(len, bodies))
    if len(bodies) > 1:
        at = len(group) - HEAD_BYTES - head.table_bytes
        copy = parse_head(seed, group, at)
        assert copy == GroupHead(kind, True, first, len(bodies), head.body_bytes, head.table_checksum)
        assert group[at + HEAD_BYTES :] == group[HEAD_BYTES : HEAD_BYTES + head.table_bytes]


@given(GROUPS, st.sets(st.integers(1, 30)))
def test_frames_are_found_in_order_and_those_that_pass_are_passed_over(counts: list[int], passed: set[int]) -> None:
    data, bodies = _groups(counts)
    found = _scanned(data, passed.__contains__)
    assert _sequences(found) == [number for number in range(1, len(bodies) + 1) if number not in passed]
    assert len(found) == len(_sequences(found))


@given(GROUPS, st.data())
def test_a_range_of_garbage_costs_only_the_bodies_it_touches_while_a_head_or_its_copy_is_whole(
    counts: list[int], draw: st.DataObject
) -> None:
    data, bodies = _groups(counts)
    begin = draw.draw(st.integers(FRAMES_BEGIN, len(data) - 1))
    garbage = draw.draw(st.binary(min_size=1, max_size=120))[: len(data) - begin]
    hit = data[:begin] + garbage + data[begin + len(garbage) :]
    expected, at, first = [], FRAMES_BEGIN, 1
    for count in counts:
        framing = HEAD_BYTES + ENTRY_BYTES * count
        lengths = [len(body) for body in bodies[first - 1 : first - 1 + count]]
        front, behind = slice(at, at + framing), at + framing + sum(lengths)
        whole = hit[front] == data[front]
        if count > 1:
            whole = whole or hit[behind : behind + framing] == data[behind : behind + framing]
        place = at + framing
        for number, length in enumerate(lengths, first):
            if whole and hit[place : place + length] == data[place : place + length]:
                expected.append(number)
            place += length
        at += group_bytes(count, sum(lengths))
        first += count
    found = _scanned(hit)
    # A table and a head that are each whole, one before and one behind, do as well: then there are more.
    assert set(expected) <= set(_sequences(found))
    assert _sequences(found) == sorted(set(_sequences(found)))
    assert all(one.stored.record.event_id == f"id-{one.sequence}" for one in found if isinstance(one, Frame))
    for one in found:
        assert one.offset >= FRAMES_BEGIN
        assert one.length > 0
        assert one.offset + one.length <= len(hit)


@given(GROUPS, st.data())
def test_a_cut_gives_every_body_before_it_and_ends(counts: list[int], draw: st.DataObject) -> None:
    data, bodies = _groups(counts)
    cut = draw.draw(st.integers(FRAMES_BEGIN, len(data)))
    zeros = draw.draw(st.integers(0, 200))
    whole = [one.sequence for one in _scanned(data) if isinstance(one, Frame) and one.offset + one.length <= cut]
    assert _sequences(_scanned(data[:cut])) == whole
    # What is filled ahead may stand behind a torn group: a body that ends in zeros is then whole again.
    assert _sequences(_scanned(data[:cut] + bytes(zeros)))[: len(whole)] == whole
    assert len(bodies) >= len(whole)


def test_a_group_inside_a_value_is_only_found_where_its_sequence_can_follow() -> None:
    inner = pack_group(SEED, 1, 1_000, pack_bodies([Record("t", None, None, (), "inner", 0)] * 3, (), 0))
    data, _ = _groups([2, 1], value=inner)
    broken = bytearray(data)
    broken[FRAMES_BEGIN] ^= 1  # the first group is read by its copy
    assert _sequences(_scanned(bytes(broken))) == [1, 2, 3]


class BeingWritten:
    """A file of which one group was not there yet at the first reading."""

    def __init__(self, whole: bytes, begin: int, end: int) -> None:
        self._whole = whole
        self._at_first: bytes | None = whole[:begin] + bytes(end - begin) + whole[end:]

    def read_at(self, count: int, offset: int) -> bytes:
        data, self._at_first = self._whole if self._at_first is None else self._at_first, None
        return data[offset : offset + count]


@pytest.mark.parametrize("number", [0, 1, 2])
def test_a_group_that_gets_whole_while_it_is_read_is_read_and_the_reading_ends(number: int) -> None:
    """Found in its place at the second look, it was damage of no bytes, again and again, without end."""
    data, bodies = _groups([2, 1, 3])
    ends = [len(_groups([2, 1, 3][:count])[0]) for count in range(4)]
    file = BeingWritten(data, ends[number], ends[number + 1])
    scan = FrameScan(file, seed=SEED, kind=1, next_sequence=1)  # type: ignore[arg-type]  # all that is asked of a file
    found = list(islice(scan.run(len(data)), 50))
    assert _sequences(found) == list(range(1, len(bodies) + 1))
    assert len(found) == len(bodies)
