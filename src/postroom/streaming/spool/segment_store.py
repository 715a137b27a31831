"""The segments of one queue: found at the start, counted, corrected when damage turns up, removed when finished."""

from __future__ import annotations

import contextlib
import errno
from bisect import bisect_left, bisect_right
from operator import attrgetter
from typing import TYPE_CHECKING

import msgspec

from postroom.streaming.spool.cursor import CURSOR_NAME, AckEntry
from postroom.streaming.spool.damage_control import DamageControl, new_scan
from postroom.streaming.spool.footer import Summary
from postroom.streaming.spool.frame_scan import Damage, read_footer
from postroom.streaming.spool.group_format import ENTRY_BYTES
from postroom.streaming.spool.record_format import FRAMES_BEGIN, KeyHash, Kind
from postroom.streaming.spool.segments import is_blank, open_segment, segment_id_of
from postroom.streaming.spool.trials import TRIAL_NAME
from postroom.streaming.spool.waiting import Waiting

if TYPE_CHECKING:
    import threading
    from collections.abc import Sequence

    from postroom.libs.event import Record
    from postroom.streaming.spool.file_system import File, FileSystem
    from postroom.streaming.spool.footer import Footer
    from postroom.streaming.spool.hand import Hand
    from postroom.streaming.spool.key_counts import KeyCounts
    from postroom.streaming.spool.quarantine import Quarantine
    from postroom.streaming.spool.segments import Segment

QUEUE_FILES = {name + end for name in (CURSOR_NAME, TRIAL_NAME) for end in ("", ".new")}
_MORE_THAN_A_SEGMENT_HOLDS = 2**32
_by_id = attrgetter("header.segment_id")
_by_sequence = attrgetter("header.first_sequence")


class QueuePlace(msgspec.Struct, frozen=True):
    """Where a queue lives and what it shares with others. `lock` is the queue's own, `keys` has `keys_lock`."""

    file_system: FileSystem
    folder: str
    kind: Kind
    lock: threading.Lock
    keys: KeyCounts
    keys_lock: threading.Lock
    key_hash: KeyHash
    quarantine: Quarantine

    @property
    def counts_keys(self) -> bool:
        """True for records: dead letters have no order to keep."""
        return self.kind is Kind.RECORD

    def hash_of(self, record: Record) -> int | None:
        """Return the hash of a record's topic and key where it is counted, else None."""
        return self.key_hash(record.topic, record.key) if record.key is not None and self.counts_keys else None

    def hashes_of(self, records: Sequence[Record]) -> list[int | None]:
        """Return what `hash_of` returns for each."""
        return self.key_hash.each(records) if self.counts_keys else [None] * len(records)


