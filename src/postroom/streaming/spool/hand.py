"""What of a queue is in hand: given to somebody who has neither acknowledged it nor given it back."""

from __future__ import annotations

from typing import TYPE_CHECKING

import msgspec

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator, Mapping, Sequence

    from postroom.streaming.spool.frame_scan import Frame
    from postroom.streaming.spool.group_commit import Ticket
    from postroom.streaming.spool.segment_store import QueuePlace, SegmentStore
    from postroom.streaming.spool.segments import Segment


class Held(msgspec.Struct, frozen=True, gc=False):
    """What has to be known of a record in hand to count it out; a ticket knows it, too. `size` is that of its frame."""

    topic: str
    size: int
    key_hash: int | None
    appended_ms: int


class Hand:
    """The records that were read, and those claimed when they were appended. Guarded by the queue's lock.

    `is_dirty` is set by acknowledgements, for whoever writes the cursor. `has_put_back` says that something was given
    back since the last rewind.
    """

    __slots__ = ("_claimed", "_place", "_read", "_store", "has_put_back", "is_dirty")

    def __init__(self, place: QueuePlace, store: SegmentStore) -> None:
        self._place = place
        self._store = store
        self._read: dict[int, Held] = {}
        self._claimed: dict[int, Ticket] = {}
        self.is_dirty = False
        self.has_put_back = False

    def __contains__(self, sequence: int) -> bool:
        return sequence in self._read or sequence in self._claimed

    def __len__(self) -> int:
        return len(self._read) + len(self._claimed)

    @property
    def claimed(self) -> int:
        """How many of them are claimed."""
        return len(self._claimed)

    # -- into the hand; the caller holds the lock

    def take_read(self, segment: Segment, frame: Frame, key_hash: int | None) -> None:
        """Take a record that was read."""
        stored = frame.stored
        self._read[frame.sequence] = Held(stored.record.topic, frame.size, key_hash, stored.appended_ms)
        segment.in_hand += 1

    def take_claimed(self, segment: Segment, tickets: Sequence[Ticket]) -> None:
        """Take records that were stored as claimed."""
        self._claimed.update({ticket.sequence: ticket for ticket in tickets})
        segment.in_hand += len(tickets)

    # -- out of it; these take the lock

    def ack(self, sequence: int) -> bool:
        """Note that a record is safe elsewhere; False for one that is not in hand. Never waits for the disk."""
        with self._place.lock:
            held: Ticket | Held | None = self._claimed.pop(sequence, None)
            if held is None:
                held = self._read.pop(sequence, None)
                if held is None:
                    return False
                self._store.waiting.remove(held.topic, held.key_hash)
            self._store.holding(sequence).acknowledge(sequence, held.topic, held.size)
            self.is_dirty = True
        return True

    def put_back(self, sequences: Iterable[int], *, sent: bool) -> int:
        """Let records wait again, for the next rewind; return how many were in hand.

        `sent` says that they may be in Kafka now: then they are marked when they are read again.
        """
        count, waiting = 0, self._store.waiting
        with self._place.lock:
            for sequence in sequences:
                held: Ticket | Held | None = self._claimed.pop(sequence, None)
                was_claimed = held is not None
                if held is None:
                    held = self._read.pop(sequence, None)
                if held is None:
                    continue
                count += 1
                segment = self._store.holding(sequence)
                segment.in_hand -= 1
                if sent:
                    segment.mark_sent(sequence)
                if sequence in segment.unreadable:
                    segment.lose_unreadable(sequence, held.topic, held.size, held.key_hash)
                    self._store.damage.lost_record(held.topic)
                    if not was_claimed:
                        waiting.remove(held.topic, held.key_hash)
                elif was_claimed:
                    waiting.add(held.topic, held.key_hash)
            self.has_put_back = self.has_put_back or count > 0
        return count

    # -- looking; the caller holds the lock

    def of_segment(self, segment: Segment) -> Iterator[tuple[int, Ticket | Held]]:
        """Give what is in hand of one segment: the sequence, and what is known."""
        first, behind = segment.header.first_sequence, segment.next_sequence
        tables: tuple[Mapping[int, Ticket | Held], ...] = (self._read, self._claimed)
        for table in tables:
            yield from ((sequence, held) for sequence, held in table.items() if first <= sequence < behind)

    def end(self) -> int:
        """Return the sequence after the highest in hand; 0 when nothing is."""
        return max(max(self._read, default=-1), max(self._claimed, default=-1)) + 1

    def oldest_read_ms(self) -> int | None:
        """Return when the oldest record that was read was appended; None when there is none."""
        return min((held.appended_ms for held in self._read.values()), default=None)
