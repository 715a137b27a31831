"""What stands in the folders of a spool, seen from outside: nothing is written, made, or kept locked.

Safe beside living owners: files that vanish meanwhile are left out, and a tail that is being written ends its segment.
What an owner has acknowledged within the last quarter of a second may still be shown as waiting.
"""

from __future__ import annotations

import contextlib
import errno
import os
from typing import TYPE_CHECKING

import msgspec

from postroom.streaming.spool.availability import spool_error
from postroom.streaming.spool.bits import Bits
from postroom.streaming.spool.cursor import CURSOR_NAME, CursorState, parse_cursor
from postroom.streaming.spool.file_system import Entry, OsFileSystem
from postroom.streaming.spool.frame_scan import Damage, FrameScan, read_footer
from postroom.streaming.spool.group_commit import Place
from postroom.streaming.spool.record_format import FRAMES_BEGIN, Kind, parse_segment_header
from postroom.streaming.spool.segment_store import QUEUE_FILES
from postroom.streaming.spool.segments import is_blank, segment_id_of
from postroom.streaming.spool.slots import LOCK_NAME, NEIGHBOUR_NAME, QUARANTINE_NAME, QUEUE_FOLDERS, Slots

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

    from postroom.streaming.spool.file_system import File, FileSystem
    from postroom.streaming.spool.frame_scan import Frame
    from postroom.streaming.spool.record_format import SegmentHeader, StoredRecord


class QueueView(msgspec.Struct, frozen=True):
    """What waits in one queue of a slot: records and bytes by topic, and when the oldest was appended.

    `unreadable` counts ranges in its segments that hold no whole record, and files of segments that are none; `foreign`
    names files that are not ours.
    """

    by_topic: dict[str, tuple[int, int]]
    oldest_ms: int | None
    segments: int
    disk_bytes: int
    unreadable: int
    foreign: tuple[str, ...]

    @property
    def records(self) -> int:
        """How many records wait."""
        return sum(records for records, _ in self.by_topic.values())

    @property
    def bytes(self) -> int:
        """Their bytes on the disk."""
        return sum(size for _, size in self.by_topic.values())


class SlotView(msgspec.Struct, frozen=True):
    """One slot. `owner` is what the process that has it wrote into its lock, "" when nobody has it.

    The queues of a slot that `is_newer` are not looked into: only a newer version can read them.
    """

    name: str
    is_in_use: bool
    owner: str
    is_newer: bool
    records: QueueView
    dead_letters: QueueView
    quarantined: tuple[str, ...]
    foreign: tuple[str, ...]


class SpoolView(msgspec.Struct, frozen=True):
    """All slots under a root, and the names beside them that are none."""

    slots: tuple[SlotView, ...]
    foreign: tuple[str, ...]


class WaitingView(msgspec.Struct, frozen=True):
    """A record that waits, without its content: lengths are in bytes, None for what is null."""

    place: Place
    topic: str
    event_id: str
    key_bytes: int | None
    value_bytes: int | None
    appended_ms: int
    attempt: int
    sent_before: bool


def inspect_spool(directory: str | Path, *, file_system: FileSystem | None = None) -> SpoolView:
    """Return what stands under a spool's root; nothing when there is no such folder.

    Raises SpoolUnavailableError when the folder itself cannot be read.
    """
    inspector = _Inspector(directory, file_system)
    names, foreign = inspector.slots()
    return SpoolView(tuple(inspector.slot(name) for name in names), foreign)


def shut_slots(directory: str | Path, *, file_system: FileSystem | None = None) -> tuple[str, ...]:
    """Return the names of what may be slots, but is not for this user: nothing is known of what waits there.

    Raises as `inspect_spool`.
    """
    return _Inspector(directory, file_system).shut()


def inspect_slot(directory: str | Path, name: str, *, file_system: FileSystem | None = None) -> SlotView:
    """Return what stands in one slot."""
    return _Inspector(directory, file_system).slot(name)


def waiting_records(directory: str | Path, *, file_system: FileSystem | None = None) -> Iterator[WaitingView]:
    """Give every record that waits: slot by slot, records before dead letters, in order. Raises as `inspect_spool`."""
    return (view for view, _ in stored_records(directory, file_system=file_system))


