"""Goes through the frames of a segment and past what is broken. Reads only, decides nothing about files."""

from __future__ import annotations

from typing import TYPE_CHECKING

import msgspec
from google_crc32c import value as crc32c

from postroom.streaming.spool.footer import END_BYTES, Footer, footer_length, parse_footer
from postroom.streaming.spool.record_format import (
    FOOTER_KIND,
    FRAME_HEADER_BYTES,
    FRAMES_BEGIN,
    SMALLEST_FRAME_BYTES,
    StoredRecord,
    parse_body,
    parse_frame_header,
)

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    from postroom.streaming.spool.file_system import File
    from postroom.streaming.spool.record_format import FrameHeader

_CHUNK_BYTES = 256 * 1024


class Frame(msgspec.Struct, frozen=True, gc=False):
    """A frame that is whole: where it stands, its bytes on the disk with header, its sequence and its record."""

    offset: int
    size: int
    sequence: int
    stored: StoredRecord


class Damage(msgspec.Struct, frozen=True):
    """A range of bytes that holds no whole frame.

    `at_end` says that no whole frame comes after it: in a segment without a footer that is a torn tail.
    """

    offset: int
    length: int
    at_end: bool


class FrameScan:
    """A position in a segment, and the way on from there.

    `offset` and `next_sequence` are where the next frame is expected. For one thread at a time.
    """

    __slots__ = ("_buffer", "_buffer_at", "_file", "_kind", "_seed", "next_sequence", "offset")

    def __init__(self, file: File, *, seed: int, kind: int, next_sequence: int) -> None:
        self._file = file
        self._seed = seed
        self._kind = kind
        self._buffer = b""
        self._buffer_at = 0
        self.offset = FRAMES_BEGIN
        self.next_sequence = next_sequence

    def next(self, end: int, passes: Callable[[int], bool] | None = None) -> Frame | Damage | None:
        """Return the next frame or damaged range before `end` and move on behind it; None when there is no more.

        A frame whose sequence `passes` says True to is passed over, its body unread.
        """
        while (offset := self.offset) < end:
            at = self._load(offset, FRAME_HEADER_BYTES, end)
            if at is None:
                return self._damaged(offset, end, end)
            header = parse_frame_header(self._seed, self._buffer, at)
            if header is None or header.sequence < self.next_sequence or header.kind not in {self._kind, FOOTER_KIND}:
                return self._damaged(offset, self._resynchronised(offset, end), end)
            if header.kind == FOOTER_KIND:  # torn, or it would have been found: it can be made again from the frames
                self.offset = end
                return None
            self.next_sequence = header.sequence + 1
            behind = offset + FRAME_HEADER_BYTES + header.length
            if passes is None or behind > end or not passes(header.sequence):
                return self._body(header, offset, behind, end)
            self.offset = behind
        return None

    def run(self, end: int) -> Iterator[Frame | Damage]:
        """Give what `next` gives, to the end."""
        while (found := self.next(end)) is not None:
            yield found

    def _body(self, header: FrameHeader, offset: int, behind: int, end: int) -> Frame | Damage:
        at = self._load(offset, behind - offset, end)
        if at is None:
            return self._damaged(offset, end, end)
        body = self._buffer[at + FRAME_HEADER_BYTES : at + behind - offset]
        try:
            stored = parse_body(body, header.attempts) if crc32c(body) == header.body_checksum else None
        except ValueError:
            stored = None
        if stored is None:
            return self._damaged(offset, behind, end)
        self.offset = behind
        return Frame(offset, behind - offset, header.sequence, stored)

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

    def _resynchronised(self, offset: int, end: int) -> int:
        """Return where the next good frame header after the bad one at `offset` stands; `end` if nowhere."""
        rest = self._file.read_at(end - offset, offset)
        marks = bytes((self._kind, 0, 0, 0))  # kind, flags, reserved: these need no checksum to be looked for
        found = rest.find(marks, 13)
        while found >= 0:
            at = found - 12
            header = parse_frame_header(self._seed, rest, at) if at + FRAME_HEADER_BYTES <= len(rest) else None
            if header is not None and 0 <= header.sequence - self.next_sequence <= at // SMALLEST_FRAME_BYTES + 1:
                return offset + at
            found = rest.find(marks, found + 1)
        return end


def read_footer(file: File, size: int, seed: int) -> tuple[int, int, Footer] | None:
    """Return where the frames end, the sequence after the last, and the sums; None without a whole footer."""
    if size < FRAMES_BEGIN + FRAME_HEADER_BYTES + END_BYTES:
        return None
    length = footer_length(file.read_at(END_BYTES, size - END_BYTES))
    if length is None or not FRAME_HEADER_BYTES < length <= size - FRAMES_BEGIN:
        return None
    data = file.read_at(length, size - length)
    header = parse_frame_header(seed, data, 0) if len(data) == length else None
    if header is None or header.kind != FOOTER_KIND or header.length != length - FRAME_HEADER_BYTES:
        return None
    body = data[FRAME_HEADER_BYTES:]
    if crc32c(body) != header.body_checksum:
        return None
    try:
        return size - length, header.sequence, parse_footer(body)
    except ValueError:
        return None
