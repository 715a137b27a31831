"""The way into a queue: a record gets its bytes, its place and its ticket, or a refusal."""

from __future__ import annotations

from typing import TYPE_CHECKING

from postroom.libs.exceptions import LifecycleError, NotRepresentableError, SpoolError, SpoolFullError
from postroom.streaming.spool.group_commit import BATCH_BYTES, refused_ticket, sums_by_topic
from postroom.streaming.spool.group_format import ENTRY_BYTES, group_bytes
from postroom.streaming.spool.record_format import pack_bodies, pack_body

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence

    from postroom.libs.clock import Clock
    from postroom.libs.event import Headers, Record
    from postroom.libs.exceptions import PostroomError
    from postroom.streaming.spool.availability import Availability
    from postroom.streaming.spool.group_commit import OnStored, Ticket, WaitingBatches
    from postroom.streaming.spool.segment_store import QueuePlace, SegmentStore
    from postroom.streaming.spool.space import Space

MAX_WAITING_BYTES = 64 * 1024 * 1024
PUT_AT_ONCE, PUT_AT_ONCE_BYTES = 256, 1024 * 1024
QUEUE_RETRY_S = 0.1
FULL_RETRY_S = 1.0


class QueueIntake:
    """Takes records for the writer of a queue. Safe with threads. `wake` is called with the queue's lock held."""

    def __init__(
        self,
        place: QueuePlace,
        store: SegmentStore,
        batches: WaitingBatches,
        availability: Availability,
        clock: Clock,
        *,
        wake: Callable[[], None],
    ) -> None:
        self._place = place
        self._store = store
        self._batches = batches
        self._availability = availability
        self._clock = clock
        self._wake = wake
        self.is_closed = False

    def put(self, record: Record, labels: Headers, space: Space, *, claim: bool, on_stored: OnStored | None) -> Ticket:
        """Take a record. Raises as `Spool.append`."""
        now_ms = self._clock.time_ms()
        body = pack_body(record, labels, now_ms)
        key_hash = self._place.hash_of(record)
        store, size = self._store, ENTRY_BYTES + len(body)
        with self._place.lock:
            refusal = self._refusal(group_bytes(1, len(body)), space)
            if refusal is not None:
                raise refusal
            sequence, before, waiting = store.next_sequence, self._batches.size, store.waiting.total
            store.next_sequence = sequence + 1
            try:
                batch = self._batches.with_room_for(size)
                ticket = batch.add(record, body, key_hash, sequence, now_ms, claim=claim)
                if on_stored is not None:
                    batch.callbacks.append((on_stored, ticket))
                if not claim:
                    store.waiting.add(record.topic, key_hash)
                self._wake()
            except BaseException:
                self._take_back(sequence, before, waiting, {record.topic: (1, size)}, (key_hash,))
                raise
        return ticket

    def put_many(
        self, records: Iterable[Record], labels: Headers, space: Space, on_stored: OnStored | None
    ) -> list[Ticket]:
        """Take records in order. See `Spool.append_many`."""
        tickets: list[Ticket] = []
        refusal: PostroomError | None = None
        rest = iter(records)
        now_ms = self._clock.time_ms()
        while refusal is None and (some := _next_few(rest)):
            bodies, refusal = _packed(some, labels, now_ms)
            try:
                stored = self._put_packed(some[: len(bodies)], bodies, now_ms, space, on_stored)
            except (SpoolError, LifecycleError) as exc:
                refusal, stored = exc, []
            tickets += stored
            if refusal is not None:
                tickets += [refused_ticket(refusal, self._place.kind) for _ in range(len(some) - len(stored))]
        if refusal is not None:
            tickets += [refused_ticket(refusal, self._place.kind) for _ in rest]
        return tickets

    def _put_packed(
        self,
        records: Sequence[Record],
        bodies: Sequence[bytes],
        now_ms: int,
        space: Space,
        on_stored: OnStored | None,
    ) -> list[Ticket]:
        """Take all or none: asking for each would cost more than packing it. Raises SpoolError."""
        if not records:
            return []
        topics, key_hashes = sums_by_topic(records, bodies), self._place.hashes_of(records)
        size = sum([total for _, total in topics.values()])
        store, batches = self._store, self._batches
        with self._place.lock:
            refusal = self._refusal(group_bytes(len(bodies), size - ENTRY_BYTES * len(bodies)), space)
            if refusal is not None:
                raise refusal
            sequence, before, waiting = store.next_sequence, batches.size, store.waiting.total
            store.next_sequence = sequence + len(records)
            try:
                if size <= BATCH_BYTES:
                    batch = batches.with_room_for(size)
                    tickets = batch.add_all(bodies, key_hashes, topics, sequence, now_ms, on_stored)
                else:
                    each = enumerate(zip(records, bodies, key_hashes, strict=True), sequence)
                    tickets = [
                        batches.with_room_for(ENTRY_BYTES + len(body)).add(record, body, key_hash, number, now_ms)
                        for number, (record, body, key_hash) in each
                    ]
                    if on_stored is not None:
                        for ticket in tickets:
                            ticket.batch.callbacks.append((on_stored, ticket))
                store.waiting.add_all({topic: count for topic, (count, _) in topics.items()}, key_hashes)
                self._wake()
            except BaseException:
                self._take_back(sequence, before, waiting, topics, key_hashes)
                raise
        return tickets

    def _take_back(
        self,
        sequence: int,
        size: int,
        waiting: int,
        topics: Mapping[str, Sequence[int]],
        key_hashes: Sequence[int | None],
    ) -> None:
        """Undo an append that a signal's exception has cut short: records are in it whole or not at all.

        The frames of a group are numbered by where they stand in it: with a gap, each later ticket would name the
        frame of another. `size` and `waiting` are what they were before. A key may stay counted for good: its records
        go the longer way, until nothing waits.
        """
        self._batches.take_back(sequence, size)
        self._store.next_sequence = sequence
        counted = self._store.waiting.total - waiting
        if counted:  # by then all keys were counted
            found: dict[str, int] = {}
            for topic, (count, _) in topics.items():
                if sum(found.values()) < counted:
                    found[topic] = count
            self._store.waiting.remove_all(found, [one for one in key_hashes if one is not None])

    def _refusal(self, size: int, space: Space) -> SpoolError | None:
        """Return why nothing can be taken now. Raises LifecycleError. The queue's lock is held."""
        if self.is_closed:
            raise LifecycleError("the spool is being stopped")
        availability = self._availability
        if availability.since is not None or availability.asked_at is not None:
            refusal = availability.refusal(self._clock.monotonic())
            if refusal is not None:
                return refusal
        waiting = self._batches.size
        if waiting and waiting + size > MAX_WAITING_BYTES:
            return SpoolFullError("more records wait for the disk than memory should hold", retry_after_s=QUEUE_RETRY_S)
        if not space.admits(size):
            return SpoolFullError(
                "the spool has reached its limit", retry_after_s=FULL_RETRY_S, remedy="let it drain, or allow it more"
            )
        return None


def _next_few(records: Iterator[Record]) -> list[Record]:
    """Return the next records to pack together: enough to be worth it, and no more than memory should hold."""
    few: list[Record] = []
    size = 0
    for record in records:
        few.append(record)
        size += len(record.value or b"") + len(record.key or b"")
        for _, value in record.headers:
            size += len(value)
        if size >= PUT_AT_ONCE_BYTES or len(few) == PUT_AT_ONCE:
            break
    return few


def _packed(
    records: Sequence[Record], labels: Headers, now_ms: int
) -> tuple[list[bytes], NotRepresentableError | None]:
    """Return the bytes of the records before the first that no frame can hold, and what is said of that one."""
    try:
        return pack_bodies(records, labels, now_ms), None
    except NotRepresentableError:
        bodies: list[bytes] = []
        for record in records:  # one by one: which it was, the loop in C does not say
            try:
                bodies.append(pack_body(record, labels, now_ms))
            except NotRepresentableError as exc:
                return bodies, exc
        return bodies, None
