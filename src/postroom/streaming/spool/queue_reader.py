"""Reading a queue in order, and taking note of what was acknowledged."""

from __future__ import annotations

import errno
import threading
from typing import TYPE_CHECKING

import msgspec

from postroom.libs.event import Headers, Record  # noqa: TC001 - msgspec reads the annotations
from postroom.streaming.spool.availability import spool_error
from postroom.streaming.spool.frame_scan import Damage, Frame, FrameScan
from postroom.streaming.spool.record_format import Kind  # noqa: TC001 - msgspec reads the annotations

if TYPE_CHECKING:
    from postroom.streaming.spool.cursor import Cursor
    from postroom.streaming.spool.file_system import File
    from postroom.streaming.spool.segment_store import QueuePlace, SegmentStore
    from postroom.streaming.spool.segments import Segment

HANDED_OUT_STRIDE = 1024
STUMBLES_IN_A_ROW = 3


class SpooledRecord(msgspec.Struct, frozen=True):
    """A record that waits in the spool.

    `sequence` rises within `kind` and `slot`. `sent_before` says that it may be in Kafka already: whoever sends it
    marks it as a repeat. `labels` are those it was appended with, `appended_ms` when (ms since 1970).
    """

    record: Record
    kind: Kind
    slot: str
    sequence: int
    labels: Headers
    appended_ms: int
    sent_before: bool


class _HandedOut(msgspec.Struct, frozen=True, gc=False):
    segment: Segment
    topic: str
    size: int
    key_hash: int | None
    appended_ms: int


