"""A small file that is always whole: two slots, of which the older one is overwritten. Needs no free byte."""

from __future__ import annotations

import contextlib
import struct
from typing import TYPE_CHECKING

import msgspec
from google_crc32c import value as crc32c

from postroom.streaming.spool.record_format import VERSION
from postroom.streaming.spool.segments import write_all

if TYPE_CHECKING:
    from postroom.streaming.spool.file_system import File, FileSystem

_HEAD = struct.Struct("<8sHHI")
_STATE = struct.Struct("<QQI")
BODY_BEGINS = _HEAD.size + _STATE.size


class Content(msgspec.Struct, frozen=True):
    """What a slot says: a number and some bytes. `generation` 0 is no slot at all."""

    generation: int = 0
    value: int = 0
    body: bytes = b""


class TwoSlotFile:
    """One such file, with slots of `slot_bytes` bytes. Its caller holds a lock."""

    def __init__(self, file_system: FileSystem, folder: str, name: str, *, magic: bytes, slot_bytes: int) -> None:
        self._file_system = file_system
        self._folder = folder
        self._path = f"{folder}/{name}"
        self._magic = magic
        self._slot_bytes = slot_bytes
        self._file: File | None = None
        self._generation = 0
        self.room = slot_bytes - BODY_BEGINS

    def load(self, *, is_there: bool) -> Content:
        """Read the file if it is there; return the newer of its whole slots, or empty content."""
        if not is_there:
            return Content()
        try:
            file = self._file_system.open_to_write(self._path)
        except OSError:  # as good as broken; a new one is made beside it at the first write
            return Content()
        try:
            size = file.size()
            content = newest(file.read_at(size, 0), self._magic)
        except OSError:
            file.close()
            return Content()
        if size == 2 * self._slot_bytes:
            self._file = file
        else:  # made with another size: the first write puts a new one in its place
            file.close()
        self._generation = content.generation
        return content

    def write(self, value: int, body: bytes) -> None:
        """Make this the content after a power cut; `body` has `room` bytes at most.

        Raises OSError when neither the file nor a new one in its place can be written.
        """
        checked = _STATE.pack(self._generation + 1, value, len(body)) + body
        data = _HEAD.pack(self._magic, VERSION, VERSION ^ 0xFFFF, crc32c(checked)) + checked
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


def newest(data: bytes, magic: bytes) -> Content:
    """Return the newer of the whole slots in a file's bytes, or empty content."""
    half = len(data) // 2
    return max((_parsed(data[start : start + half], magic) for start in (0, half)), key=lambda found: found.generation)


def is_newer_file(data: bytes, magic: bytes) -> bool:
    """True for the beginning of a slot of a newer version: the number and its complement, so no flipped bit."""
    version, complement = int.from_bytes(data[8:10], "little"), int.from_bytes(data[10:12], "little")
    return data.startswith(magic) and version > VERSION and version ^ complement == 0xFFFF


def _parsed(slot: bytes, wanted_magic: bytes) -> Content:
    if len(slot) < BODY_BEGINS:
        return Content()
    magic, version, _, checksum = _HEAD.unpack_from(slot)
    generation, value, body_bytes = _STATE.unpack_from(slot, _HEAD.size)
    end = BODY_BEGINS + body_bytes
    if magic != wanted_magic or version != VERSION or end > len(slot) or crc32c(slot[_HEAD.size : end]) != checksum:
        return Content()
    return Content(generation, value, slot[BODY_BEGINS:end])
