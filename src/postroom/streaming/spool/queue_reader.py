"""Reading a queue in order, past what is acknowledged or in hand."""

from __future__ import annotations

import errno
import threading
from typing import TYPE_CHECKING

import msgspec

from postroom.libs.event import Headers, Record  # noqa: TC001 - msgspec reads the annotations
from postroom.streaming.spool.availability import spool_error
from postroom.streaming.spool.cursor_keeper import READ_STRIDE
from postroom.streaming.spool.damage_control import new_scan
from postroom.streaming.spool.frame_scan import Damage
from postroom.streaming.spool.record_format import Kind  # noqa: TC001 - msgspec reads the annotations

if TYPE_CHECKING:
    from collections.abc import Callable

    from postroom.libs.clock import Clock
    from postroom.streaming.spool.cursor_keeper import CursorKeeper
    from postroom.streaming.spool.file_system import File
    from postroom.streaming.spool.frame_scan import Frame, FrameScan
    from postroom.streaming.spool.hand import Hand
    from postroom.streaming.spool.segment_store import QueuePlace, SegmentStore
    from postroom.streaming.spool.segments import Segment

STUMBLES_IN_A_ROW = 3
REST_S = 60.0
"""So long a segment that cannot be read is left alone before it is tried again."""


class SpooledRecord(msgspec.Struct, frozen=True, gc=False):
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


