"""Which record a process had alone in its hands when it died, and how often that has happened to it."""

from __future__ import annotations

import contextlib
import struct
import threading
from typing import TYPE_CHECKING

from postroom.streaming.spool.two_slot_file import TwoSlotFile

if TYPE_CHECKING:
    from postroom.streaming.spool.segment_store import QueuePlace, SegmentStore

TRIAL_MAGIC = b"POSTTRIA"
TRIAL_NAME = "trial"

_ENTRY = struct.Struct("<QIQI")
_MOST_ENTRIES = 64
_SLOT_BYTES = 2048


class Trials:
    """Counts the deaths at single records of one queue, in a file that is made when it is first needed.

    Safe with threads.
    """

    def __init__(self, place: QueuePlace, store: SegmentStore) -> None:
        self._store = store
        self._lock = threading.Lock()
        self._file = TwoSlotFile(place.file_system, place.folder, TRIAL_NAME, magic=TRIAL_MAGIC, slot_bytes=_SLOT_BYTES)
        self._deaths: dict[int, tuple[int, int, int]] = {}  # sequence -> segment id, its seed, deaths
        self._on_trial = 0

    def open(self, *, is_there: bool) -> None:
        """Read what earlier processes left: one that died during a trial has died at its record."""
        content = self._file.load(is_there=is_there)
        segments = {(segment.header.segment_id, segment.header.seed) for segment in self._store.all()}
        for segment_id, seed, sequence, deaths in _ENTRY.iter_unpack(content.body):
            if (segment_id, seed) in segments:
                self._deaths[sequence] = (segment_id, seed, deaths + (sequence == content.value))
        if content.value:
            with contextlib.suppress(OSError):  # then the next start counts this death once more
                self._write(0, self._deaths)

    def begin(self, sequence: int) -> None:
        """Note on the disk that this record is alone on its way. Raises OSError; then nothing is noted."""
        with self._lock:
            header = self._store.holding(sequence).header
            deaths = dict(self._deaths)
            deaths[sequence] = deaths.pop(sequence, (header.segment_id, header.seed, 0))  # the newest, at the end
            self._write(sequence, deaths)

    def over(self, sequence: int) -> None:
        """Note on the disk that this process lives on after the trial: the record's deaths are forgotten.

        Does nothing for a record that is not on trial. Raises OSError; then the trial goes on.
        """
        with self._lock:
            if sequence == self._on_trial:
                self._write(0, {number: known for number, known in self._deaths.items() if number != sequence})

    def deaths_at(self, sequence: int) -> int:
        """Return how many processes in a row have died while they had this record on trial."""
        known = self._deaths.get(sequence)
        return 0 if known is None else known[2]

    def close(self) -> None:
        """End a trial without a death and without forgetting any, and let go of the file."""
        with self._lock:
            if self._on_trial:
                with contextlib.suppress(OSError):
                    self._write(0, self._deaths)
            self._file.close()

    def _write(self, on_trial: int, deaths: dict[int, tuple[int, int, int]]) -> None:
        for number in list(deaths)[:-_MOST_ENTRIES]:
            del deaths[number]
        entries = [(segment_id, seed, number, count) for number, (segment_id, seed, count) in deaths.items()]
        self._file.write(on_trial, b"".join(_ENTRY.pack(*entry) for entry in entries))
        self._on_trial, self._deaths = on_trial, deaths
