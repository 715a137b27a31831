"""Which folder under the root belongs to which process."""

from __future__ import annotations

import contextlib
import re
from typing import TYPE_CHECKING

from postroom.libs.exceptions import SpoolUnavailableError
from postroom.streaming.spool.cursor import CURSOR_MAGIC, CURSOR_NAME
from postroom.streaming.spool.file_system import Entry
from postroom.streaming.spool.record_format import FRAMES_BEGIN, Kind, is_newer_segment
from postroom.streaming.spool.segments import segment_id_of, write_all
from postroom.streaming.spool.trials import TRIAL_MAGIC, TRIAL_NAME
from postroom.streaming.spool.two_slot_file import is_newer_file

if TYPE_CHECKING:
    from collections.abc import Iterator

    from postroom.streaming.spool.file_system import File, FileSystem

QUEUE_FOLDERS = {Kind.RECORD: "records", Kind.DEAD_LETTER: "dead_letters"}

LOCK_NAME = "LOCK"
QUARANTINE_NAME = "quarantine"
NEIGHBOUR_NAME = "contracts"  # in the root: the registry's last answers, see docs/specs/contract-copies.md
_MAGICS = {CURSOR_NAME: CURSOR_MAGIC, TRIAL_NAME: TRIAL_MAGIC}
_NAME = re.compile(r"[0-9]{4}")
MOST_SLOTS = 9999


class Slot:
    """A folder that is ours until `release`, or until this process ends."""

    def __init__(self, path: str, lock: File) -> None:
        self.path = path
        self.name = path.rpartition("/")[2]
        self._lock = lock

    def release(self) -> None:
        """Let others have it."""
        self._lock.close()


class Slots:
    """The slots under one root. `newer` names those that only a newer version can read."""

    def __init__(self, file_system: FileSystem, root: str, *, owner: str) -> None:
        self._file_system = file_system
        self._root = root
        self._owner = owner
        self.newer: tuple[str, ...] = ()

    def claim(self) -> Iterator[Slot]:
        """Take a slot that nobody has: one with records, else an empty one, else a new one. Raises OSError.

        Who asks for another one cannot open the one before. A new one is the last.
        """
        self.make_root()
        names = self.names()
        for name in sorted(names, key=lambda name: (not self.has_segments(name), name)):
            slot = self.lock(name)
            if slot is not None:
                yield slot
        yield self._new_slot(names)

    def unclaimed(self) -> Iterator[Slot]:
        """Take, one after the other, the slots with records that nobody has. Raises OSError."""
        for name in self.names():
            if self.has_segments(name):
                slot = self.lock(name)
                if slot is not None:
                    yield slot

    def _new_slot(self, names: list[str]) -> Slot:
        for number in range(int(names[-1]) + 1 if names else 1, MOST_SLOTS + 1):
            name = f"{number:04d}"
            with contextlib.suppress(FileExistsError):  # another process was quicker; it may even be done with it
                self._file_system.make_folder(f"{self._root}/{name}")
                self._file_system.sync_folder(self._root)
            is_folder = self._file_system.entry(f"{self._root}/{name}") is Entry.FOLDER
            slot = self.lock(name) if is_folder else None
            if slot is not None:
                return slot
        raise SpoolUnavailableError(
            f"the spool has {MOST_SLOTS} slots and all are in use", remedy="give this process another folder"
        )

    def make_root(self) -> None:
        """Have the root folder, and those above it. Raises OSError."""
        parts = self._root.split("/")
        for depth in range(2, len(parts) + 1):
            path = "/".join(parts[:depth])
            if self._file_system.entry(path) is Entry.ABSENT:
                with contextlib.suppress(FileExistsError):
                    self._file_system.make_folder(path)
                self._file_system.sync_folder(path.rpartition("/")[0] or "/")

    def names(self) -> list[str]:
        """Return the names of all slots, sorted. Raises OSError."""
        return sorted(
            name
            for name in self._file_system.entries(self._root)
            if _NAME.fullmatch(name) and self._file_system.entry(f"{self._root}/{name}") is Entry.FOLDER
        )

    def shut(self) -> list[str]:
        """Return the names that are those of slots but stand for no folder of this user's, sorted. Raises OSError."""
        looks = {name for name in self._file_system.entries(self._root) if _NAME.fullmatch(name)}
        return sorted(looks.difference(self.names()))

    def lock(self, name: str) -> Slot | None:
        """Take a slot; None when somebody has it, or it is not for us. Raises OSError."""
        path = f"{self._root}/{name}"
        lock_path = f"{path}/{LOCK_NAME}"
        try:
            file = self._file_system.create(lock_path)
        except FileExistsError:
            if self._file_system.entry(lock_path) is not Entry.FILE:
                return None
            file = self._file_system.open_to_write(lock_path)
        except (PermissionError, FileNotFoundError):  # shut away, or adopted by another root in this moment
            return None
        if not file.try_lock() or self._file_system.entry(lock_path) is not Entry.FILE:
            file.close()
            return None
        if self.is_newer(name):
            file.close()
            self.newer = tuple(sorted({*self.newer, name}))
            return None
        with contextlib.suppress(OSError):  # for people only: a full disk is no reason not to take the slot
            file.truncate(0)
            write_all(file, self._owner.encode(), 0)
        return Slot(path, file)

    def _queue_files(self, slot_path: str) -> Iterator[str]:
        for folder in QUEUE_FOLDERS.values():
            path = f"{slot_path}/{folder}"
            if self._file_system.entry(path) is Entry.FOLDER:
                yield from (f"{path}/{name}" for name in self._file_system.entries(path))

    def has_segments(self, name: str) -> bool:
        """True for a slot with records in it, of either kind."""
        try:
            return any(
                segment_id_of(path.rpartition("/")[2]) is not None for path in self._queue_files(f"{self._root}/{name}")
            )
        except OSError:
            return False

    def is_newer(self, name: str) -> bool:
        """True for a slot that only a newer version can read. Raises OSError."""
        for path in self._queue_files(f"{self._root}/{name}"):
            file_name = path.rpartition("/")[2]
            magic = _MAGICS.get(file_name)
            if magic is None and segment_id_of(file_name) is None:
                continue
            with (
                contextlib.suppress(OSError),  # what cannot be read now is left alone when the queue is opened
                contextlib.closing(self._file_system.open_to_read(path)) as file,
            ):
                if magic is None:
                    is_newer = is_newer_segment(file.read_at(FRAMES_BEGIN, 0))
                else:
                    half = file.size() // 2
                    is_newer = any(is_newer_file(file.read_at(12, start), magic) for start in (0, half))
                if is_newer:
                    return True
        return False
