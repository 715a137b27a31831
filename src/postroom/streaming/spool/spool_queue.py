"""One of the two queues of a slot: append at one end, read and acknowledge at the other."""

from __future__ import annotations

import contextlib
import threading
from copy import deepcopy
from typing import TYPE_CHECKING

from postroom.streaming.spool.availability import Availability
from postroom.streaming.spool.cursor import CURSOR_NAME, Cursor
from postroom.streaming.spool.cursor_keeper import CursorKeeper
from postroom.streaming.spool.file_system import Entry
from postroom.streaming.spool.hand import Hand
from postroom.streaming.spool.queue_intake import QueueIntake
from postroom.streaming.spool.queue_reader import QueueReader
from postroom.streaming.spool.queue_writer import QueueWriter
from postroom.streaming.spool.segment_store import SegmentStore
from postroom.streaming.spool.status import QueueStatus
from postroom.streaming.spool.trials import TRIAL_NAME, Trials

if TYPE_CHECKING:
    from collections.abc import Iterable

    from postroom.libs.event import Headers, Record
    from postroom.streaming.spool.group_commit import OnStored, Ticket
    from postroom.streaming.spool.queue_writer import WriteSettings
    from postroom.streaming.spool.segment_store import QueuePlace
    from postroom.streaming.spool.space import Space

RETIRE_BYTES = 1024 * 1024
_LOOK_S = 0.1


