"""What was acknowledged and what was handed out, in a file that needs no free byte to be written."""

from __future__ import annotations

import contextlib
import struct
from typing import TYPE_CHECKING

import msgspec
from google_crc32c import value as crc32c

from postroom.streaming.spool.record_format import VERSION
from postroom.streaming.spool.segments import write_all

if TYPE_CHECKING:
    from collections.abc import Iterable

    from postroom.streaming.spool.file_system import File, FileSystem

CURSOR_MAGIC = b"POSTCURS"
CURSOR_NAME = "cursor"

_HEAD = struct.Struct("<8sHHI")
_STATE = struct.Struct("<QQI")
_ENTRY = struct.Struct("<QIII")
_BEGIN = _HEAD.size + _STATE.size


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
        self._file_system = file_system
        self._folder = folder
        self._path = f"{folder}/{CURSOR_NAME}"
        self._slot_bytes = slot_bytes
        self._file: File | None = None
        self._generation = 0

    def load(self, *, is_there: bool) -> CursorState:
        """Read the file if it is there; return the newer of its whole slots, or the empty state."""
        if not is_there:
            return CursorState()
        try:
            file = self._file_system.open_to_write(self._path)
        except OSError:  # as good as broken; a new one is made beside it at the first write
            return CursorState()
        try:
            slot_bytes = file.size() // 2
            slots = [file.read_at(slot_bytes, start) for start in (0, slot_bytes)]
        except OSError:
            file.close()
            return CursorState()
        if slot_bytes == self._slot_bytes:
            self._file = file
        else:  # made with another size: the first write puts a new one in its place
            file.close()
        state = max(map(_parsed, slots), key=lambda found: found.generation)
        self._generation = state.generation
        return state

    def write(self, handed_out: int, entries: Iterable[AckEntry]) -> None:
        """Make this the state after a power cut. Entries beyond the room are left out, the last first.

        Raises OSError when neither the file nor a new one in its place can be written.
        """
        packed, room = [], self._slot_bytes - _BEGIN
        for entry in entries:
            data = _ENTRY.pack(entry.segment_id, entry.seed, entry.low, len(entry.bitmap)) + entry.bitmap
            if len(data) > room:
                break
            room -= len(data)
            packed.append(data)
        body = b"".join(packed)
        checked = _STATE.pack(self._generation + 1, handed_out, len(body)) + body
        data = _HEAD.pack(CURSOR_MAGIC, VERSION, VERSION ^ 0xFFFF, crc32c(checked)) + checked
        if self._file is None or not self._overwritten(self._file, data):
            self._replace(data)
        self._generation += 1

    @property
    def is_there(self) -> bool:
        """True when the file exists with all its room."""
        return self._file is not None

    def close(self) -> None:
        """Let go of the file."""
        if self._file is not None:
            self._file.close()
            self._file = None

    def _overwritten(self, file: File, data: bytes) -> bool:
        try:
            write_all(file, data, (self._generation + 1) % 2 * self._slot_bytes)
            file.sync()
        except OSError:
            return False
        return True

    def _replace(self, data: bytes) -> None:
        self.close()
        new_path = f"{self._path}.new"
        with contextlib.suppress(FileNotFoundError):
            self._file_system.unlink(new_path)
        file = self._file_system.create(new_path)
        try:
            slots = [bytes(self._slot_bytes)] * 2
            slots[(self._generation + 1) % 2] = data.ljust(self._slot_bytes, b"\0")
            write_all(file, b"".join(slots), 0)
            file.sync()
            self._file_system.rename(new_path, self._path)
            self._file_system.sync_folder(self._folder)
        except OSError:
            file.close()
            raise
        self._file = file


def is_newer_cursor(data: bytes) -> bool:
    """True for the beginning of a cursor of a newer version: the number and its complement, so no flipped bit."""
    version, complement = int.from_bytes(data[8:10], "little"), int.from_bytes(data[10:12], "little")
    return data.startswith(CURSOR_MAGIC) and version > VERSION and version ^ complement == 0xFFFF


def _parsed(slot: bytes) -> CursorState:
    if len(slot) < _BEGIN:
        return CursorState()
    magic, version, _, checksum = _HEAD.unpack_from(slot)
    generation, handed_out, entry_bytes = _STATE.unpack_from(slot, _HEAD.size)
    checked = slot[_HEAD.size : _BEGIN + entry_bytes]
    if magic != CURSOR_MAGIC or version != VERSION or _BEGIN + entry_bytes > len(slot) or crc32c(checked) != checksum:
        return CursorState()
    entries, at = [], _BEGIN
    while at < _BEGIN + entry_bytes:
        segment_id, seed, low, bitmap_bytes = _ENTRY.unpack_from(slot, at)
        at += _ENTRY.size
        entries.append(AckEntry(segment_id, seed, low, slot[at : (at := at + bitmap_bytes)]))
    return CursorState(generation, handed_out, tuple(entries))
