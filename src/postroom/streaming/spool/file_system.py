"""The operating system's files as the spool uses them: a protocol of few words, so that a model can stand in.

Paths are texts. Everything raises OSError as the operating system does; the spool decides what that means.
"""

from __future__ import annotations

import contextlib
import errno
import fcntl
import os
import stat
from enum import Enum
from typing import Protocol

_READ_FLAGS = os.O_RDONLY
_WRITE_FLAGS = os.O_RDWR
_CREATE_FLAGS = os.O_RDWR | os.O_CREAT | os.O_EXCL


class Entry(Enum):
    """What a name in a folder stands for."""

    ABSENT = "absent"
    FILE = "file"
    FOLDER = "folder"
    FOREIGN = "foreign"  # a link, a device, or somebody else's


class File(Protocol):
    """An open file."""

    def write_at(self, data: bytes, offset: int) -> int:
        """Write what can be written of `data` at `offset`; return how many bytes that was."""
        ...

    def read_at(self, count: int, offset: int) -> bytes:
        """Return up to `count` bytes from `offset` on, fewer only at the end of the file."""
        ...

    def size(self) -> int:
        """Return the length in bytes."""
        ...

    def truncate(self, size: int) -> None:
        """Cut or lengthen the file to `size` bytes."""
        ...

    def sync(self) -> None:
        """Return once the content and the size would survive a power cut."""
        ...

    def try_lock(self) -> bool:
        """Take the file's lock for as long as the file is open; False when somebody else has it."""
        ...

    def close(self) -> None:
        """Let go of the file. Calling it again does nothing."""
        ...


class FileSystem(Protocol):
    """Folders and names."""

    def open_to_read(self, path: str) -> File:
        """Open an existing file for reading."""
        ...

    def open_to_write(self, path: str) -> File:
        """Open an existing file for reading and writing."""
        ...

    def create(self, path: str) -> File:
        """Make a file that must not exist, readable by its owner only, and open it for reading and writing."""
        ...

    def make_folder(self, path: str) -> None:
        """Make a folder that must not exist, for its owner only."""
        ...

    def entries(self, path: str) -> list[str]:
        """Return the names in a folder."""
        ...

    def entry(self, path: str) -> Entry:
        """Say what `path` is, without following a link."""
        ...

    def unlink(self, path: str) -> None:
        """Remove the name of a file."""
        ...

    def rename(self, old: str, new: str) -> None:
        """Give a file another name, in place of one that has it."""
        ...

    def sync_folder(self, path: str) -> None:
        """Return once the names in the folder would survive a power cut."""
        ...

    def space(self, path: str) -> tuple[int, int]:
        """Return the size of the file system that holds `path` and what of it we may still fill, in bytes."""
        ...


_open_files: dict[int, OsFile] = {}


class OsFile:
    """A descriptor that a forked child does not keep: there it is closed before anything else runs."""

    __slots__ = ("_descriptor", "_link")

    def __init__(self, descriptor: int) -> None:
        self._descriptor = descriptor
        self._link = f"/proc/self/fd/{descriptor}"
        _open_files[descriptor] = self

    def write_at(self, data: bytes, offset: int) -> int:
        """See File."""
        return os.pwrite(self._descriptor, data, offset)

    def read_at(self, count: int, offset: int) -> bytes:
        """See File."""
        data = os.pread(self._descriptor, count, offset)
        while data and len(data) < count:  # one call gives at most 2 GiB, and fewer on some file systems
            more = os.pread(self._descriptor, count - len(data), offset + len(data))
            if not more:
                break
            data += more
        return data

    def size(self) -> int:
        """See File."""
        return os.fstat(self._descriptor).st_size

    def truncate(self, size: int) -> None:
        """See File."""
        os.ftruncate(self._descriptor, size)

    def sync(self) -> None:
        """See File. Raises ESTALE for a file whose name somebody has removed: it would be gone with this process."""
        _sync_data(self._descriptor)
        if not self._has_name():
            raise OSError(errno.ESTALE, os.strerror(errno.ESTALE))

    def _has_name(self) -> bool:
        # Not by fstat alone: since Linux 6.13, when somebody has asked for the times of a file, the next write notes a
        # new one, and the sync behind it takes 170 us instead of 120 (ext4).
        with contextlib.suppress(OSError):  # there is no /proc
            if not os.readlink(self._link).endswith(" (deleted)"):  # noqa: PTH115 - paths are texts here
                return True
        return bool(os.fstat(self._descriptor).st_nlink)

    def try_lock(self) -> bool:
        """See File. A `flock`: it belongs to the open file and ends when the last descriptor of it is closed."""
        try:
            fcntl.flock(self._descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            return False
        return True

    def close(self) -> None:
        """See File."""
        descriptor, self._descriptor = self._descriptor, -1
        if _open_files.pop(descriptor, None) is not None:
            os.close(descriptor)


def _sync_data(descriptor: int) -> None:
    # macOS has no fdatasync, and its fsync stops at the drive's cache.
    if hasattr(os, "fdatasync"):
        os.fdatasync(descriptor)
    elif hasattr(fcntl, "F_FULLFSYNC"):
        fcntl.fcntl(descriptor, fcntl.F_FULLFSYNC)
    else:
        os.fsync(descriptor)


def _close_in_child() -> None:
    # Closing, never unlocking: LOCK_UN in the child would free the lock of the parent.
    for file in list(_open_files.values()):
        file.close()


os.register_at_fork(after_in_child=_close_in_child)


class OsFileSystem:
    """The file system of the machine. Follows no link in the last part of a path; 0700 and 0600 for what it makes."""

    __slots__ = ()

    def open_to_read(self, path: str) -> OsFile:
        """See FileSystem."""
        return self._open(path, _READ_FLAGS)

    def open_to_write(self, path: str) -> OsFile:
        """See FileSystem."""
        return self._open(path, _WRITE_FLAGS)

    def create(self, path: str) -> OsFile:
        """See FileSystem."""
        return self._open(path, _CREATE_FLAGS)

    def make_folder(self, path: str) -> None:
        """See FileSystem."""
        os.mkdir(path, 0o700)  # noqa: PTH102 - paths are texts here

    def entries(self, path: str) -> list[str]:
        """See FileSystem."""
        return os.listdir(path)  # noqa: PTH208 - paths are texts here

    def entry(self, path: str) -> Entry:
        """See FileSystem."""
        try:
            found = os.lstat(path)
        except FileNotFoundError:
            return Entry.ABSENT
        if found.st_uid != os.geteuid():
            return Entry.FOREIGN
        if stat.S_ISREG(found.st_mode):
            return Entry.FILE
        return Entry.FOLDER if stat.S_ISDIR(found.st_mode) else Entry.FOREIGN

    def unlink(self, path: str) -> None:
        """See FileSystem."""
        os.unlink(path)  # noqa: PTH108 - paths are texts here

    def rename(self, old: str, new: str) -> None:
        """See FileSystem."""
        os.rename(old, new)  # noqa: PTH104 - paths are texts here

    def sync_folder(self, path: str) -> None:
        """See FileSystem."""
        descriptor = os.open(path, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
        try:
            os.fsync(descriptor)
        finally:
            os.close(descriptor)

    def space(self, path: str) -> tuple[int, int]:
        """See FileSystem."""
        found = os.statvfs(path)
        return found.f_blocks * found.f_frsize, found.f_bavail * found.f_frsize

    def _open(self, path: str, flags: int) -> OsFile:
        return OsFile(os.open(path, flags | os.O_NOFOLLOW | os.O_CLOEXEC, 0o600))
