"""A slot's way to another file system: copied, made visible, and only then removed from where it was.

Between the last two steps its records are in both places. Before that, both cursors say that all of them may have been
sent, so whoever sends one for the second time marks it; afterwards the copy gets its own mark back.
"""

from __future__ import annotations

import contextlib
from typing import TYPE_CHECKING

from postroom.libs.exceptions import LifecycleError
from postroom.streaming.spool.cursor import CURSOR_NAME, Cursor, parse_cursor
from postroom.streaming.spool.file_system import Entry
from postroom.streaming.spool.group_format import ENTRY_BYTES
from postroom.streaming.spool.record_format import FRAMES_BEGIN
from postroom.streaming.spool.segments import open_segment, segment_id_of, write_all
from postroom.streaming.spool.slots import LOCK_NAME, QUARANTINE_NAME, QUEUE_FOLDERS
from postroom.streaming.spool.trials import TRIAL_NAME

if TYPE_CHECKING:
    from postroom.streaming.spool.file_system import File, FileSystem

_COPY_BYTES = 1024 * 1024


class SlotCopy:
    """Copies one slot, which the caller has locked, to the folder `path`. It is locked, too, until `close`."""

    def __init__(self, files: FileSystem, source: str, path: str, owner: str) -> None:
        self._files = files
        self._source = source
        self._owner = owner
        self._lock: File | None = None
        self._marks: dict[str, int] = {}
        self.path = path

    def make(self) -> None:
        """Have the copy whole on the disk. Raises OSError, and LifecycleError when somebody else is copying there."""
        self._lock = self._prepare()
        for folder in (*QUEUE_FOLDERS.values(), QUARANTINE_NAME):
            if self._files.entry(f"{self._source}/{folder}") is Entry.FOLDER:
                self._copy_folder(folder)
        self._files.sync_folder(self.path)
        for folder in self._marks:
            self._write_mark(f"{self._source}/{folder}", self._beyond(folder))

    def settle(self, target: str) -> None:
        """Remove the segments where they were, now that the copy is a slot, `target`; give it its marks back.

        Raises OSError.
        """
        for folder in QUEUE_FOLDERS.values():
            path = f"{self._source}/{folder}"
            if self._files.entry(path) is Entry.FOLDER:
                for name in self._segments(path):
                    self._files.unlink(f"{path}/{name}")
                self._files.sync_folder(path)
        for folder, mark in self._marks.items():
            self._write_mark(f"{target}/{folder}", mark)

    def close(self) -> None:
        """Let go of the lock."""
        if self._lock is not None:
            self._lock.close()

    # -- inside

    def _prepare(self) -> File:
        """Make the folder, or empty the one that was left by somebody who died, and lock it."""
        files = self._files
        if files.entry(self.path) is Entry.ABSENT:
            files.make_folder(self.path)
        lock_path = f"{self.path}/{LOCK_NAME}"
        is_there = files.entry(lock_path) is Entry.FILE
        lock = files.open_to_write(lock_path) if is_there else files.create(lock_path)
        if not lock.try_lock():
            lock.close()
            raise LifecycleError("another adoption is at work there", remedy="wait for its end")
        try:
            lock.truncate(0)
            write_all(lock, self._owner.encode(), 0)
            for folder in (*QUEUE_FOLDERS.values(), QUARANTINE_NAME):
                path = f"{self.path}/{folder}"
                if files.entry(path) is Entry.FOLDER:
                    for name in files.entries(path):
                        files.unlink(f"{path}/{name}")
        except OSError:
            lock.close()
            raise
        return lock

    def _copy_folder(self, folder: str) -> None:
        source, path = f"{self._source}/{folder}", f"{self.path}/{folder}"
        if self._files.entry(path) is Entry.ABSENT:
            self._files.make_folder(path)
        for name in sorted(self._files.entries(source)):
            is_ours = folder == QUARANTINE_NAME or name in {CURSOR_NAME, TRIAL_NAME} or segment_id_of(name) is not None
            if is_ours and self._files.entry(f"{source}/{name}") is Entry.FILE:
                self._copy_file(f"{source}/{name}", f"{path}/{name}")
        if folder != QUARANTINE_NAME:
            mark = self._mark(source)
            if mark is not None:  # without a cursor all of it counts as sent anyway
                self._marks[folder] = mark
                self._write_mark(path, self._beyond(folder))
        self._files.sync_folder(path)

    def _copy_file(self, source: str, path: str) -> None:
        with (
            contextlib.closing(self._files.open_to_read(source)) as original,
            contextlib.closing(self._files.create(path)) as copy,
        ):
            for at in range(0, original.size(), _COPY_BYTES):
                write_all(copy, original.read_at(_COPY_BYTES, at), at)
            copy.sync()

    def _segments(self, path: str) -> list[str]:
        return sorted(name for name in self._files.entries(path) if segment_id_of(name) is not None)

    def _beyond(self, folder: str) -> int:
        """Return a sequence that no record in the source's queue can reach."""
        path, beyond = f"{self._source}/{folder}", 0
        for name in self._segments(path):
            segment = open_segment(self._files, f"{path}/{name}")
            if segment is not None:
                most = (segment.size - FRAMES_BEGIN) // ENTRY_BYTES + 1
                beyond = max(beyond, segment.header.first_sequence + most)
        return beyond

    def _mark(self, path: str) -> int | None:
        """Return what the cursor in a folder says of what was handed out; None without a cursor."""
        if self._files.entry(f"{path}/{CURSOR_NAME}") is not Entry.FILE:
            return None
        with contextlib.closing(self._files.open_to_read(f"{path}/{CURSOR_NAME}")) as file:
            state = parse_cursor(file.read_at(file.size(), 0))
        return state.handed_out if state.generation else None

    def _write_mark(self, path: str, mark: int) -> None:
        """Change what the cursor in a folder says of what was handed out, and nothing else."""
        with contextlib.closing(self._files.open_to_read(f"{path}/{CURSOR_NAME}")) as file:
            slot_bytes = file.size() // 2
        with contextlib.closing(Cursor(self._files, path, slot_bytes=slot_bytes)) as cursor:
            state = cursor.load(is_there=True)
            cursor.write(max(mark, 0), state.entries)
