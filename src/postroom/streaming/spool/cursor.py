"""What was acknowledged and what was handed out, in a file that needs no free byte to be written."""

from __future__ import annotations

import struct
from typing import TYPE_CHECKING

import msgspec

from postroom.streaming.spool.two_slot_file import Content, TwoSlotFile, newest

if TYPE_CHECKING:
    from collections.abc import Iterable

    from postroom.streaming.spool.file_system import FileSystem

CURSOR_MAGIC = b"POSTCURS"
CURSOR_NAME = "cursor"

_ENTRY = struct.Struct("<QIII")


class AckEntry(msgspec.Struct, frozen=True):
    """What is acknowledged in the segment with this id and seed: `low` frames from the first on, then the bitmap."""

    segment_id: int
    seed: int
    low: int
    bitmap: bytes


class CursorState(msgspec.Struct, frozen=True):
    """What a cursor file says. `generation` 0 is no cursor at all."""

    generation: int = 0
    handed_out: int = 0
    entries: tuple[AckEntry, ...] = ()


class Cursor:
    """The cursor file of one queue. Its caller holds a lock."""

    def __init__(self, file_system: FileSystem, folder: str, *, slot_bytes: int) -> None:
        self._file = TwoSlotFile(file_system, folder, CURSOR_NAME, magic=CURSOR_MAGIC, slot_bytes=slot_bytes)

    def load(self, *, is_there: bool) -> CursorState:
        """Read the file if it is there; return the newer of its whole slots, or the empty state."""
        return _state(self._file.load(is_there=is_there))

    def write(self, handed_out: int, entries: Iterable[AckEntry]) -> None:
        """Make this the state after a power cut. Entries beyond the room are left out, the last first.

        Raises OSError when neither the file nor a new one in its place can be written.
        """
        packed, room = [], self._file.room
        for entry in entries:
            data = _ENTRY.pack(entry.segment_id, entry.seed, entry.low, len(entry.bitmap)) + entry.bitmap
            if len(data) > room:
                break
            room -= len(data)
            packed.append(data)
        self._file.write(handed_out, b"".join(packed))

    @property
    def is_there(self) -> bool:
        """True when the file exists with all its room."""
        return self._file.is_there

    def close(self) -> None:
        """Let go of the file."""
        self._file.close()


def parse_cursor(data: bytes) -> CursorState:
    """Return what the bytes of a cursor file say."""
    return _state(newest(data, CURSOR_MAGIC))


def _state(content: Content) -> CursorState:
    body, entries, at = content.body, [], 0
    while at < len(body):
        segment_id, seed, low, bitmap_bytes = _ENTRY.unpack_from(body, at)
        at += _ENTRY.size
        entries.append(AckEntry(segment_id, seed, low, body[at : (at := at + bitmap_bytes)]))
    return CursorState(content.generation, content.value, tuple(entries))