def stored_records(
    directory: str | Path, *, file_system: FileSystem | None = None
) -> Iterator[tuple[WaitingView, StoredRecord]]:
    """Give what `waiting_records` gives, each with its content: for who was asked to show it."""
    inspector = _Inspector(directory, file_system)
    for name in inspector.slots()[0]:
        if not inspector.is_newer(name):
            for kind in Kind:
                yield from inspector.waiting(name, kind)


class _Inspector:
    def __init__(self, directory: str | Path, file_system: FileSystem | None) -> None:
        self._root = os.path.abspath(directory)  # noqa: PTH100 - links kept, as the spool does
        self._files: FileSystem = OsFileSystem() if file_system is None else file_system
        self._slots = Slots(self._files, self._root, owner="")

    def slots(self) -> tuple[list[str], tuple[str, ...]]:
        """Return the names of the slots, and the names beside them."""
        try:
            if self._files.entry(self._root) is Entry.ABSENT:
                return [], ()
            names = self._slots.names()
            return names, tuple(sorted(set(self._files.entries(self._root)).difference(names, {NEIGHBOUR_NAME})))
        except OSError as exc:
            raise spool_error(exc, retry_after_s=None) from exc

    def shut(self) -> tuple[str, ...]:
        """Return the names of what may be slots, but is not for us."""
        try:
            return () if self._files.entry(self._root) is Entry.ABSENT else tuple(self._slots.shut())
        except OSError as exc:
            raise spool_error(exc, retry_after_s=None) from exc

    def is_newer(self, name: str) -> bool:
        """True for a slot that only a newer version can read."""
        with contextlib.suppress(OSError):
            return self._slots.is_newer(name)
        return False

    def slot(self, name: str) -> SlotView:
        """Look into one slot."""
        path = f"{self._root}/{name}"
        is_in_use, owner = self._owner(f"{path}/{LOCK_NAME}")
        is_newer = self.is_newer(name)
        records, dead_letters = (_EMPTY if is_newer else self._queue(name, kind) for kind in Kind)
        ours = {LOCK_NAME, QUARANTINE_NAME, *QUEUE_FOLDERS.values()}
        foreign = sorted(set(self._entries(path)).difference(ours))
        quarantined = sorted(self._entries(f"{path}/{QUARANTINE_NAME}"))
        return SlotView(name, is_in_use, owner, is_newer, records, dead_letters, tuple(quarantined), tuple(foreign))

    def _owner(self, path: str) -> tuple[bool, str]:
        """Try the lock and let go of it at once; a process that starts in this very moment takes another slot."""
        try:
            with contextlib.closing(self._files.open_to_read(path)) as file:
                if file.try_lock():
                    return False, ""
                return True, file.read_at(200, 0).decode(errors="replace").strip()
        except FileNotFoundError:
            return False, ""
        except OSError as exc:  # not known to be free is as good as in use
            return True, f"unknown: its lock cannot be tried ({errno.errorcode.get(exc.errno or 0, 'error')})"

    def _queue(self, name: str, kind: Kind) -> QueueView:
        folder = f"{self._root}/{name}/{QUEUE_FOLDERS[kind]}"
        sums = _Sums()
        for found in self._segments(folder, kind):
            if found is None:
                sums.add_unreadable()
            else:
                sums.add_segment(*found)
        names = self._entries(folder)
        foreign = sorted(name for name in names if segment_id_of(name) is None and name not in QUEUE_FILES)
        return sums.view(tuple(foreign))

    def waiting(self, name: str, kind: Kind) -> Iterator[tuple[WaitingView, StoredRecord]]:
        """Give what waits in one queue, in order."""
        folder = f"{self._root}/{name}/{QUEUE_FOLDERS[kind]}"
        state = self._cursor(folder)
        for header, file, done in filter(None, self._segments(folder, kind)):
            for found in _waiting_frames(header, file, file.size(), done):
                if not isinstance(found, Damage):
                    marked = not state.generation or found.sequence < state.handed_out
                    yield _waiting_view(Place(name, kind, found.sequence), found, sent_before=marked), found.stored

    def _segments(self, folder: str, kind: Kind) -> Iterator[tuple[SegmentHeader, File, Bits] | None]:
        """Give each segment, open, with what is acknowledged in it; None for one that is none, or is not to be read."""
        state = self._cursor(folder)
        entries = {(entry.segment_id, entry.seed): entry for entry in state.entries}
        ids = sorted(filter(None, map(segment_id_of, self._entries(folder))))
        for segment_id in ids:
            try:
                file = self._files.open_to_read(f"{folder}/{segment_id:020d}.seg")
            except FileNotFoundError:  # its records were delivered meanwhile
                continue
            except OSError:
                yield None
                continue
            with contextlib.closing(file):
                try:
                    header = parse_segment_header(file.read_at(FRAMES_BEGIN, 0))
                    is_ours = header is not None and (header.segment_id, header.kind) == (segment_id, kind)
                    is_none = not is_ours and not is_blank(file)
                except OSError:
                    yield None
                    continue
                if header is None or not is_ours:
                    if is_none:
                        yield None
                    continue
                done, entry = Bits(), entries.get((segment_id, header.seed))
                if entry is not None:
                    done.load(entry.low, entry.bitmap)
                yield header, file, done

    def _cursor(self, folder: str) -> CursorState:
        try:
            with contextlib.closing(self._files.open_to_read(f"{folder}/{CURSOR_NAME}")) as file:
                return parse_cursor(file.read_at(file.size(), 0))
        except OSError:
            return CursorState()

    def _entries(self, path: str) -> list[str]:
        try:
            return self._files.entries(path) if self._files.entry(path) is Entry.FOLDER else []
        except OSError:
            return []


