"""What waits for the next sync, and what its callers hold meanwhile."""

from __future__ import annotations

import threading
from collections import deque
from contextlib import suppress
from copy import copy
from functools import partial
from itertools import repeat
from threading import TIMEOUT_MAX
from typing import TYPE_CHECKING, TypeAlias

import msgspec

from postroom.libs.exceptions import ReceiptTimeoutError
from postroom.libs.logger import get_logger
from postroom.streaming.spool.group_format import ENTRY_BYTES, group_bytes
from postroom.streaming.spool.record_format import Kind, parse_body

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping, Sequence

    from postroom.libs.event import Record
    from postroom.libs.exceptions import PostroomError

BATCH_BYTES = 1024 * 1024


class Place(msgspec.Struct, frozen=True, gc=False):
    """Where a record stands in the spool. `sequence` rises within `kind` and `slot`."""

    slot: str
    kind: Kind
    sequence: int


class Batch:
    """Frames that are written and synced together. The queue's lock guards it until the writer has taken it.

    `bodies` are those of the frames, whose sequences rise by one from `first_sequence`; the first was appended at
    `appended_ms`. `topics` holds frames and bytes by topic, `claims` the tickets that want a claim, `key_hashes` those
    of the other records that have one. `claims_hold` turns true when the claims are noted as handed out.
    """

    __slots__ = (
        "_sleepers",
        "appended_ms",
        "bodies",
        "callbacks",
        "claims",
        "claims_hold",
        "error",
        "first_sequence",
        "is_done",
        "key_hashes",
        "kind",
        "size",
        "slot",
        "topics",
    )

    def __init__(self, slot: str, kind: Kind) -> None:
        self.slot = slot
        self.kind = kind
        self.size = 0
        self.first_sequence = 0
        self.appended_ms = 0
        self.bodies: list[bytes] = []
        self.topics: dict[str, list[int]] = {}
        self.key_hashes: list[int] = []
        self.claims: list[Ticket] = []
        self.callbacks: list[tuple[OnStored, Ticket]] = []
        self.claims_hold = False
        self.is_done = False
        self.error: PostroomError | None = None
        self._sleepers: list[threading.Lock] = []

    def add(
        self, record: Record, body: bytes, key_hash: int | None, sequence: int, appended_ms: int, *, claim: bool = False
    ) -> Ticket:
        """Add one record."""
        if not self.bodies:
            self.first_sequence, self.appended_ms = sequence, appended_ms
        size = ENTRY_BYTES + len(body)
        self.bodies.append(body)
        self._count(record.topic, 1, size)
        if claim:
            ticket = Ticket(self, sequence, record.topic, key_hash, size, appended_ms, wants_claim=True)
            self.claims.append(ticket)
            return ticket
        if key_hash is not None:
            self.key_hashes.append(key_hash)
        return Ticket(self, sequence)

    def add_all(
        self,
        bodies: Sequence[bytes],
        key_hashes: Sequence[int | None],
        topics: Mapping[str, Sequence[int]],
        sequence: int,
        appended_ms: int,
        on_stored: OnStored | None,
    ) -> list[Ticket]:
        """Add many at once. `topics` holds their frames and bytes.

        One callback stands for all of them: for one each, the garbage collector took as long as the rest.
        """
        if not self.bodies:
            self.first_sequence, self.appended_ms = sequence, appended_ms
        self.bodies += bodies
        self.key_hashes += [key_hash for key_hash in key_hashes if key_hash is not None]
        for topic, (frames, size) in topics.items():
            self._count(topic, frames, size)
        tickets = list(map(Ticket, repeat(self), range(sequence, sequence + len(bodies))))
        if on_stored is not None:
            self.callbacks.append((partial(_tell_each, on_stored, tickets), tickets[-1]))
        return tickets

    def _count(self, topic: str, frames: int, size: int) -> None:
        self.size += size
        sums = self.topics.get(topic)
        if sums is None:
            sums = self.topics[topic] = [0, 0]
        sums[0] += frames
        sums[1] += size

    def cut(self, sequence: int) -> None:
        """Take out the frames from this sequence on, which may be there in part."""
        if not self.bodies or self.next_sequence <= sequence:
            return
        del self.bodies[max(sequence - self.first_sequence, 0) :]
        self.claims = [ticket for ticket in self.claims if ticket.sequence < sequence]
        self.callbacks = [(callback, ticket) for callback, ticket in self.callbacks if ticket.sequence < sequence]
        self.size, self.topics, keys = 0, {}, 0
        claimed = {ticket.sequence for ticket in self.claims}
        for number, body in enumerate(self.bodies, self.first_sequence):
            record = parse_body(body).record
            self._count(record.topic, 1, ENTRY_BYTES + len(body))
            keys += record.key is not None and number not in claimed
        del self.key_hashes[keys:]

    @property
    def next_sequence(self) -> int:
        """The sequence after its last frame."""
        return self.first_sequence + len(self.bodies)

    @property
    def disk_bytes(self) -> int:
        """What it takes on the disk."""
        count = len(self.bodies)
        return group_bytes(count, self.size - ENTRY_BYTES * count) if count else 0

    def unclaimed(self) -> dict[str, int]:
        """Return how many of its records of each topic want no claim."""
        counts = {topic: frames for topic, (frames, _) in self.topics.items()}
        for ticket in self.claims:
            counts[ticket.topic] -= 1
        return {topic: count for topic, count in counts.items() if count}

    def complete(self, error: PostroomError | None) -> None:
        """Answer everybody, in the order of the frames; None is: safe."""
        self.error = error
        self.is_done = True
        for sleeper in tuple(self._sleepers):  # who comes later sees `is_done`
            sleeper.release()
        callbacks = self.callbacks
        # Its tickets can live long: they must not keep the bytes, nor a circle of references.
        self.callbacks, self.bodies, self.claims, self.key_hashes = [], [], [], []
        for callback, ticket in callbacks:
            _tell(callback, ticket)

    def wait(self, timeout_s: float | None) -> bool:
        """Return once everybody is answered; False when that took longer than `timeout_s` seconds.

        A lock for each who waits: an Event has the woken threads get past its own lock one by one before they get to
        the interpreter, and costs a tenth of all that 16 blocking threads do.
        """
        sleeper = threading.Lock()
        sleeper.acquire()
        self._sleepers.append(sleeper)
        if self.is_done:
            return True
        try:
            return sleeper.acquire(timeout=-1 if timeout_s is None else min(max(timeout_s, 0.0), TIMEOUT_MAX))
        finally:
            with suppress(ValueError):  # who asks again and again leaves nothing behind
                self._sleepers.remove(sleeper)