class SpoolQueue:
    """Records of one kind in one slot. Inert until `open`. Safe with threads."""

    def __init__(self, place: QueuePlace, settings: WriteSettings, *, slot: str, cursor_bytes: int) -> None:
        self._place = place
        self._clock = settings.clock
        self._cursor = Cursor(place.file_system, place.folder, slot_bytes=cursor_bytes)
        self._store = SegmentStore(place)
        self._hand = Hand(place, self._store)
        self._keeper = CursorKeeper(place, self._store, self._hand, self._cursor)
        self._reader = QueueReader(place, self._store, self._hand, self._keeper, settings.clock, slot=slot)
        self._trials = Trials(place, self._store)
        self._availability = Availability()
        self._writer = QueueWriter(
            place, self._store, self._hand, self._keeper, self._availability, settings, slot=slot
        )
        self._wake = threading.Lock()  # held by the writer, who waits for it to be released
        self._wake.acquire()
        self._sleeps = False
        self._intake = QueueIntake(
            place, self._store, self._writer.waiting, self._availability, settings.clock, wake=self._wake_writer
        )
        self._thread: threading.Thread | None = None
        self.read, self.rewind = self._reader.read, self._reader.rewind
        self.ack, self.put_back = self._hand.ack, self._hand.put_back
        self.newly_found = self._store.newly_found
        self.newly_lost = self._store.damage.newly_lost
        self.end_trial, self.deaths_at = self._trials.over, self._trials.deaths_at

    # -- life

    def open(self) -> None:
        """Find what is there: after this, records can be appended. Raises OSError."""
        file_system, folder = self._place.file_system, self._place.folder
        if file_system.entry(folder) is Entry.ABSENT:
            file_system.make_folder(folder)
            file_system.sync_folder(folder.rpartition("/")[0])
        self._store.find()
        names = file_system.entries(folder)
        self._trials.open(is_there=TRIAL_NAME in names)
        state = self._cursor.load(is_there=CURSOR_NAME in names)
        self._store.use_acknowledged(state.entries)
        self._keeper.begin(state.handed_out if state.generation else self._store.next_sequence)
        # What is appended from now on was handed to nobody yet: its sequences begin above the mark.
        self._store.next_sequence = max(self._store.next_sequence, state.handed_out)

    @property
    def next_sequence(self) -> int:
        """The sequence of the next record that is appended, or a smaller one that nobody has."""
        return self._store.next_sequence

    def count_next(self) -> bool:
        """Count one more of the old segments; False when all are. Raises OSError."""
        return self._store.count_next(self._hand)

    def start_writing(self) -> None:
        """Start the thread that writes. Without it every append writes by itself."""
        self._thread = threading.Thread(target=self._write, name=f"spool-{self._place.kind.name.lower()}", daemon=True)
        self._thread.start()

    def close(self) -> bool:
        """Write what waits, note what is acknowledged, remove what is finished, let go of all files.

        False where the disk does not answer: then nothing is let go of.
        """
        if not self.finish_writing():
            return False
        self._writer.close()
        self._reader.close()  # before the mark is lowered to what is in hand
        with contextlib.suppress(OSError):  # then the next start reads more than it must: marked repeats
            self._store.remove_finished()
            self._keeper.write_exact()
        self._keeper.close()
        self._trials.close()
        return True

    def finish_writing(self) -> bool:
        """Take no more, and write what waits; False where the disk does not answer: then everybody is told so."""
        with self._place.lock:
            self._intake.is_closed = True
            self._wake_writer()
        has_written = self._has_written()
        if not has_written:
            self._writer.abandon()
        return has_written

    def _has_written(self) -> bool:
        """Wait until the writing thread has written all; False once the disk does not answer."""
        thread = self._thread
        while thread is not None and thread.is_alive():
            thread.join(_LOOK_S)
            if thread.is_alive() and self._availability.stalled_s(self._clock.monotonic()):
                return False
        return True

    # -- appending

    def append(
        self, record: Record, labels: Headers, space: Space, *, claim: bool, on_stored: OnStored | None
    ) -> Ticket:
        """Store a record behind all others. Raises as `Spool.append`."""
        ticket = self._intake.put(record, labels, space, claim=claim, on_stored=on_stored)
        if self._thread is None:
            self._write_all()
        return ticket

    def append_many(
        self, records: Iterable[Record], labels: Headers, space: Space, on_stored: OnStored | None
    ) -> list[Ticket]:
        """Store records in order. See `Spool.append_many`."""
        tickets = self._intake.put_many(records, labels, space, on_stored)
        if self._thread is None:
            self._write_all()
        return tickets

    def _write_all(self) -> None:
        while self._writer.commit_next():
            pass

    def _wake_writer(self) -> None:
        # A plain lock: a condition would have the writer wait for the queue's lock, which is held here, first.
        if self._sleeps:
            self._sleeps = False
            self._wake.release()

    def _write(self) -> None:
        while True:
            if self._writer.commit_next():
                continue
            with self._place.lock:
                if self._writer.waiting:
                    continue
                if self._intake.is_closed:
                    return
                self._sleeps = True
            self._wake.acquire()

    def begin_trial(self, sequence: int) -> None:
        """Note on the disk that a record in hand is alone on its way; of others, nothing. Raises OSError."""
        if sequence in self._hand:
            self._trials.begin(sequence)

    # -- upkeep

    def tend(self, *, is_full: bool) -> None:
        """Remove what is finished, note what is acknowledged, try a disk that failed. Raises OSError."""
        for segment in self._store.all():
            if segment.unsaved:
                self._store.damage.set_aside_unsaved(segment)
        # On a full disk even the open segment goes as soon as all of it is acknowledged.
        self._writer.retire(smallest_bytes=1 if is_full else RETIRE_BYTES)
        # Removing comes first: it frees the room that a cursor which is not there yet may need.
        try:
            self._store.remove_finished()
        finally:
            self._keeper.write()
        if self._availability.is_refusing and self._availability.refusal(self._clock.monotonic()) is None:
            self._writer.try_again()

    # -- looking

    @property
    def used_bytes(self) -> int:
        """Bytes on the disk and on their way there."""
        return self._store.disk_bytes + self._writer.waiting.size

    @property
    def is_counted(self) -> bool:
        """True once every old segment is counted."""
        return self._store.is_known

    @property
    def is_empty(self) -> bool:
        """True when no record is here that is not acknowledged."""
        segments = self._store.all()
        return self._store.is_known and not self._writer.waiting and not any(segment.waiting for segment in segments)

    @property
    def has_waiting(self) -> bool:
        """True when any record is neither acknowledged nor claimed, and until every old segment is counted."""
        return self._store.waiting.total > 0 or not self._store.is_known

    def waiting(self, topic: str) -> int:
        """Return how many counted records of a topic are neither acknowledged nor claimed."""
        return self._store.waiting.by_topic.get(topic, 0)

    def waiting_by_topic(self) -> dict[str, int]:
        """Return the same for all topics that have any."""
        with self._place.lock:
            return {topic: count for topic, count in self._store.waiting.by_topic.items() if count}

    @property
    def has_segments(self) -> bool:
        """True while there is any segment on the disk."""
        return bool(self._store.all())

    def status(self) -> QueueStatus:
        """Say what is in the queue."""
        topics: dict[str, tuple[int, int]] = {}
        oldest_ms = self._reader.oldest_ms()
        with self._place.lock:
            segments = self._store.all()
            for segment in segments:
                for topic, (records, size) in segment.topics.items():
                    if records:
                        before = topics.get(topic, (0, 0))
                        topics[topic] = (before[0] + records, before[1] + size)
            return QueueStatus(
                records=sum(records for records, _ in topics.values()),
                bytes=sum(size for _, size in topics.values()),
                by_topic=topics,
                oldest_ms=oldest_ms,
                in_hand=len(self._hand),
                claimed=self._hand.claimed,
                segments=len(segments),
                passed_over=sum(segment.retry_at is not None for segment in segments),
                disk_bytes=self._store.disk_bytes,
                is_counted=self._store.is_known,
                refusing_since=self._availability.refusing_since(self._clock.monotonic()),
                damages=deepcopy(self._store.damage.damages),
                foreign=self._store.foreign,
            )