class QueueReader:
    """Hands out each record once, in order, and forgets it when it is acknowledged. Safe with threads."""

    def __init__(self, place: QueuePlace, store: SegmentStore, cursor: Cursor, *, slot: str) -> None:
        self._place = place
        self._store = store
        self._cursor = cursor
        self._slot = slot
        self._read_lock = threading.Lock()
        self._cursor_lock = threading.Lock()
        self._file: File | None = None
        self._scan: FrameScan | None = None
        self._segment: Segment | None = None
        self._at_id = 0
        self._handed_out: dict[int, _HandedOut] = {}
        self._sent_below = 0
        self._mark = 0
        self._is_dirty = False
        self._is_closed = False
        self._stumbles = 0

    def begin(self, handed_out: int) -> None:
        """Start at the oldest record. Every one with a sequence below `handed_out` counts as sent before."""
        self._sent_below = self._mark = handed_out

    # -- reading

    def read(self, max_records: int, max_bytes: int) -> list[SpooledRecord]:
        """Return the next records, at least one if there is one; an empty list when all are handed out.

        Raises SpoolUnavailableError when the disk does not answer, or cannot note that these were handed out: then
        none is, and the next call gives the same ones.
        """
        with self._read_lock:
            if self._is_closed:
                return []
            found: list[tuple[Segment, Frame]] = []
            try:
                room = max_bytes
                while len(found) < max_records and room > 0:
                    step = self._next()
                    if step is None:
                        break
                    found.append(step)
                    room -= step[1].size
            except OSError as exc:
                self._stumble(exc)
                if not found:
                    raise spool_error(exc, retry_after_s=1.0) from exc
            try:
                if found:
                    self._note_handed_out(found[-1][1].sequence + 1)
            except OSError as exc:
                self._rewind_to(found[0][0])
                raise spool_error(exc, retry_after_s=1.0) from exc
            return self._hand_out(found)

    def rewind(self) -> None:
        """Hand out everything again that was handed out and not acknowledged, in order, before anything else.

        For when nothing of it is on its way any more: an acknowledgement of a record handed out earlier is ignored
        until it was handed out anew.
        """
        with self._read_lock:
            with self._place.lock:
                self._handed_out.clear()
            self._leave()
            self._at_id = 0

    def oldest_ms(self) -> int | None:
        """Return when the oldest waiting record was appended, in ms since 1970; None when nothing waits.

        Exact for what is handed out; for what was not read yet, the time of its segment's first record.
        """
        with self._place.lock:
            first = next(iter(self._handed_out.values()), None)
            if first is not None:
                return first.appended_ms
            return next((segment.oldest_ms for segment in self._store.all() if segment.waiting), None)

    # -- acknowledging

    def ack(self, sequence: int) -> bool:
        """Note that a record is safe elsewhere; False for one that is not handed out. Never waits for the disk."""
        place = self._place
        with place.lock:
            held = self._handed_out.pop(sequence, None)
            if held is None:
                return False
            held.segment.mark_done(sequence)
            held.segment.take(held.topic, held.size)
            self._is_dirty = True
        if held.key_hash is not None:
            with place.keys_lock:
                place.keys.remove(held.key_hash)
        return True

    @property
    def in_hand(self) -> int:
        """How many records are handed out and not acknowledged."""
        return len(self._handed_out)

    def write_cursor(self, *, exact: bool = False) -> None:
        """Make new acknowledgements durable. `exact` gives back what is left of the stride, too. Raises OSError."""
        with self._cursor_lock:
            if not self._is_dirty and not (exact and self._mark > self._sent_below):
                return
            self._write_cursor(self._sent_below if exact else self._mark)

    def ensure_cursor(self) -> None:
        """Have the cursor file and its room on the disk. Raises OSError."""
        with self._cursor_lock:
            if not self._cursor.is_there:
                self._write_cursor(self._mark)

    def close(self) -> None:
        """Let go of the files."""
        with self._read_lock:
            self._is_closed = True
            self._leave()
        self._cursor.close()

    # -- inside

    def _next(self) -> tuple[Segment, Frame] | None:
        while True:
            segment = self._segment or self._enter()
            if segment is None or self._scan is None:
                return None
            with self._place.lock:
                end, is_closed = segment.frames_end, segment.is_closed
            found = self._scan.next(end)
            if isinstance(found, Damage):
                self._store.found_damage(segment, found)
            elif found is None:
                if not is_closed:
                    return None
                self._at_id = segment.header.segment_id + 1
                self._leave()
            elif not segment.is_done(found.sequence) and found.sequence not in self._handed_out:
                self._stumbles = 0
                return segment, found

    def _enter(self) -> Segment | None:
        while True:
            with self._place.lock:
                segment = self._store.at_or_after(self._at_id)
                if segment is None or not segment.is_known:
                    return None
                if not segment.waiting and segment.is_closed:
                    self._at_id = segment.header.segment_id + 1
                    continue
            try:
                self._file = self._place.file_system.open_to_read(segment.path)
            except FileNotFoundError:
                self._store.lost_file(segment)
                continue
            header = segment.header
            self._scan = FrameScan(self._file, seed=header.seed, kind=header.kind, next_sequence=header.first_sequence)
            self._segment = segment
            return segment

    def _leave(self) -> None:
        if self._file is not None:
            self._file.close()
        self._file = self._scan = self._segment = None

    def _rewind_to(self, segment: Segment) -> None:
        # Nothing was handed out: what was read is found again from the beginning of its segment.
        self._leave()
        self._at_id = segment.header.segment_id

    def _stumble(self, exc: OSError) -> None:
        """After an error while reading: begin the segment anew, or after three go past it, for a later start to read.

        One bad place on the disk must not hold up everything behind it. Its segment stays, and counts as waiting.
        """
        segment = self._segment
        self._leave()
        self._stumbles = self._stumbles + 1 if exc.errno == errno.EIO else 0
        if segment is not None and self._stumbles >= STUMBLES_IN_A_ROW:
            self._at_id = segment.header.segment_id + 1
            self._stumbles = 0

    def _note_handed_out(self, beyond: int) -> None:
        if beyond <= self._mark:
            return
        with self._cursor_lock:
            self._write_cursor(beyond + HANDED_OUT_STRIDE)

    def _write_cursor(self, mark: int) -> None:
        with self._place.lock:
            entries = self._store.acknowledged()
            was_dirty, self._is_dirty = self._is_dirty, False
        try:
            self._cursor.write(mark, entries)
        except OSError:
            self._is_dirty = was_dirty or self._is_dirty
            raise
        self._mark = mark

    def _hand_out(self, found: list[tuple[Segment, Frame]]) -> list[SpooledRecord]:
        place, records = self._place, []
        with place.lock:
            for segment, frame in found:
                stored = frame.stored
                record = stored.record
                key_hash = None
                if place.counts_keys and record.key is not None:
                    key_hash = place.key_hash(record.topic, record.key)
                self._handed_out[frame.sequence] = _HandedOut(
                    segment, record.topic, frame.size, key_hash, stored.appended_ms
                )
                records.append(
                    SpooledRecord(
                        record,
                        place.kind,
                        self._slot,
                        frame.sequence,
                        stored.labels,
                        stored.appended_ms,
                        frame.sequence < self._sent_below,
                    )
                )
        if records:
            self._sent_below = max(self._sent_below, records[-1].sequence + 1)
        return records
