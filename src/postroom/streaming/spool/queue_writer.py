"""The one writer of a queue: takes what waits, syncs it, answers; and what it does when the disk says no."""

from __future__ import annotations

import errno
import threading
from typing import TYPE_CHECKING

import msgspec

from postroom.libs.exceptions import SpoolUnavailableError
from postroom.libs.logger import get_logger
from postroom.streaming.spool.availability import unanswered
from postroom.streaming.spool.cursor_keeper import CLAIM_STRIDE
from postroom.streaming.spool.footer import add_topics
from postroom.streaming.spool.group_commit import WaitingBatches
from postroom.streaming.spool.group_format import pack_group
from postroom.streaming.spool.segments import create_segment

if TYPE_CHECKING:
    from collections.abc import Callable

    from postroom.libs.clock import Clock
    from postroom.libs.exceptions import SpoolError
    from postroom.streaming.spool.availability import Availability
    from postroom.streaming.spool.cursor_keeper import CursorKeeper
    from postroom.streaming.spool.group_commit import Batch, Ticket
    from postroom.streaming.spool.hand import Hand
    from postroom.streaming.spool.segment_store import QueuePlace, SegmentStore
    from postroom.streaming.spool.segments import Segment, SegmentWriter


class WriteSettings(msgspec.Struct, frozen=True):
    """How a queue writes. `salt` gives 8 random bytes, `fill_bytes` is how far segments are filled ahead at most."""

    segment_bytes: int
    fill_bytes: int
    batch_bytes: int
    clock: Clock
    salt: Callable[[], bytes]


