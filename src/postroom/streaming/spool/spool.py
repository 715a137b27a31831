"""The durable local queue: what waits for Kafka waits here, on this disk, and survives everything but the disk.

    spool = Spool("/var/lib/postroom/spool")
    spool.start()
    spool.append(record, kind=Kind.RECORD).wait()        # returns once a power cut cannot take it
    for waiting in spool.read(Kind.RECORD):
        ...                                              # send waiting.record, marked if waiting.sent_before
        spool.ack(waiting)
    spool.stop()

Format, order of the operations and recovery: docs/specs/spool-format.md.
"""

from __future__ import annotations

import contextlib
import os
import threading
import weakref
from typing import TYPE_CHECKING

from postroom.libs.clock import SYSTEM_CLOCK
from postroom.libs.exceptions import LifecycleError, SpoolError
from postroom.libs.logger import get_logger, limited
from postroom.streaming.spool.availability import spool_error
from postroom.streaming.spool.file_system import OsFileSystem
from postroom.streaming.spool.group_commit import BATCH_BYTES
from postroom.streaming.spool.held_slot import HeldSlot, HeldSlots, SharedByQueues, hold
from postroom.streaming.spool.key_counts import KeyCounts
from postroom.streaming.spool.queue_writer import WriteSettings
from postroom.streaming.spool.record_format import KeyHash, Kind
from postroom.streaming.spool.segments import FILL_BYTES
from postroom.streaming.spool.slots import Slots
from postroom.streaming.spool.space import Space, SpaceLimits
from postroom.streaming.spool.status import FoundRecords, SpoolStatus

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable
    from pathlib import Path

    from postroom.libs.clock import Clock
    from postroom.libs.event import Headers, Record
    from postroom.streaming.spool.file_system import FileSystem
    from postroom.streaming.spool.group_commit import OnStored, Place, Ticket
    from postroom.streaming.spool.queue_reader import SpooledRecord
    from postroom.streaming.spool.slots import Slot
    from postroom.streaming.spool.spool_queue import SpoolQueue

_MIB = 1024 * 1024
_SMALLEST_SEGMENT_BYTES = 64 * 1024
_TEND_EVERY_S = 0.25
# How long a stop waits for the upkeep, which takes milliseconds unless the disk hangs.
_UPKEEP_ENDS_S = 5.0