class Ticket(msgspec.Struct, eq=False, gc=False):
    """Stands for one appended record until it is known to be safe.

    For callers there are `sequence`, `place`, `error`, `is_taken`, `is_done`, `is_claimed` and `wait`. The rest is what
    has to be known of a claimed record to count it out, and is not set for others: one object for all of it.
    """

    batch: Batch
    sequence: int
    topic: str = ""
    key_hash: int | None = None
    size: int = 0
    appended_ms: int = 0
    wants_claim: bool = False

    @property
    def place(self) -> Place:
        """Where the record stands, once it is stored."""
        batch = self.batch
        return Place(batch.slot, batch.kind, self.sequence)

    @property
    def is_claimed(self) -> bool:
        """True for a record that was stored as claimed.

        False when its claim could not be noted on the disk: then it waits in the spool like any other.
        """
        return self.wants_claim and self.batch.claims_hold

    @property
    def is_taken(self) -> bool:
        """False for a record of `append_many` that was refused at once; `error` says why."""
        return bool(self.batch.slot)

    @property
    def is_done(self) -> bool:
        """True once it is known whether the record is safe."""
        return self.batch.is_done

    @property
    def error(self) -> PostroomError | None:
        """Why the record was not kept; None when it was, or when that is not known yet."""
        return self.batch.error

    def wait(self, timeout_s: float | None = None) -> int:
        """Return the record's sequence once it would survive a power cut.

        Raises SpoolFullError or SpoolUnavailableError when it was not kept, ReceiptTimeoutError when that is
        not known after `timeout_s` seconds.
        """
        batch = self.batch
        if not batch.is_done and not batch.wait(timeout_s):
            raise ReceiptTimeoutError("the spool has not synced the record yet")
        if batch.error is not None:
            raise copy(batch.error)  # one traceback for each caller
        return self.sequence


