"""A file system that breaks when a fault script says so: for the disk of a spool under test."""

from __future__ import annotations

import errno
from typing import TYPE_CHECKING

from postroom.streaming.spool.cursor import CURSOR_NAME
from postroom.streaming.spool.file_system import OsFileSystem
from postroom.streaming.spool.record_format import FRAMES_BEGIN, Kind
from postroom.streaming.spool.segments import segment_id_of

if TYPE_CHECKING:
    from postroom.streaming.spool.file_system import Entry, File, FileSystem
    from postroom.testing.fault_script import DiskOperation, FaultScript

# The kind of a group stands at this byte: a footer, and room that is filled ahead, hold no records.
_KIND_AT = 4
_KINDS = {bytes([kind]) for kind in Kind}


class FaultyFileSystem:
    """Obeys `faults`, and lets `inner` (the machine's, where it is not given) do the work."""

    def __init__(self, faults: FaultScript, inner: FileSystem | None = None) -> None:
        self._faults = faults
        self._inner: FileSystem = OsFileSystem() if inner is None else inner
        faults.has_disk()

    def open_to_read(self, path: str) -> FaultyFile:
        """See FileSystem."""
        self._meet("open", path)
        return FaultyFile(self._faults, self._inner.open_to_read(path), path)

    def open_to_write(self, path: str) -> FaultyFile:
        """See FileSystem."""
        self._meet("open", path)
        return FaultyFile(self._faults, self._inner.open_to_write(path), path)

    def create(self, path: str) -> FaultyFile:
        """See FileSystem."""
        self._meet("create", path)
        return FaultyFile(self._faults, self._inner.create(path), path)

    def make_folder(self, path: str) -> None:
        """See FileSystem."""
        self._meet("make_folder", path)
        self._inner.make_folder(path)

    def entries(self, path: str) -> list[str]:
        """See FileSystem."""
        self._meet("entries", path)
        return self._inner.entries(path)

    def entry(self, path: str) -> Entry:
        """See FileSystem."""
        return self._inner.entry(path)

    def unlink(self, path: str) -> None:
        """See FileSystem."""
        self._meet("unlink", path)
        is_segment = _is_segment(path)
        if is_segment:
            self._faults.reached("before_unlink")
        self._inner.unlink(path)
        if is_segment:
            self._faults.reached("after_unlink")

    def rename(self, old: str, new: str) -> None:
        """See FileSystem."""
        self._meet("rename", old)
        self._inner.rename(old, new)

    def sync_folder(self, path: str) -> None:
        """See FileSystem."""
        self._meet("sync_folder", path)
        self._inner.sync_folder(path)

    def space(self, path: str) -> tuple[int, int]:
        """See FileSystem. A full disk has no more free than its script leaves it."""
        total, free = self._inner.space(path)
        left = self._faults.free_bytes
        return total, free if left is None else min(free, left)

    def _meet(self, operation: DiskOperation, path: str) -> None:
        error = self._faults.disk_refusal(operation, path)
        if error is not None:
            raise error


class FaultyFile:
    """An open file of a `FaultyFileSystem`. See `File` for the methods.

    A segment that is filled ahead with zeros gets no room by that: a full disk refuses the next record, and not some
    record a mebibyte later.
    """

    __slots__ = ("_content_end", "_faults", "_inner", "_is_cursor", "_is_segment", "_path")

    def __init__(self, faults: FaultScript, inner: File, path: str) -> None:
        self._faults = faults
        self._inner = inner
        self._path = path
        self._is_segment = _is_segment(path)
        self._is_cursor = path.rpartition("/")[2].startswith(CURSOR_NAME)
        self._content_end = inner.size() if self._is_segment else 0

    def write_at(self, data: bytes, offset: int) -> int:
        """See File. Writes less where the script says so, and raises ENOSPC where nothing fits."""
        self._meet("write")
        is_filling = self._is_segment and data.count(0) == len(data)
        begin = self._content_end if self._is_segment else self._inner.size()
        growth = 0 if is_filling else max(0, offset + len(data) - begin)
        room = self._faults.disk_room(len(data), growth)
        if data and not room:
            raise OSError(errno.ENOSPC, errno.errorcode[errno.ENOSPC], self._path)
        are_records = self._is_segment and offset >= FRAMES_BEGIN and data[_KIND_AT : _KIND_AT + 1] in _KINDS
        if are_records:
            self._faults.reached("before_append")
        elif self._is_cursor:
            self._faults.reached("before_cursor")
        written = self._inner.write_at(data[:room], offset)
        if not is_filling:
            self._content_end = max(self._content_end, offset + written)
        if are_records:
            self._faults.reached("after_append")
        return written

    def read_at(self, count: int, offset: int) -> bytes:
        """See File."""
        self._meet("read")
        return self._inner.read_at(count, offset)

    def size(self) -> int:
        """See File."""
        return self._inner.size()

    def truncate(self, size: int) -> None:
        """See File."""
        self._meet("truncate")
        self._inner.truncate(size)
        self._content_end = min(self._content_end, size)

    def sync(self) -> None:
        """See File."""
        self._meet("sync")
        if self._is_segment:
            self._faults.reached("before_sync")
        self._faults.wait_for_disk()
        self._inner.sync()
        if self._is_segment:
            self._faults.reached("after_sync")
        elif self._is_cursor:
            self._faults.reached("after_cursor")

    def try_lock(self) -> bool:
        """See File."""
        return self._inner.try_lock()

    def close(self) -> None:
        """See File."""
        self._inner.close()

    def _meet(self, operation: DiskOperation) -> None:
        error = self._faults.disk_refusal(operation, self._path)
        if error is not None:
            raise error


def _is_segment(path: str) -> bool:
    return segment_id_of(path.rpartition("/")[2]) is not None
