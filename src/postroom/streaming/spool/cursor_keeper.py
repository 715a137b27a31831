"""When the cursor of a queue is written: before records leave it, and after they were acknowledged."""

from __future__ import annotations

import threading
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from postroom.streaming.spool.cursor import Cursor
    from postroom.streaming.spool.hand import Hand
    from postroom.streaming.spool.segment_store import QueuePlace, SegmentStore

READ_STRIDE = 1024
CLAIM_STRIDE = 8192


class CursorKeeper:
    """Keeps the durable mark `handed out` ahead of what anybody was given. Safe with threads.

    Records below `sent_below` were perhaps given to somebody by an earlier process.
    """

    def __init__(self, place: QueuePlace, store: SegmentStore, hand: Hand, cursor: Cursor) -> None:
        self._place = place
        self._store = store
        self._hand = hand
        self._cursor = cursor
        self._lock = threading.Lock()
        self._mark = 0
        self.sent_below = 0

    def begin(self, handed_out: int) -> None:
        """Take over the mark of an earlier process."""
        self.sent_below = self._mark = handed_out

    def note_handed_out(self, beyond: int, *, stride: int) -> None:
        """Have a durable mark that is not below `beyond`; when it has to be moved, then by `stride` more.

        Raises OSError; then what was to be handed out must stay.
        """
        if beyond <= self._mark:
            return
        with self._lock:
            self._write(max(beyond + stride, self._mark))

    def write(self) -> None:
        """Make new acknowledgements durable. Raises OSError."""
        with self._lock:
            if self._hand.is_dirty:
                self._write(self._mark)

    def write_exact(self) -> None:
        """Make everything durable that is known, without the rest of a stride. Nothing is handed out after it.

        Raises OSError.
        """
        with self._lock:
            with self._place.lock:
                ends = (segment.sent_end() for segment in self._store.all())
                exact = max(self.sent_below, self._hand.end(), *ends)
            if self._hand.is_dirty or exact < self._mark:
                self._write(exact)

    def ensure(self) -> None:
        """Have the cursor file and its room on the disk. Raises OSError."""
        with self._lock:
            if not self._cursor.is_there:
                self._write(self._mark)

    def close(self) -> None:
        """Let go of the file."""
        self._cursor.close()

    def _write(self, mark: int) -> None:
        hand = self._hand
        with self._place.lock:
            entries = self._store.acknowledged()
            was_dirty, hand.is_dirty = hand.is_dirty, False
        try:
            self._cursor.write(mark, entries)
        except OSError:
            hand.is_dirty = was_dirty or hand.is_dirty
            raise
        self._mark = mark