class QueueReader:
    """Hands out each record once, in order. Safe with threads."""

    def __init__(
        self, place: QueuePlace, store: SegmentStore, hand: Hand, keeper: CursorKeeper, clock: Clock, *, slot: str
    ) -> None:
        self._place = place
        self._clock = clock
        self._store = store
        self._hand = hand
        self._keeper = keeper
        self._slot = slot
        self._lock = threading.Lock()
        self._file: File | None = None
        self._scan: FrameScan | None = None
        self._passes: Callable[[int], bool] | None = None
        self._segment: Segment | None = None
        self._at_id = 0
        self._is_closed = False
        self._stumbles = 0

    # -- reading

    def read(self, max_records: int, max_bytes: int) -> list[SpooledRecord]:
        """Return the next records, at least one if there is one; an empty list when there is no more now.

        Raises SpoolUnavailableError when the disk does not answer, or cannot note that these were handed out: then
        none is, and the next call gives the same ones.
        """
        with self._lock:
            if self._is_closed:
                return []
            found: list[tuple[Segment, Frame]] = []
            room = max_bytes
            while len(found) < max_records and room > 0:
                try:
                    step = self._next(may_go_back=not found)
                except OSError as exc:
                    if self._is_passed_over_again():
                        continue
                    self._stumble(exc)
                    if not found:
                        raise spool_error(exc, retry_after_s=1.0) from exc
                    break
                if step is None:
                    break
                found.append(step)
                room -= step[1].size
            try:
                self._note_handed_out(found)
            except OSError as exc:
                self._rewind_to(found[0][0])
                raise spool_error(exc, retry_after_s=1.0) from exc
            return self._hand_out(found)

    def rewind(self) -> None:
        """Begin at the oldest record again. What is in hand stays so, and is passed over."""
        with self._lock:
            self._leave()
            self._at_id = 0
            with self._place.lock:
                self._hand.has_put_back = False

    def oldest_ms(self) -> int | None:
        """Return when the oldest record that waits was appended, in ms since 1970; None when nothing waits.

        Exact for what was read; for what was not read yet, or put back, the time of its segment's first record.
        """
        with self._place.lock:
            oldest = None if self._hand.has_put_back else self._hand.oldest_read_ms()
            if oldest is not None:
                return oldest
            segments = self._store.all()
            first = next((segment for segment in segments if segment.waiting > segment.in_hand), None)
            return self._hand.oldest_read_ms() if first is None else first.oldest_ms

    def close(self) -> None:
        """Let go of the file."""
        with self._lock:
            self._is_closed = True
            self._leave()

    # -- inside

    def _next(self, *, may_go_back: bool) -> tuple[Segment, Frame] | None:
        while True:
            segment = self._segment or self._enter()
            if segment is None or self._scan is None:
                if may_go_back and self._goes_back():
                    continue
                return None
            with self._place.lock:  # both at one moment, or the last frames of a closed segment would be missed
                end, is_closed = segment.frames_end - segment.held_back, segment.is_closed and not segment.held_back
            found = self._scan.next(end, self._passes if segment.has_passed else None)
            if isinstance(found, Damage):
                self._store.damage.found(segment, found, self._hand)
            elif found is not None:
                self._stumbles = 0
                return segment, found
            else:
                segment.retry_at = None  # all of it could be read
                if is_closed:
                    self._at_id = segment.header.segment_id + 1
                    self._leave()
                elif not (may_go_back and self._goes_back()):
                    return None

    def _passing(self, segment: Segment) -> Callable[[int], bool]:
        """Return what says of a sequence that it is not to be handed out."""
        hand = self._hand
        return lambda sequence: segment.is_done(sequence) or sequence in hand or segment.is_lost(sequence)

    def _enter(self) -> Segment | None:
        while True:
            with self._place.lock:
                segment = self._store.at_or_after(self._at_id)
                if segment is None or not segment.is_known:
                    return None
                if (
                    segment.is_gone
                    or self._is_resting(segment)
                    or (segment.is_closed and segment.waiting == segment.in_hand)
                ):
                    self._at_id = segment.header.segment_id + 1
                    continue
            try:
                self._file = self._place.file_system.open_to_read(segment.path)
            except FileNotFoundError:
                self._store.damage.lost_file(segment, self._hand)
                continue
            self._scan = new_scan(segment, self._file)
            self._passes = self._passing(segment)
            self._segment = segment
            return segment

    def _leave(self) -> None:
        if self._file is not None:
            self._file.close()
        self._file = self._scan = self._passes = self._segment = None

    def _rewind_to(self, segment: Segment) -> None:
        # Nothing was handed out: what was read is found again from the beginning of its segment.
        self._leave()
        self._at_id = segment.header.segment_id

    def _stumble(self, exc: OSError) -> None:
        """After an error while reading: begin the segment anew, or after three go past it.

        One bad place on the disk must not hold up everything behind it. Its segment stays, and counts as waiting.
        """
        segment = self._segment
        self._leave()
        self._stumbles = self._stumbles + 1 if exc.errno == errno.EIO else 0
        if segment is not None and self._stumbles >= STUMBLES_IN_A_ROW:
            self._stumbles = 0
            self._pass_over(segment)

    def _is_passed_over_again(self) -> bool:
        """After an error in a segment that was passed over before: once is enough then, and no news to anybody."""
        segment = self._segment
        if segment is None or segment.retry_at is None:
            return False
        self._leave()
        self._pass_over(segment)
        return True

    def _pass_over(self, segment: Segment) -> None:
        segment.retry_at = self._clock.monotonic() + REST_S
        self._at_id = segment.header.segment_id + 1

    def _is_resting(self, segment: Segment) -> bool:
        return segment.retry_at is not None and self._clock.monotonic() < segment.retry_at

    def _goes_back(self) -> bool:
        """At the end of everything: go back to a segment that was passed over, if it has rested; True if there is one.

        What is behind it and in hand or acknowledged is passed over on the way back.
        """
        for segment in self._store.all():
            if segment.retry_at is not None and not self._is_resting(segment) and segment.waiting > segment.in_hand:
                self._rewind_to(segment)
                return True
        return False

    def _note_handed_out(self, found: list[tuple[Segment, Frame]]) -> None:
        if found:
            self._keeper.note_handed_out(found[-1][1].sequence + 1, stride=READ_STRIDE)

    def _hand_out(self, found: list[tuple[Segment, Frame]]) -> list[SpooledRecord]:
        place, slot, sent_below = self._place, self._slot, self._keeper.sent_below
        key_hashes = place.hashes_of([frame.stored.record for _, frame in found])
        with place.lock:
            for (segment, frame), key_hash in zip(found, key_hashes, strict=True):
                self._hand.take_read(segment, frame, key_hash)
            return [
                SpooledRecord(
                    frame.stored.record,
                    place.kind,
                    slot,
                    frame.sequence,
                    frame.stored.labels,
                    frame.stored.appended_ms,
                    frame.sequence < sent_below or (segment.has_sent and segment.is_sent(frame.sequence)),
                )
                for segment, frame in found
            ]
