"""The segments of one queue: found at the start, counted, corrected when damage turns up, removed when finished."""

from __future__ import annotations

import contextlib
import errno
import threading
from bisect import bisect_left
from operator import attrgetter
from typing import TYPE_CHECKING

import msgspec

from postroom.streaming.spool.cursor import CURSOR_NAME, AckEntry
from postroom.streaming.spool.footer import Summary
from postroom.streaming.spool.frame_scan import Damage, FrameScan, read_footer
from postroom.streaming.spool.record_format import FRAMES_BEGIN, SMALLEST_FRAME_BYTES, KeyHash, Kind
from postroom.streaming.spool.segments import open_segment, segment_id_of

if TYPE_CHECKING:
    from postroom.libs.event import Record
    from postroom.streaming.spool.file_system import File, FileSystem
    from postroom.streaming.spool.key_counts import KeyCounts
    from postroom.streaming.spool.quarantine import Quarantine
    from postroom.streaming.spool.segments import Segment

_OURS = {CURSOR_NAME, f"{CURSOR_NAME}.new"}
_MORE_THAN_A_SEGMENT_HOLDS = 2**32
_by_id = attrgetter("header.segment_id")


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


class Damages(msgspec.Struct):
    """What could not be read since this queue was opened."""

    ranges: int = 0
    torn_tails: int = 0
    segments: int = 0
    missing_segments: int = 0


