"""Goes through the frames of a segment and past what is broken. Reads only, decides nothing about files."""

from __future__ import annotations

import contextlib
from typing import TYPE_CHECKING

import msgspec
from google_crc32c import value as crc32c

from postroom.streaming.spool.footer import END_BYTES, Footer, footer_length, parse_footer
from postroom.streaming.spool.group_format import (
    ENTRY_BYTES,
    FOOTER_KIND,
    HEAD_BYTES,
    copied_group_at,
    find_head,
    parse_head,
    parse_table,
)
from postroom.streaming.spool.record_format import FRAMES_BEGIN, StoredRecord, parse_body

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    from postroom.streaming.spool.file_system import File
    from postroom.streaming.spool.group_format import GroupHead, Table

_CHUNK_BYTES = 256 * 1024
# A file that is looked at while it grows may have more than was read of it ahead: what is not good is read once more.
_LOOKS = 2


class Frame(msgspec.Struct, frozen=True, gc=False):
    """A record whose body is whole: where the body stands and how long it is, its sequence and what was stored."""

    offset: int
    length: int
    sequence: int
    stored: StoredRecord

    @property
    def size(self) -> int:
        """What it counts for: its body, and its entry in the table."""
        return ENTRY_BYTES + self.length


class Damage(msgspec.Struct, frozen=True):
    """A range of bytes that holds no whole frame.

    `at_end` says that no whole frame comes after it: in a segment without a footer that is a torn tail.
    """

    offset: int
    length: int
    at_end: bool