class SegmentStore:
    """All segments of one queue, in order. What changes is guarded by the queue's lock.

    `is_known` turns true once every segment is counted, and stays so.
    """

    def __init__(self, place: QueuePlace) -> None:
        self._place = place
        self._segments: list[Segment] = []
        self._last_held: Segment | None = None
        self._found: dict[str, int] = {}
        self._acknowledged: dict[tuple[int, int], AckEntry] = {}
        self.waiting = Waiting(place.keys if place.counts_keys else None, place.keys_lock)
        self.damage = DamageControl(place, self.waiting)
        self.is_known = False
        self.foreign: tuple[str, ...] = ()
        self.disk_bytes = 0
        self.next_id = 1
        self.next_sequence = 1

    def find(self) -> None:
        """Take stock of the folder: after this, records can be appended. Raises OSError."""
        place, foreign = self._place, []
        found = []
        for name in place.file_system.entries(place.folder):
            segment_id = segment_id_of(name)
            if segment_id is not None:
                found.append((segment_id, f"{place.folder}/{name}"))
            elif name not in QUEUE_FILES:
                foreign.append(name)
        for segment_id, path in sorted(found):
            self.next_id = segment_id + 1
            try:
                segment = open_segment(place.file_system, path)
            except OSError:  # perhaps the next start can read it; no sequence in it may be given again until then
                foreign.append(path.rpartition("/")[2])
                self.next_sequence += _MORE_THAN_A_SEGMENT_HOLDS
                continue
            if segment is None or segment.header.kind != place.kind:
                try:
                    self._put_away(path)
                except OSError:  # it can stay where it is: nothing reads it
                    foreign.append(path.rpartition("/")[2])
                continue
            # No frame in it can have a sequence as high as this; the next segment begins there.
            beyond = segment.header.first_sequence + (segment.size - FRAMES_BEGIN) // ENTRY_BYTES + 1
            self.next_sequence = max(self.next_sequence, beyond)
            self._segments.append(segment)
            self.disk_bytes += segment.size
        self.foreign = tuple(sorted(foreign))
        self.is_known = not self._segments

    def use_acknowledged(self, entries: tuple[AckEntry, ...]) -> None:
        """Take over what the cursor says, before anything is counted."""
        self._acknowledged = {(entry.segment_id, entry.seed): entry for entry in entries}
        self.next_id = max([self.next_id, *(entry.segment_id + 1 for entry in entries)])

    # -- looking

    def all(self) -> tuple[Segment, ...]:
        """Return the segments, the oldest first."""
        return tuple(self._segments)

    def at_or_after(self, segment_id: int) -> Segment | None:
        """Return the first segment with this id or a higher one."""
        index = bisect_left(self._segments, segment_id, key=_by_id)
        return self._segments[index] if index < len(self._segments) else None

    def holding(self, sequence: int) -> Segment:
        """Return the segment of a frame that exists. The caller holds the lock."""
        last = self._last_held
        if last is None or not last.header.first_sequence <= sequence < last.next_sequence:
            index = bisect_right(self._segments, sequence, key=_by_sequence) - 1
            last = self._last_held = self._segments[index]
        return last

    def newly_found(self) -> dict[str, int]:
        """Return how many records of each topic were counted that were not appended here, since the last call."""
        with self._place.lock:
            found, self._found = self._found, {}
        return found

    def acknowledged(self) -> list[AckEntry]:
        """Return what is acknowledged, for the cursor."""
        entries = []
        for segment in self._segments:
            header = segment.header
            if not segment.is_known:  # what the last cursor said about it still holds
                known = self._acknowledged.get((header.segment_id, header.seed))
                if known is not None:
                    entries.append(known)
            elif segment.has_acknowledged:
                entries.append(AckEntry(header.segment_id, header.seed, *segment.acknowledged()))
        return entries

    # -- changing

    def add(self, segment: Segment) -> None:
        """Take in the segment that is written from now on."""
        self._segments.append(segment)
        self.disk_bytes += segment.size
        self.next_id = segment.header.segment_id + 1

    def count_next(self, hand: Hand) -> bool:
        """Count one more of the segments found at the start; False when all are counted.

        One that the disk does not give is left to a later start, and named among the foreign files. Raises OSError
        for what may be better in a moment, such as no file handles left.
        """
        segment = next((segment for segment in self.all() if not segment.is_known), None)
        if segment is None:
            self.is_known = True
            return False
        try:
            summary = self._counted(segment)
        except FileNotFoundError:
            self.damage.lost_file(segment, hand)
            return True
        except OSError as exc:
            if exc.errno != errno.EIO:
                raise
            with self._place.lock:
                self._segments.remove(segment)
                self.disk_bytes -= segment.size
            self.foreign = (*self.foreign, segment.path.rpartition("/")[2])
            return True
        self.damage.set_aside_unsaved(segment)
        # The keys first: from the moment a segment is known, its records are handed out and acknowledged.
        self.waiting.add_keys(summary.keys)
        with self._place.lock:
            by_topic = {topic: records for topic, (records, _) in summary.topics.items()}
            self.waiting.add_found(by_topic)
            for topic, records in by_topic.items():
                self._found[topic] = self._found.get(topic, 0) + records
            segment.count(summary)
            segment.is_known = True
        return True

    def remove_finished(self) -> None:
        """Unlink the segments that are not needed. Raises OSError."""
        place = self._place
        finished = [segment for segment in self.all() if segment.is_finished]
        for segment in finished:
            with contextlib.suppress(FileNotFoundError):
                place.file_system.unlink(segment.path)
        if not finished:
            return
        # Their entries leave the cursor only now: a name that comes back must find its acknowledgements.
        place.file_system.sync_folder(place.folder)
        with place.lock:
            for segment in finished:
                self._segments.remove(segment)
                self.disk_bytes -= segment.size

    # -- inside

    def _counted(self, segment: Segment) -> Summary | Footer:
        """Return the sums of what waits in a segment, from its footer if that says it all, else by a scan."""
        header = segment.header
        with contextlib.closing(self._place.file_system.open_to_read(segment.path)) as file:
            footer = read_footer(file, segment.size, header.seed)
            entry = self._acknowledged.get((header.segment_id, header.seed))
            if footer is not None and entry is None:
                segment.frames_end, segment.next_sequence, sums = footer
                return sums
            if entry is not None:
                segment.set_acknowledged(entry.low, entry.bitmap)
            summary = self._scan(segment, file, footer)
            segment.key_hashes = summary.key_hashes
            return summary

    def _scan(self, segment: Segment, file: File, footer: tuple[int, int, Footer] | None) -> Summary:
        """Count the frames that wait; note what is damaged and where the frames end."""
        summary = Summary()
        scan = new_scan(segment, file)
        segment.frames_end, expected = (segment.size, 0) if footer is None else footer[:2]
        behind = segment.header.first_sequence
        damages: list[Damage] = []  # since the last good frame
        for found in scan.run(segment.frames_end):
            if isinstance(found, Damage):
                damages.append(found)
                continue
            self._note_all(segment, damages)
            _mark_lost(segment, behind, found.sequence)
            behind = found.sequence + 1
            if not segment.is_done(found.sequence):
                record = found.stored.record
                summary.add(record.topic, self._place.hash_of(record), found.size, found.stored.appended_ms)
        if damages and damages[-1].at_end and footer is None:
            # Whole frames of a torn group come before it: then the group is read to its end, past what is lost of it.
            segment.frames_end = max(damages[0].offset, scan.groups_end)
            self.damage.note_torn(segment, file, damages[0].offset, scan.groups_end)
        else:
            self._note_all(segment, damages)
        segment.next_sequence = max(scan.next_sequence, expected)
        # A disk that gives them another time must not give more than was counted.
        _mark_lost(segment, behind, segment.next_sequence)
        return summary

    def _note_all(self, segment: Segment, damages: list[Damage]) -> None:
        for damage in damages:
            self.damage.note(segment, damage)
        damages.clear()

    def _put_away(self, path: str) -> None:
        """Remove a file that was never more than begun; move any other that has no good header to quarantine."""
        file_system = self._place.file_system
        with contextlib.closing(file_system.open_to_read(path)) as file:
            blank = is_blank(file)
        if blank:
            file_system.unlink(path)
        else:
            self._place.quarantine.take(path)
            self.damage.damages.segments += 1


def _mark_lost(segment: Segment, begin: int, end: int) -> None:
    for sequence in range(begin, end):
        if not segment.is_done(sequence):
            segment.mark_lost(sequence)