class Spool:
    """Keeps records on disk until they are acknowledged. Safe with threads; in a forked child it is closed.

    `max_bytes` caps what this process keeps, `max_disk_share` its share of the file system; `reserve_bytes`, but never
    more than a twentieth of the file system, is left free for others. The open segment of each queue is filled with
    zeros ahead of its records, `fill_bytes` at most: they count against no cap. A cursor of `cursor_bytes` bytes notes
    the acknowledgements of 8 times as many records; `key_counters` is the size of the table behind `holds_key`. With
    `background=False` no thread is started: `append` writes before it returns, `start` counts before it returns, and
    `tend` has to be called now and then.
    """

    def __init__(
        self,
        directory: str | Path,
        *,
        file_system: FileSystem | None = None,
        clock: Clock = SYSTEM_CLOCK,
        segment_bytes: int = 16 * _MIB,
        max_bytes: int = 10 * 1024 * _MIB,
        max_disk_share: float = 0.5,
        reserve_bytes: int = 64 * _MIB,
        fill_bytes: int = FILL_BYTES,
        batch_bytes: int = BATCH_BYTES,
        cursor_bytes: int = 128 * 1024,
        key_counters: int = 2**20,
        background: bool = True,
        salt: Callable[[], bytes] = lambda: os.urandom(8),
    ) -> None:
        self._root = os.path.abspath(directory)  # noqa: PTH100 - the same for both kinds, links kept
        self._file_system: FileSystem = OsFileSystem() if file_system is None else file_system
        self._clock = clock
        self._limits = SpaceLimits(max_bytes, max_disk_share, reserve_bytes)
        capped = max(_SMALLEST_SEGMENT_BYTES, max_bytes // 8)
        self._settings = WriteSettings(min(segment_bytes, capped), fill_bytes, batch_bytes, clock, salt)
        self._cursor_bytes = cursor_bytes
        self._background = background
        self._keys = KeyCounts(key_counters)
        self._keys_lock = threading.Lock()
        self._key_hash = KeyHash()
        self._slots: Slots | None = None
        self._held = HeldSlots()
        self._own: dict[Kind, SpoolQueue] | None = None
        self._own_from: dict[Kind, int] = {}
        self._space = Space(self._file_system, self._root, self._limits, lambda: self.used_bytes)
        self._stopping = threading.Event()
        self._keeper: threading.Thread | None = None
        self._log = limited(get_logger("postroom.spool"))

    # -- life

    def start(self) -> None:
        """Claim a slot and find what is in it: when this returns, records can be appended, whatever the size.

        Raises SpoolUnavailableError or SpoolFullError when no slot can be had, LifecycleError when started before.
        """
        if self._held or self._stopping.is_set():
            raise LifecycleError("this spool was started before", remedy="make a new one")
        owner = f"pid {os.getpid()}, since {self._clock.time_ms()} ms\n"
        self._slots = Slots(self._file_system, self._root, owner=owner)
        held = self._claimed(self._slots)
        self._held.add(held)
        self._own = held.queues
        self._own_from = {kind: queue.next_sequence for kind, queue in held.queues.items()}
        self._held.check_counted()
        self._space.sample()
        _live.add(self)
        if not self._background:
            self._count()
            return
        for queue in held.queues.values():
            queue.start_writing()
        self._keeper = threading.Thread(target=self._keep, name="spool-keeper", daemon=True)
        self._keeper.start()

    def stop(self) -> None:
        """Write what waits, let go of all files and slots. Appending raises from now on.

        Where the disk does not answer, that is not waited for: who waits for it is told, and the slot is let go by the
        end of this process. Calling it again does nothing; when Ctrl-C cut it short, it goes on.
        """
        self._own = None
        self._stopping.set()
        answers = True
        if self._keeper is not None:
            self._keeper.join(_UPKEEP_ENDS_S)
            answers = not self._keeper.is_alive()
        for held in self._held:  # held to the last: who is told now that a record is stored may acknowledge it
            if not answers:
                held.leave()
            elif not held.close():
                answers = False
        if not answers:
            self._log.error("disk_unanswered", operation="stop")
        self._held.clear()
        _live.discard(self)

    def take_over_unclaimed(self) -> int:
        """Take over the slots with records whose owners are gone; return how many. Their records are read first.

        One that cannot be opened is left for the next call. Raises SpoolUnavailableError.
        """
        slots, taken = self._slots, 0
        if slots is None or self._own is None:
            raise LifecycleError("the spool is not running")
        try:
            for slot in slots.unclaimed():
                try:
                    self._held.add(self._hold(slot))
                    taken += 1
                except SpoolError as exc:
                    self._not_opened(slot, exc)
        except OSError as exc:
            raise spool_error(exc, retry_after_s=None) from exc
        if not self._background:
            self._count()
        return taken

    # -- the way in

    def append(
        self,
        record: Record,
        *,
        kind: Kind = Kind.RECORD,
        labels: Headers = (),
        claim: bool = False,
        on_stored: OnStored | None = None,
    ) -> Ticket:
        """Store a record behind all others of its kind; the ticket is done when a power cut cannot take it any more.

        Records are stored in the order of these calls. `on_stored(ticket)` is called in that order, on the writing
        thread, once it is known whether the record is safe (`ticket.error`), never inside this call unless the spool
        has no threads. It must be short: the next batch waits for it.

        With `claim` the record is in hand from the beginning: `read` passes it over, it holds no key and does not
        count as waiting, until `put_back`. Before anybody learns that it is stored, it is noted on the disk as handed
        out; where that fails, `ticket.is_claimed` is False and the record waits like any other.

        Raises SpoolFullError and SpoolUnavailableError when it is clear at once that nothing can be stored,
        NotRepresentableError for a record that no frame can hold, LifecycleError when the spool is not running or
        belongs to the parent of this process.
        """
        return self._queue(kind).append(record, labels, self._space, claim=claim, on_stored=on_stored)

    def append_many(
        self,
        records: Iterable[Record],
        *,
        kind: Kind = Kind.RECORD,
        labels: Headers = (),
        on_stored: OnStored | None = None,
    ) -> list[Ticket]:
        """Store records in order; a ticket for each. `on_stored(ticket)` is called for each, as `append` would.

        Where `append` would raise, the record and all after it have tickets that are done, hold the error and are not
        `is_taken`; `on_stored` is not called for them. What was stored before is not forgotten, and nothing overtakes.
        Raises LifecycleError only, and before anything was taken.
        """
        return self._queue(kind).append_many(records, labels, self._space, on_stored)

    # -- the way out

    def read(self, kind: Kind, *, max_records: int = 1000, max_bytes: int = _MIB) -> list[SpooledRecord]:
        """Return the next records of a kind that were not handed out yet, in order, slots taken over first.

        Only what is synced is given. Empty when there is no more now. Raises SpoolUnavailableError.
        """
        found: list[SpooledRecord] = []
        for held in self._held.in_reading_order():
            if len(found) < max_records:
                found += held.queues[kind].read(max_records - len(found), max_bytes)
        return found

    def ack(self, place: SpooledRecord | Place) -> bool:
        """Note that a record is safe elsewhere, in any order; False if it is not in hand. Never waits for a disk."""
        queue = self._held.queue_of(place)
        return queue is not None and queue.ack(place.sequence)

    def put_back(self, places: Iterable[SpooledRecord | Place], *, sent: bool) -> int:
        """Let records in hand wait again: nothing of them is on its way any more. Return how many were in hand.

        The next `rewind` brings them back in their order. `sent` says that they may be in Kafka: then they are marked
        when they are read again. Without it they are marked only where an earlier try or process may have sent them.
        """
        by_queue: dict[tuple[str, Kind], list[int]] = {}
        for place in places:
            by_queue.setdefault((place.slot, place.kind), []).append(place.sequence)
        count = 0
        for held in self._held:
            for kind, queue in held.queues.items():
                sequences = by_queue.get((held.name, kind))
                if sequences:
                    count += queue.put_back(sequences, sent=sent)
        return count

    def rewind(self, kind: Kind) -> None:
        """Begin reading at the oldest record again. What is in hand stays so, and is passed over."""
        for held in self._held:
            held.queues[kind].rewind()

    # -- records that kill

    def on_trial(self, place: SpooledRecord | Place) -> None:
        """Note on the disk that a record in hand is alone on its way, of all records of its kind.

        If this process dies before `trial_over`, the next start counts a death at this record. Costs a sync. Raises
        SpoolError when the disk does not take the note; then nothing is counted.
        """
        queue = self._held.queue_of(place)
        if queue is not None:
            try:
                queue.begin_trial(place.sequence)
            except OSError as exc:
                raise spool_error(exc, retry_after_s=None) from exc

    def trial_over(self, place: SpooledRecord | Place) -> None:
        """Note on the disk that this process outlived the trial of a record; its deaths are forgotten. Costs a sync.

        Does nothing when the record is not on trial. Raises SpoolError; then the trial goes on.
        """
        queue = self._held.queue_of(place)
        if queue is not None:
            try:
                queue.end_trial(place.sequence)
            except OSError as exc:
                raise spool_error(exc, retry_after_s=None) from exc

    def deaths_at(self, place: SpooledRecord | Place) -> int:
        """Return how many processes in a row have died while they had this record on trial."""
        queue = self._held.queue_of(place)
        return 0 if queue is None else queue.deaths_at(place.sequence)

    # -- looking

    def holds_key(self, topic: str, key: bytes | None) -> bool:
        """Return True if a new record of this key must queue behind one in the spool.

        Never wrongly False. True for every key until a start has counted; rarely True for a key that shares a
        counter with another. False for records without a key: they have no order.
        """
        if key is None:
            return False
        # In this order: the keys are complete before this turns true.
        return not self._held.is_counted or self._keys.holds(self._key_hash(topic, key))

    def waiting(self, topic: str, kind: Kind = Kind.RECORD) -> int:
        """Return how many records of a topic are neither acknowledged nor claimed.

        What was read counts. Never wrongly 0: at least 1 until a start, or a take-over, has counted.
        """
        is_counted = self._held.is_counted  # first: the counts are complete before it turns true
        count = sum([held.queues[kind].waiting(topic) for held in self._held])
        return count if is_counted else count or 1

    def has_waiting(self, kind: Kind) -> bool:
        """Return True if any record of a kind is neither acknowledged nor claimed, or a start has not counted yet."""
        return not self._held.is_counted or any(held.queues[kind].has_waiting for held in self._held)

    def waiting_by_topic(self, kind: Kind) -> dict[str, int]:
        """Return how many counted records of each topic are neither acknowledged nor claimed."""
        topics: dict[str, int] = {}
        for held in self._held:
            for topic, count in held.queues[kind].waiting_by_topic().items():
                topics[topic] = topics.get(topic, 0) + count
        return topics

    def newly_found(self, kind: Kind) -> list[FoundRecords]:
        """Return what earlier processes left, each record once: what was counted since the last call.

        No record is read before it is counted. So whoever calls this after `read` knows of all that it returned.
        """
        return [
            FoundRecords(held.name, topic, count)
            for held in self._held
            for topic, count in held.queues[kind].newly_found().items()
        ]

    def newly_lost(self, kind: Kind) -> dict[str, int]:
        """Return how many records of each topic turned out unreadable since the last call; they lie in quarantine.

        Only such as were counted before: what a start finds damaged was never found.
        """
        lost: dict[str, int] = {}
        for held in self._held:
            for topic, count in held.queues[kind].newly_lost().items():
                lost[topic] = lost.get(topic, 0) + count
        return lost

    def is_own(self, place: SpooledRecord | Place) -> bool:
        """Return True for a record that was appended since this spool started, False for what an earlier one left."""
        held = self._held
        return bool(held) and held[0].name == place.slot and place.sequence >= self._own_from[place.kind]

    @property
    def is_counted(self) -> bool:
        """True once everything found at the start, or taken over, is counted."""
        return self._held.is_counted

    @property
    def is_empty(self) -> bool:
        """True when everything is acknowledged, records and dead letters, and all of it is counted."""
        return self._held.is_counted and all(queue.is_empty for queue in self._held.queues())

    @property
    def used_bytes(self) -> int:
        """What counts against the caps: bytes on the disk and on their way there."""
        return sum([queue.used_bytes for queue in self._held.queues()])

    def status(self) -> SpoolStatus:
        """Say what is in the spool, as it is known in memory. Waits for no disk."""
        return SpoolStatus(
            tuple(held.status() for held in self._held),
            self.used_bytes,
            self._space.limit_bytes,
            self._space.is_full,
            self._slots.newer if self._slots else (),
        )

    # -- upkeep

    def tend(self) -> None:
        """Do what is due: note acknowledgements, free finished segments, try a failed disk, look at the free space."""
        self._space.sample()
        for queue in self._held.queues():
            try:
                queue.tend(is_full=self._space.is_full)
            except OSError as exc:
                self._log.error("spool_upkeep_failed", operation="spool", error=exc.strerror)
        for held in self._held:
            with contextlib.suppress(OSError):  # then what was known stands
                held.quarantine.look()
        self._held.release_emptied()

    # -- inside

    def _queue(self, kind: Kind) -> SpoolQueue:
        own = self._own
        if own is None:
            raise LifecycleError("the spool is not running in this process", remedy="start one here")
        return own[kind]

    def _claimed(self, slots: Slots) -> HeldSlot:
        """Return a slot of our own: the first that can be opened. What is wrong with a new one is raised."""
        error: SpoolError | None = None
        try:
            for slot in slots.claim():
                try:
                    return self._hold(slot)
                except SpoolError as exc:
                    error = self._not_opened(slot, exc)
        except OSError as exc:
            raise error or spool_error(exc, retry_after_s=None) from exc
        assert error is not None
        raise error

    def _not_opened(self, slot: Slot, exc: SpoolError) -> SpoolError:
        """Say that a slot is passed over; what is in it is left for a later start, or a later look."""
        self._log.error("slot_not_opened", operation="spool", slot=slot.name, error=exc.code, detail=exc.message)
        return exc

    def _hold(self, slot: Slot) -> HeldSlot:
        shared = SharedByQueues(self._file_system, self._keys, self._keys_lock, self._key_hash)
        try:
            return hold(slot, shared, self._settings, cursor_bytes=self._cursor_bytes)
        except OSError as exc:
            raise spool_error(exc, retry_after_s=None) from exc

    def _count(self) -> None:
        for queue in self._held.queues():
            try:
                while not self._stopping.is_set() and queue.count_next():
                    pass
            except OSError as exc:
                self._log.error("spool_count_failed", operation="spool", error=exc.strerror)
        self._held.check_counted()

    def _keep(self) -> None:
        while not self._stopping.is_set():
            try:
                self._count()
                self.tend()
            except Exception as exc:  # noqa: BLE001 - without this thread no room would ever be free again
                self._log.error("spool_upkeep_failed", operation="spool", error=type(exc).__name__)
            self._stopping.wait(_TEND_EVERY_S)

    def _forget_after_fork(self) -> None:
        # Locks may be held by threads that do not exist here: nothing that takes one may run. The files are closed
        # by the file system itself.
        self._held, self._own, self._keeper = HeldSlots(), None, None


_live: weakref.WeakSet[Spool] = weakref.WeakSet()


def _forget_all() -> None:
    for spool in list(_live):
        spool._forget_after_fork()  # noqa: SLF001 - its own module


os.register_at_fork(after_in_child=_forget_all)
