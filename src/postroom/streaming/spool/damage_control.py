"""What is done about bytes that nobody can read: kept for people, and counted out of everything that was promised."""

from __future__ import annotations

import contextlib
import threading
from array import array
from collections import Counter
from typing import TYPE_CHECKING

import msgspec

from postroom.streaming.spool.frame_scan import Damage, FrameScan, read_footer

if TYPE_CHECKING:
    from collections.abc import Mapping

    from postroom.libs.event import Record
    from postroom.streaming.spool.file_system import File
    from postroom.streaming.spool.hand import Hand
    from postroom.streaming.spool.segment_store import QueuePlace
    from postroom.streaming.spool.segments import Segment
    from postroom.streaming.spool.waiting import Waiting

_LOOK_BYTES = 1024 * 1024


class Damages(msgspec.Struct):
    """What could not be read since this queue was opened.

    `records` are those that were counted as waiting before, `by_topic` the same by topic; what was unreadable when a
    start counted is in `ranges` only, since nobody knows what it was.
    """

    ranges: int = 0
    torn_tails: int = 0
    segments: int = 0
    missing_segments: int = 0
    records: int = 0
    by_topic: dict[str, int] = {}


class _Good(msgspec.Struct, frozen=True, gc=False):
    sequence: int
    topic: str
    key_hash: int | None
    size: int


class DamageControl:
    """Takes note of damage in the segments of one queue, and keeps all counts right."""

    def __init__(self, place: QueuePlace, waiting: Waiting) -> None:
        self._place = place
        self._waiting = waiting
        self._aside_lock = threading.Lock()
        self.damages = Damages()
        self._untold: dict[str, int] = {}

    def note(self, segment: Segment, damage: Damage) -> None:
        """Take note of a range, to be set aside."""
        if segment.damaged.get(damage.offset, 0) >= damage.length:
            return
        segment.damaged[damage.offset] = damage.length
        segment.unsaved.append((damage.offset, damage.length))
        self.damages.ranges += 1

    def note_torn(self, segment: Segment, file: File, offset: int, groups_end: int) -> None:
        """Take note that no frame comes after `offset`, and no group after `groups_end`.

        Zeros are nothing: the room that was made ahead. Only inside a group that can be read they may be data.
        """
        length = _without_zeros(file, offset, segment.size) - offset
        if length:
            length = max(length, groups_end - offset)
        if length and offset not in segment.damaged:
            segment.damaged[offset] = length
            segment.unsaved.append((offset, length))
            self.damages.torn_tails += 1

    def found(self, segment: Segment, damage: Damage, hand: Hand) -> None:
        """Deal with a range that turned out unreadable after its segment was counted. Raises OSError.

        What is in hand stays so, and counts until it is acknowledged or put back.
        """
        if segment.damaged.get(damage.offset, 0) >= damage.length:
            return
        good: list[_Good] = []
        with contextlib.closing(self._place.file_system.open_to_read(segment.path)) as file:
            scan = new_scan(segment, file)
            self._gather(scan, segment, good)
            counted: Mapping[int, int] | None = None
            if segment.key_hashes is not None:
                counted = Counter(segment.key_hashes)
            elif (footer := read_footer(file, segment.size, segment.header.seed)) is not None:
                counted = footer[2].keys
            with self._place.lock:
                self._gather(scan, segment, good)  # what was appended meanwhile
                self._recount(segment, good, counted, hand)
        self.set_aside_unsaved(segment)

    def lost_file(self, segment: Segment, hand: Hand) -> None:
        """Give up a segment whose file somebody has removed. Keys of it count as waiting until the next start."""
        with self._place.lock:
            self.damages.missing_segments += 1
            segment.unsaved, segment.is_gone = [], True
            if segment.is_known:
                self._recount(segment, [], None, hand)
            segment.is_known = True

    def lost_record(self, topic: str) -> None:
        """Note that a record cannot be read any more. The caller holds the queue's lock."""
        self._lost({topic: 1})

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

    # -- inside

    def _gather(self, scan: FrameScan, segment: Segment, good: list[_Good]) -> None:
        for found in scan.run(segment.frames_end):
            if isinstance(found, Damage):
                self.note(segment, found)
            else:
                record = found.stored.record
                good.append(_Good(found.sequence, record.topic, self._hash(record), found.size))

    def _recount(self, segment: Segment, good: list[_Good], counted: Mapping[int, int] | None, hand: Hand) -> None:
        """Make the counts those of the frames that can be read or are in hand. The queue's lock is held."""
        there = {frame.sequence: frame for frame in good}
        for sequence, held in hand.of_segment(segment):
            if sequence not in there:
                segment.unreadable.add(sequence)
                there[sequence] = _Good(sequence, held.topic, held.key_hash, held.size)
        # A lost frame that was acknowledged before has left the key counters already, and nobody knows its key any
        # more: then they stay too high until the next start, which sends some records the longer way.
        is_certain = True
        for sequence in range(segment.header.first_sequence, segment.next_sequence):
            if sequence not in there:
                is_certain = is_certain and not segment.is_done(sequence)
                segment.mark_lost(sequence)
        before, segment.topics, segment.waiting = segment.topics, {}, 0
        readable = array("I", [frame.key_hash for frame in there.values() if frame.key_hash is not None])
        for frame in there.values():
            if not segment.is_done(frame.sequence) and not segment.is_lost(frame.sequence):
                sums = segment.topics.setdefault(frame.topic, [0, 0])
                sums[0] += 1
                sums[1] += frame.size
                segment.waiting += 1
        lost = {topic: records - segment.topics.get(topic, (0, 0))[0] for topic, (records, _) in before.items()}
        lost = {topic: count for topic, count in lost.items() if count}
        missing = Counter(counted if is_certain else None) - Counter(readable)
        # What was taken out now must not be taken out again when more of the segment turns out unreadable.
        segment.key_hashes = readable
        self._waiting.remove_lost(lost, missing)
        self._lost(lost)

    def _lost(self, by_topic: dict[str, int]) -> None:
        damages = self.damages
        for topic, count in by_topic.items():
            damages.records += count
            damages.by_topic[topic] = damages.by_topic.get(topic, 0) + count
            self._untold[topic] = self._untold.get(topic, 0) + count

    def newly_lost(self) -> dict[str, int]:
        """Return how many counted records of each topic turned out unreadable since the last call."""
        if not self._untold:
            return {}
        with self._place.lock:
            untold, self._untold = self._untold, {}
        return untold

    def _hash(self, record: Record) -> int | None:
        return self._place.hash_of(record)


def new_scan(segment: Segment, file: File) -> FrameScan:
    """Return a scan of a segment's file from its first frame on."""
    header = segment.header
    return FrameScan(file, seed=header.seed, kind=header.kind, next_sequence=header.first_sequence)


def _without_zeros(file: File, begin: int, end: int) -> int:
    """Return where the zeros begin that the range ends with."""
    while end > begin:
        at = max(begin, end - _LOOK_BYTES)
        rest = file.read_at(end - at, at).rstrip(b"\0")
        if rest:
            return at + len(rest)
        end = at
    return begin