def refused_ticket(error: PostroomError, kind: Kind) -> Ticket:
    """Return the ticket of a record that was not taken."""
    batch = Batch("", kind)
    batch.complete(error)
    return Ticket(batch, 0)


def sums_by_topic(records: Sequence[Record], bodies: Sequence[bytes]) -> dict[str, list[int]]:
    """Return how many frames of each topic these make, and of how many bytes. Most often it is one topic."""
    topics = {record.topic for record in records}
    if len(topics) == 1:
        return {topics.pop(): [len(bodies), ENTRY_BYTES * len(bodies) + sum(map(len, bodies))]}
    sums: dict[str, list[int]] = {topic: [0, 0] for topic in topics}
    for record, body in zip(records, bodies, strict=True):
        found = sums[record.topic]
        found[0] += 1
        found[1] += ENTRY_BYTES + len(body)
    return sums


OnStored: TypeAlias = "Callable[[Ticket], object]"


def _tell(on_stored: OnStored, ticket: Ticket) -> None:
    try:
        on_stored(ticket)
    except Exception as exc:  # noqa: BLE001 - whatever one raises, the others must run and the writer go on
        get_logger("postroom.spool").error("spool_callback_failed", operation="spool", error=type(exc).__name__)


def _tell_each(on_stored: OnStored, tickets: Sequence[Ticket], _last: Ticket) -> None:
    for ticket in tickets:
        _tell(on_stored, ticket)


class WaitingBatches:
    """Batches in the order of writing; the last one still takes frames. Guarded by the queue's lock."""

    __slots__ = ("_batch_bytes", "_batches", "_kind", "_slot", "size")

    def __init__(self, slot: str, kind: Kind, batch_bytes: int) -> None:
        self._slot = slot
        self._kind = kind
        self._batch_bytes = batch_bytes
        self._batches: deque[Batch] = deque()
        self.size = 0

    def __bool__(self) -> bool:
        return bool(self._batches)

    def with_room_for(self, size: int) -> Batch:
        """Return the last batch, or a new one behind it when that has no room for `size` bytes; count them."""
        self.size += size
        batch = self._batches[-1] if self._batches else None
        if batch is None or batch.size + size > self._batch_bytes:
            batch = self.new_batch()
            self._batches.append(batch)
        return batch

    def new_batch(self) -> Batch:
        """Return an empty batch that is not among them."""
        return Batch(self._slot, self._kind)

    def first_sequence(self, otherwise: int) -> int:
        """Return the sequence of the first frame among them, `otherwise` where there is none."""
        return self._batches[0].first_sequence if self._batches else otherwise

    def take(self) -> Batch:
        """Take the first batch; its frames count as waiting until `forget`."""
        return self._batches.popleft()

    def take_all(self) -> list[Batch]:
        """Take all of them, for good: their frames wait no more."""
        batches = list(self._batches)
        self._batches.clear()
        for batch in batches:
            self.forget(batch)
        return batches

    def take_back(self, sequence: int, size: int) -> None:
        """Take out the frames from this sequence on; `size` is what it was without them."""
        self.size = size
        while self._batches:
            self._batches[-1].cut(sequence)
            if self._batches[-1].bodies:
                return
            self._batches.pop()

    def forget(self, batch: Batch) -> None:
        """Stop counting a batch that was taken."""
        self.size -= batch.size