class _Sums:
    """Adds up the segments of a queue."""

    def __init__(self) -> None:
        self._topics: dict[str, tuple[int, int]] = {}
        self._oldest_ms: int | None = None
        self._segments = self._disk_bytes = self._unreadable = 0

    def add_segment(self, header: SegmentHeader, file: File, done: Bits) -> None:
        """Count what waits in a segment, from its footer if that says it all."""
        size = file.size()
        self._segments += 1
        self._disk_bytes += size
        footer = None
        with contextlib.suppress(OSError):  # then its frames are looked at, as far as the disk gives them
            footer = read_footer(file, size, header.seed)
        if footer is not None and not done:
            for topic, (records, total) in footer[2].topics.items():
                self._add(topic, records, total, footer[2].oldest_ms)
            return
        end = size if footer is None else footer[0]
        damages: list[Damage] = []
        for found in _waiting_frames(header, file, end, done):
            if isinstance(found, Damage):
                damages.append(found)
            else:
                self._add(found.stored.record.topic, 1, found.size, found.stored.appended_ms)
        is_tail = footer is None and bool(damages) and damages[-1].at_end
        self._unreadable += len(damages) - is_tail

    def add_unreadable(self) -> None:
        """Count a file that is no segment, whatever its name says, or that the disk does not give."""
        self._unreadable += 1

    def view(self, foreign: tuple[str, ...]) -> QueueView:
        """Return the sums."""
        sums = self._segments, self._disk_bytes, self._unreadable
        return QueueView(self._topics, self._oldest_ms, *sums, foreign)

    def _add(self, topic: str, records: int, size: int, appended_ms: int) -> None:
        before = self._topics.get(topic, (0, 0))
        self._topics[topic] = (before[0] + records, before[1] + size)
        if self._oldest_ms is None and records:
            self._oldest_ms = appended_ms


_EMPTY = QueueView({}, None, 0, 0, 0, ())


def _waiting_frames(header: SegmentHeader, file: File, end: int, done: Bits) -> Iterator[Frame | Damage]:
    """Give the frames before `end` that are not acknowledged, and the damage between them, as far as the disk gives."""
    scan = FrameScan(file, seed=header.seed, kind=header.kind, next_sequence=header.first_sequence)
    with contextlib.suppress(OSError):
        while (found := scan.next(end, lambda sequence: sequence - header.first_sequence in done)) is not None:
            yield found


def _waiting_view(place: Place, frame: Frame, *, sent_before: bool) -> WaitingView:
    record = frame.stored.record
    return WaitingView(
        place,
        record.topic,
        record.event_id,
        None if record.key is None else len(record.key),
        None if record.value is None else len(record.value),
        frame.stored.appended_ms,
        record.attempt,
        sent_before,
    )