class SegmentStore:
    """All segments of one queue, in order. What changes is guarded by the queue's lock."""

    def __init__(self, place: QueuePlace) -> None:
        self._place = place
        self._aside_lock = threading.Lock()
        self._segments: list[Segment] = []
        self._acknowledged: dict[tuple[int, int], AckEntry] = {}
        self.damages = Damages()
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
            elif name not in _OURS:
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
            beyond = segment.header.first_sequence + (segment.size - FRAMES_BEGIN) // SMALLEST_FRAME_BYTES + 1
            self.next_sequence = max(self.next_sequence, beyond)
            self._segments.append(segment)
            self.disk_bytes += segment.size
        self.foreign = tuple(sorted(foreign))

    def use_acknowledged(self, entries: tuple[AckEntry, ...]) -> None:
        """Take over what the cursor says, before anything is counted."""
        self._acknowledged = {(entry.segment_id, entry.seed): entry for entry in entries}
        self.next_id = max([self.next_id, *(entry.segment_id + 1 for entry in entries)])

    # -- looking

    @property
    def is_known(self) -> bool:
        """True once every segment is counted."""
        return all(segment.is_known for segment in self.all())

    def all(self) -> tuple[Segment, ...]:
        """Return the segments, the oldest first."""
        return tuple(self._segments)

    def at_or_after(self, segment_id: int) -> Segment | None:
        """Return the first segment with this id or a higher one."""
        index = bisect_left(self._segments, segment_id, key=_by_id)
        return self._segments[index] if index < len(self._segments) else None

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

    def count_next(self) -> bool:
        """Count one more of the segments found at the start; False when all are counted.

        One that the disk does not give is left to a later start, and named among the foreign files. Raises OSError
        for what may be better in a moment, such as no file handles left.
        """
        segment = next((segment for segment in self.all() if not segment.is_known), None)
        if segment is None:
            return False
        try:
            summary = self._counted(segment)
        except FileNotFoundError:
            self.lost_file(segment)
            return True
        except OSError as exc:
            if exc.errno != errno.EIO:
                raise
            with self._place.lock:
                self._segments.remove(segment)
                self.disk_bytes -= segment.size
            self.foreign = (*self.foreign, segment.path.rpartition("/")[2])
            return True
        self.set_aside_unsaved(segment)
        with self._place.lock:
            segment.count(summary)
            segment.is_known = True
        if self._place.counts_keys:
            with self._place.keys_lock:
                self._place.keys.add_all(summary.keys)
        return True

    def found_damage(self, segment: Segment, damage: Damage) -> None:
        """Deal with a range that turned out unreadable after its segment was counted. Raises OSError."""
        if damage.offset in segment.damaged:
            return
        good: list[tuple[int, str, int | None, int]] = []
        with contextlib.closing(self._place.file_system.open_to_read(segment.path)) as file:
            scan = self._new_scan(segment, file)
            for found in scan.run(segment.frames_end):
                if isinstance(found, Damage):
                    self._note(segment, found, torn=False)
                    continue
                record = found.stored.record
                good.append((found.sequence, record.topic, self._hash(record), found.size))
            counted = segment.keys
            if counted is None:
                footer = read_footer(file, segment.size, segment.header.seed)
                counted = None if footer is None else footer[2].keys
        self.set_aside_unsaved(segment)
        self._recount(segment, good, counted)

    def set_aside_unsaved(self, segment: Segment) -> None:
        """Copy what is unreadable to quarantine, as far as there is room; the rest stays in the segment."""
        with self._aside_lock:
            while segment.unsaved:
                offset, length = segment.unsaved[0]
                try:
                    self._place.quarantine.copy(segment, offset, length)
                except OSError:
                    return
                del segment.unsaved[0]

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

    def lost_file(self, segment: Segment) -> None:
        """Give up a segment whose file somebody has removed."""
        with self._place.lock:
            self.damages.missing_segments += 1
            segment.waiting, segment.topics, segment.unsaved, segment.is_known = 0, {}, [], True

    # -- inside

    def _counted(self, segment: Segment) -> Summary:
        """Return the sums of what waits in a segment, from its footer if that says it all, else by a scan."""
        header = segment.header
        with contextlib.closing(self._place.file_system.open_to_read(segment.path)) as file:
            footer = read_footer(file, segment.size, header.seed)
            entry = self._acknowledged.get((header.segment_id, header.seed))
            if footer is not None and entry is None:
                segment.frames_end, segment.next_sequence, summary = footer
                return summary
            if entry is not None:
                segment.set_acknowledged(entry.low, entry.bitmap)
            end = segment.size if footer is None else footer[0]
            summary = self._scan(segment, file, end, may_be_torn=footer is None)
            segment.keys = summary.keys
            return summary

    def _scan(self, segment: Segment, file: File, end: int, *, may_be_torn: bool) -> Summary:
        """Count the frames that wait; note what is damaged and where the frames end."""
        summary = Summary()
        scan = self._new_scan(segment, file)
        segment.frames_end = end
        for found in scan.run(end):
            if isinstance(found, Damage):
                torn = found.at_end and may_be_torn
                self._note(segment, found, torn=torn)
                if torn:
                    segment.frames_end = found.offset
            elif not segment.is_done(found.sequence):
                record = found.stored.record
                summary.add(record.topic, self._hash(record), found.size, found.stored.appended_ms)
        segment.next_sequence = scan.next_sequence
        return summary

    def _new_scan(self, segment: Segment, file: File) -> FrameScan:
        header = segment.header
        return FrameScan(file, seed=header.seed, kind=header.kind, next_sequence=header.first_sequence)

    def _hash(self, record: Record) -> int | None:
        return None if record.key is None else self._place.key_hash(record.topic, record.key)

    def _note(self, segment: Segment, damage: Damage, *, torn: bool) -> None:
        if damage.offset in segment.damaged:
            return
        segment.damaged.add(damage.offset)
        segment.unsaved.append((damage.offset, damage.length))
        if torn:
            self.damages.torn_tails += 1
        else:
            self.damages.ranges += 1

    def _recount(
        self, segment: Segment, good: list[tuple[int, str, int | None, int]], counted: dict[int, int] | None
    ) -> None:
        """Make the counts those of the frames that can be read; take the lost ones out of the key counters."""
        lost = set(range(segment.header.first_sequence, segment.next_sequence)).difference(frame[0] for frame in good)
        readable: dict[int, int] = {}
        with self._place.lock:
            segment.waiting, segment.topics = 0, {}
            for sequence, topic, key_hash, size in good:
                if key_hash is not None:
                    readable[key_hash] = readable.get(key_hash, 0) + 1
                sums = segment.topics.setdefault(topic, [0, 0])
                if not segment.is_done(sequence):
                    segment.waiting += 1
                    sums[0] += 1
                    sums[1] += size
            # A lost frame that was acknowledged before has left the counters already, and nobody knows its key any
            # more: then they stay too high until the next start, which sends some records the longer way.
            certain = not any(segment.is_done(sequence) for sequence in lost)
        if counted is None or not certain or not self._place.counts_keys:
            return
        with self._place.keys_lock:
            for key_hash, count in counted.items():
                missing = count - readable.get(key_hash, 0)
                if missing > 0:
                    self._place.keys.remove(key_hash, missing)

    def _put_away(self, path: str) -> None:
        """Remove a file that was never more than begun; move any other that has no good header to quarantine."""
        file_system = self._place.file_system
        with contextlib.closing(file_system.open_to_read(path)) as file:
            size = file.size()
            blank = not any(any(file.read_at(1024 * 1024, at)) for at in range(0, size, 1024 * 1024))
        if blank:
            file_system.unlink(path)
        else:
            self._place.quarantine.take(path)
            self.damages.segments += 1