class QueueWriter:
    """Writes batches in order, each with one sync. Any thread may call `commit_next`; one is in it at a time."""

    def __init__(
        self,
        place: QueuePlace,
        store: SegmentStore,
        hand: Hand,
        keeper: CursorKeeper,
        availability: Availability,
        settings: WriteSettings,
        *,
        slot: str,
    ) -> None:
        self._place = place
        self._store = store
        self._hand = hand
        self._keeper = keeper
        self._availability = availability
        self._settings = settings
        self._writer: SegmentWriter | None = None
        self._current: Batch | None = None  # whoever takes it from here answers it
        self._commit_lock = threading.Lock()
        self.waiting = WaitingBatches(slot, place.kind, settings.batch_bytes)

    def commit_next(self) -> bool:
        """Write the next batch and answer its callers; False when none waits. Raises nothing."""
        with self._commit_lock:
            with self._place.lock:
                if not self.waiting:
                    return False
                batch = self._current = self.waiting.take()
            try:
                error = self._commit(batch)
            except Exception as exc:  # noqa: BLE001 - a fault of ours must leave nobody waiting for ever
                error = self._broken(exc)
            segment = None if self._writer is None else self._writer.segment
        with self._place.lock:
            is_ours, self._current = self._current is batch, None
        if is_ours:
            batch.complete(error)
        if error is None and segment is not None:
            self._told(segment)
        return True

    def abandon(self) -> None:
        """Answer everybody who waits for a disk that does not answer. What it was given last may be there later."""
        with self._place.lock:
            given, self._current = self._current, None
            waiting = self.waiting.take_all()
        stalled_s = self._availability.stalled_s(self._settings.clock.monotonic())
        if given is not None:
            given.complete(unanswered(stalled_s, may_resurface=True))
        for batch in waiting:
            batch.complete(unanswered(stalled_s))

    def try_again(self) -> None:
        """Find out whether the disk works again, by a batch without frames."""
        with self._commit_lock:
            if self._commit(self.waiting.new_batch()) is None and self._writer is not None:
                self._told(self._writer.segment)

    def _told(self, segment: Segment) -> None:
        """Note that everybody of one batch was told: when that is so of all, what was held back may be read."""
        with self._place.lock:
            segment.telling -= 1
            if not segment.telling:
                segment.held_back = 0

    def retire(self, *, smallest_bytes: int) -> None:
        """Close the open segment if all of it is acknowledged and it has `smallest_bytes`, so that it can be removed.

        Does nothing while a batch is being written.
        """
        if not self._commit_lock.acquire(blocking=False):
            return
        try:
            writer = self._writer
            if writer is not None and not writer.segment.waiting and writer.segment.frames_end >= smallest_bytes:
                self._give_up(writer)
                writer.close()
        finally:
            self._commit_lock.release()

    def close(self) -> None:
        """Write what waits, close the open segment with its footer, or without one when nothing in it is needed."""
        while self.commit_next():
            pass
        with self._commit_lock:
            writer = self._writer
            if writer is not None and writer.segment.waiting:
                self._seal(writer)
            elif writer is not None:
                self._give_up(writer)
                writer.close()

    # -- inside; the commit lock is held

    def _commit(self, batch: Batch) -> SpoolError | None:
        self._availability.asked_at = self._settings.clock.monotonic()
        try:
            return self._write(batch)
        finally:
            self._availability.asked_at = None

    def _write(self, batch: Batch) -> SpoolError | None:
        writer: SegmentWriter | None = None
        try:
            writer = self._writer_for(batch)
            seed, first = writer.segment.header.seed, batch.first_sequence
            writer.append(pack_group(seed, self._place.kind, first, batch.bodies) if batch.bodies else b"")
        except Exception as exc:  # noqa: BLE001 - whatever it is, the batch was not stored and its callers must know
            may_resurface = False
            if writer is not None:
                may_resurface = not writer.cut_back()
                self._give_up(writer)
            return self._failed(batch, _os_error(exc), may_resurface=may_resurface and bool(batch.bodies))
        batch.claims_hold = self._is_noted(batch.claims)
        self._stored(batch, writer)
        return None

    def _broken(self, exc: Exception) -> SpoolError:
        """Give up the segment after a fault that nobody expected; return what its batch is told."""
        _log_fault(exc)
        writer = self._writer
        if writer is not None:
            self._give_up(writer)
            writer.close()
            writer.segment.held_back = writer.segment.telling = 0
        return SpoolUnavailableError("the spool has failed within itself; its log says where", may_resurface=True)

    def _is_noted(self, claims: list[Ticket]) -> bool:
        """Note on the disk that these are handed out, before anybody can learn that they are stored."""
        try:
            if claims:
                self._keeper.note_handed_out(claims[-1].sequence + 1, stride=CLAIM_STRIDE)
        except OSError:  # the records are safe; without the note they must wait like any other
            return False
        return True

    def _writer_for(self, batch: Batch) -> SegmentWriter:
        writer = self._writer
        if writer is not None and writer.segment.is_gone:
            self._give_up(writer)
            writer.close()
        elif writer is not None and writer.summary.frames:
            if writer.segment.frames_end + batch.disk_bytes <= self._settings.segment_bytes:
                return writer
            self._seal(writer)
        elif writer is not None:
            return writer
        return self._new_writer(batch)

    def _new_writer(self, batch: Batch) -> SegmentWriter:
        place, settings = self._place, self._settings
        self._keeper.ensure()  # while there is room: a full disk must not keep records from being handed out
        with place.lock:
            # A try without frames may come while some wait: they go into this segment, and have their numbers already.
            first = batch.first_sequence or self.waiting.first_sequence(self._store.next_sequence)
            segment_id = self._store.next_id
        writer = create_segment(
            place.file_system,
            place.folder,
            kind=place.kind,
            segment_id=segment_id,
            first_sequence=first,
            now_ms=settings.clock.time_ms(),
            salt=settings.salt(),
            segment_bytes=settings.segment_bytes,
            fill_bytes=settings.fill_bytes,
        )
        self._writer = writer
        with place.lock:
            self._store.add(writer.segment)
        return writer

    def _stored(self, batch: Batch, writer: SegmentWriter) -> None:
        segment, summary, size = writer.segment, writer.summary, batch.disk_bytes
        with self._place.lock:
            if batch.claims_hold:
                self._hand.take_claimed(segment, batch.claims)
            else:
                for ticket in batch.claims:
                    self._store.waiting.add(ticket.topic, ticket.key_hash)
            summary.add_batch(batch)
            add_topics(segment.topics, batch.topics)
            segment.oldest_ms = summary.oldest_ms
            segment.waiting += len(batch.bodies)
            segment.frames_end += size
            segment.held_back += size
            segment.telling += 1
            segment.size = segment.frames_end
            if batch.bodies:
                segment.next_sequence = batch.next_sequence
            self._store.disk_bytes += size
            self.waiting.forget(batch)
            self._availability.succeeded()

    def _failed(self, batch: Batch, exc: OSError, *, may_resurface: bool) -> SpoolError:
        with self._place.lock:
            self.waiting.forget(batch)
            self._store.waiting.remove_all(batch.unclaimed(), batch.key_hashes)
            return self._availability.failed(exc, self._settings.clock.monotonic(), may_resurface=may_resurface)

    def _seal(self, writer: SegmentWriter) -> None:
        before = writer.segment.size
        writer.seal()
        self._give_up(writer)
        with self._place.lock:
            self._store.disk_bytes += writer.segment.size - before

    def _give_up(self, writer: SegmentWriter) -> None:
        self._writer = None
        with self._place.lock:
            if writer.segment.key_hashes is None and not writer.has_footer:
                writer.segment.key_hashes = writer.summary.key_hashes
            writer.segment.is_closed = True


def _os_error(exc: Exception) -> OSError:
    if isinstance(exc, OSError):
        return exc
    if isinstance(exc, MemoryError):
        return OSError(errno.ENOMEM, "out of memory")
    _log_fault(exc)
    return OSError(0, "a fault in the spool itself")


def _log_fault(exc: Exception) -> None:
    get_logger("postroom.spool").error("spool_writer_failed", operation="spool", error=type(exc).__name__)