class FrameScan:
    """A position in a segment, and the way on from there.

    `offset` and `next_sequence` are where the next frame is expected, `groups_end` is where the last group ends that
    was found. For one thread at a time.
    """

    __slots__ = (
        "_buffer",
        "_buffer_at",
        "_file",
        "_first",
        "_kind",
        "_seed",
        "_table",
        "groups_end",
        "next_sequence",
        "offset",
    )

    def __init__(self, file: File, *, seed: int, kind: int, next_sequence: int) -> None:
        self._file = file
        self._seed = seed
        self._kind = kind
        self._buffer = b""
        self._buffer_at = 0
        self._table: Table | None = None
        self._first = 0
        self.offset = self.groups_end = FRAMES_BEGIN
        self.next_sequence = next_sequence

    def next(self, end: int, passes: Callable[[int], bool] | None = None) -> Frame | Damage | None:
        """Return the next frame or damaged range before `end` and move on behind it; None when there is no more.

        A frame whose sequence `passes` says True to is passed over, its body unread. `end` is where a group ends, or
        the file.
        """
        while self.offset < end:
            table, offset, sequence = self._table, self.offset, self.next_sequence
            if table is None:
                damage = self._enter(end)
                if damage is not None:
                    return damage
                continue
            index = sequence - self._first
            if index == len(table.lengths):
                self._table, self.offset = None, self.groups_end
                continue
            self.offset, self.next_sequence = offset + table.lengths[index], sequence + 1
            if passes is None or not passes(sequence):
                return self._body(table, index, offset, end)
        return None

    def run(self, end: int) -> Iterator[Frame | Damage]:
        """Give what `next` gives, to the end."""
        while (found := self.next(end)) is not None:
            yield found

    def _body(self, table: Table, index: int, offset: int, end: int) -> Frame | Damage:
        length = table.lengths[index]
        for _ in range(_LOOKS):
            at = self._load(offset, length, end)
            if at is None:
                return self._damaged(offset, end, end)
            body = self._buffer[at : at + length]
            if crc32c(body) == table.checksums[index]:
                with contextlib.suppress(ValueError):
                    return Frame(offset, length, self.next_sequence - 1, parse_body(body))
            self._buffer = b""
        is_last = index + 1 == len(table.lengths) and self.groups_end >= end
        return Damage(offset, length, is_last)

    def _enter(self, end: int) -> Damage | None:
        """Go into the group that begins here; a damaged range where none does that can be read."""
        begin = self.offset
        at = self._load(begin, HEAD_BYTES, end)
        if at is None:
            return self._damaged(begin, end, end)
        head = parse_head(self._seed, self._buffer, at)
        if head is None or head.is_copy or not self._fits(head):
            head, behind = self._resynchronised(begin, end)
            if head is None:
                return self._damaged(begin, behind, end)
        if head.kind == FOOTER_KIND:  # torn, or it would have been found: it can be made again from the frames
            self.offset = end
            return None
        table = self._table_of(head, begin, end)
        if table is None:
            self.next_sequence = head.first_sequence + head.frames
            return self._damaged(begin, min(begin + head.size, end), end)
        self._table, self._first, self.next_sequence = table, head.first_sequence, head.first_sequence
        self.offset = begin + HEAD_BYTES + head.table_bytes
        self.groups_end = min(begin + head.size, end)
        return None

    def _fits(self, head: GroupHead) -> bool:
        return head.first_sequence >= self.next_sequence and head.kind in {self._kind, FOOTER_KIND}

    def _table_of(self, head: GroupHead, begin: int, end: int) -> Table | None:
        """Return the table of the group, from its beginning or from its copy."""
        places = [begin + HEAD_BYTES]
        if head.frames > 1:
            places.append(begin + 2 * HEAD_BYTES + head.table_bytes + head.body_bytes)
        for place in places * _LOOKS:
            at = self._load(place, head.table_bytes, end)
            table = None if at is None else parse_table(head, self._buffer[at : at + head.table_bytes])
            if table is not None:
                return table
            self._buffer = b""
        return None

    def _load(self, offset: int, count: int, end: int) -> int | None:
        """Have `count` bytes from `offset` in the buffer; return where there, None when they are not before `end`."""
        if offset + count > end:
            return None
        at = offset - self._buffer_at
        if at < 0 or at + count > len(self._buffer):
            self._buffer = self._file.read_at(min(max(count, _CHUNK_BYTES), end - offset), offset)
            self._buffer_at = offset
            at = 0
        return at if at + count <= len(self._buffer) else None

    def _damaged(self, start: int, behind: int, end: int) -> Damage:
        self.offset = behind
        return Damage(start, behind - start, behind >= end)

    def _resynchronised(self, begin: int, end: int) -> tuple[GroupHead | None, int]:
        """Return the head of the group at `begin` from its copy, or None and where the next group begins."""
        self._buffer = b""
        rest = self._file.read_at(end - begin, begin)
        found = find_head(self._seed, self._kind, rest, self.next_sequence, copy=False)
        if found is not None:
            if not found[0]:
                return found[1], begin
            rest = rest[: found[0]]
        copied = find_head(self._seed, self._kind, rest, self.next_sequence, copy=True)
        if copied is not None:
            at = copied_group_at(copied[1], copied[0])
            return (copied[1], begin) if not at else (None, begin + at)
        return None, end if found is None else begin + found[0]


def read_footer(file: File, size: int, seed: int) -> tuple[int, int, Footer] | None:
    """Return where the groups end, the sequence after the last frame, and the sums; None without a whole footer."""
    if size < FRAMES_BEGIN + HEAD_BYTES + ENTRY_BYTES + END_BYTES:
        return None
    length = footer_length(file.read_at(END_BYTES, size - END_BYTES))
    if length is None or not HEAD_BYTES + ENTRY_BYTES < length <= size - FRAMES_BEGIN:
        return None
    data = file.read_at(length, size - length)
    head = parse_head(seed, data, 0) if len(data) == length else None
    if head is None or head.kind != FOOTER_KIND or head.size != length:
        return None
    table = parse_table(head, data[HEAD_BYTES : HEAD_BYTES + head.table_bytes])
    body = data[HEAD_BYTES + head.table_bytes :]
    if table is None or (crc32c(body),) != table.checksums:
        return None
    try:
        return size - length, head.first_sequence, parse_footer(body)
    except ValueError:
        return None
