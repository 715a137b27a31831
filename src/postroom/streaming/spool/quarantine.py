"""Where bytes go that nobody could read: out of the way, and never away."""

from __future__ import annotations

import contextlib
from typing import TYPE_CHECKING

from postroom.streaming.spool.file_system import Entry
from postroom.streaming.spool.record_format import FRAMES_BEGIN
from postroom.streaming.spool.segments import write_all

if TYPE_CHECKING:
    from collections.abc import Iterable

    from postroom.streaming.spool.file_system import FileSystem
    from postroom.streaming.spool.segments import Segment

_COPY_BYTES = 1024 * 1024


class Quarantine:
    """The folder `quarantine` of a slot. Made when first needed. Each queue uses it with one thread at a time.

    `names` are those of what is kept, as far as is known here: who asks for them does not wait for a disk.
    """

    def __init__(self, file_system: FileSystem, slot_path: str) -> None:
        self._file_system = file_system
        self._slot_path = slot_path
        self._path = f"{slot_path}/quarantine"
        self.names: tuple[str, ...] = ()

    def copy(self, segment: Segment, offset: int, length: int) -> bool:
        """Keep a range of a segment, behind the segment's header; True if it was new, False if it was kept before.

        A longer range takes the place of a shorter one with the same beginning.
        It survives a power cut when this returns. Ranges of zeros are not kept. Raises OSError.
        """
        header = segment.header
        # Ids begin anew when no segment is left: only with its seed a name stands for one segment.
        name = f"{self._path}/{header.kind}-{header.segment_id:020d}-{header.seed:08x}-{offset}.bad"
        if self._kept_bytes(name) >= FRAMES_BEGIN + length:
            return False
        source = self._file_system.open_to_read(segment.path)
        try:
            ranges = [(0, FRAMES_BEGIN)]
            ranges += [
                (at, min(_COPY_BYTES, offset + length - at)) for at in range(offset, offset + length, _COPY_BYTES)
            ]
            if not any(any(source.read_at(count, at)) for at, count in ranges[1:]):
                return False
            self._make_folder()
            self._write(name, (source.read_at(count, at) for at, count in ranges))
            self._note(name.rpartition("/")[2])
        finally:
            source.close()
        return True

    def take(self, path: str) -> None:
        """Move a whole file here: needs no room. Raises OSError."""
        self._make_folder()
        folder, _, name = path.rpartition("/")
        queue = folder.rpartition("/")[2]
        number = 0
        while self._file_system.entry(f"{self._path}/{queue}-{name}.{number}") is not Entry.ABSENT:
            number += 1
        self._file_system.rename(path, f"{self._path}/{queue}-{name}.{number}")
        self._note(f"{queue}-{name}.{number}")

    def look(self) -> None:
        """Learn what is kept: people take files away. Raises OSError."""
        is_there = self._file_system.entry(self._path) is Entry.FOLDER
        self.names = tuple(sorted(self._file_system.entries(self._path))) if is_there else ()

    def _note(self, name: str) -> None:
        self.names = tuple(sorted({*self.names, name}))

    def _kept_bytes(self, name: str) -> int:
        if self._file_system.entry(name) is not Entry.FILE:
            return 0
        with contextlib.closing(self._file_system.open_to_read(name)) as file:
            return file.size()

    def _make_folder(self) -> None:
        if self._file_system.entry(self._path) is Entry.ABSENT:
            with contextlib.suppress(FileExistsError):  # the other queue of the slot was quicker
                self._file_system.make_folder(self._path)
            self._file_system.sync_folder(self._slot_path)

    def _write(self, name: str, parts: Iterable[bytes]) -> None:
        # Under another name first: a copy torn by a power cut must not pass for a whole one.
        new_name = f"{name}.new"
        with contextlib.suppress(FileNotFoundError):
            self._file_system.unlink(new_name)
        file = self._file_system.create(new_name)
        try:
            at = 0
            for part in parts:
                write_all(file, part, at)
                at += len(part)
            file.sync()
        finally:
            file.close()
        self._file_system.rename(new_name, name)
        self._file_system.sync_folder(self._path)
