"""One segment: its file, what of it is acknowledged, and the writing of new ones."""

from __future__ import annotations

import contextlib
import re
from typing import TYPE_CHECKING

from postroom.streaming.spool.bits import Bits
from postroom.streaming.spool.footer import Summary
from postroom.streaming.spool.record_format import (
    FRAMES_BEGIN,
    SegmentHeader,
    pack_segment_header,
    parse_segment_header,
)

if TYPE_CHECKING:
    from array import array

    from postroom.streaming.spool.file_system import File, FileSystem
    from postroom.streaming.spool.footer import Footer

FILL_BYTES = 1024 * 1024
_SMALLEST_FILL_BYTES = 64 * 1024
_WORTH_BATCHES = 4  # writing twice costs more than what fewer syncs gain
_ZEROS = bytes(FILL_BYTES)
_NAME = re.compile(r"([0-9]{20})\.seg")


def segment_name(segment_id: int) -> str:
    """Return the file name of a segment."""
    return f"{segment_id:020d}.seg"


def segment_id_of(name: str) -> int | None:
    """Return the number of a segment's file name; None for other names."""
    match = _NAME.fullmatch(name)
    return int(match[1]) if match else None


class Segment:
    """What is known about one segment. Its queue's lock guards everything that changes.

    `frames_end` is the synced end. The last `held_back` bytes before it may not be read yet: who stored them is still
    being told, and may give back a claim that comes before the others; `telling` is of how many batches. `waiting`
    counts frames neither acknowledged nor lost, `in_hand` those of them that somebody has; `topics` holds frames and
    bytes of those by topic. `is_known` turns true when all are counted, `is_closed` when no frame will be added,
    `is_gone` when somebody has removed its file. `damaged` holds where unreadable ranges begin and how long they are,
    `unsaved` those of them that have no copy in quarantine yet, `unreadable` the sequences in hand whose frames are
    among them. `retry_at` is set while the disk does not give it: when to try again, in monotonic seconds.
    """

    __slots__ = (
        "_done",
        "_lost",
        "_sent",
        "damaged",
        "frames_end",
        "header",
        "held_back",
        "in_hand",
        "is_closed",
        "is_gone",
        "is_known",
        "key_hashes",
        "next_sequence",
        "oldest_ms",
        "path",
        "retry_at",
        "size",
        "telling",
        "topics",
        "unreadable",
        "unsaved",
        "waiting",
    )

    def __init__(self, header: SegmentHeader, path: str, *, size: int) -> None:
        self.header = header
        self.path = path
        self.size = size
        self.frames_end = FRAMES_BEGIN
        self.held_back = 0
        self.telling = 0
        self.next_sequence = header.first_sequence
        self.waiting = 0
        self.in_hand = 0
        self.oldest_ms = 0
        self.topics: dict[str, list[int]] = {}
        self.key_hashes: array[int] | None = None  # what it gave to the key counters, where no footer can say it
        self.is_known = False
        self.is_closed = True
        self.is_gone = False
        self.retry_at: float | None = None
        self.damaged: dict[int, int] = {}
        self.unsaved: list[tuple[int, int]] = []
        self.unreadable: set[int] = set()
        self._done = Bits()
        self._sent = Bits()
        self._lost = Bits()

    @property
    def is_finished(self) -> bool:
        """True when nothing in it is needed any more."""
        return self.is_closed and self.is_known and not self.waiting and not self.unsaved

    def is_done(self, sequence: int) -> bool:
        """True for a frame that is acknowledged."""
        return sequence - self.header.first_sequence in self._done

    def acknowledge(self, sequence: int, topic: str, frame_bytes: int) -> None:
        """Note that a frame in hand is acknowledged, and count it out."""
        self._done.add(sequence - self.header.first_sequence)
        self.waiting -= 1
        self.in_hand -= 1
        sums = self.topics[topic]
        sums[0] -= 1
        sums[1] -= frame_bytes

    def is_sent(self, sequence: int) -> bool:
        """True for a frame that was put back as sent."""
        return sequence - self.header.first_sequence in self._sent

    def mark_sent(self, sequence: int) -> None:
        """Note that a frame was put back as sent."""
        self._sent.add(sequence - self.header.first_sequence)

    def sent_end(self) -> int:
        """Return the sequence after the last that was put back as sent; 0 when none was."""
        return self.header.first_sequence + self._sent.end() if self._sent else 0

    def is_lost(self, sequence: int) -> bool:
        """True for a frame that could not be read when somebody wanted it."""
        return sequence - self.header.first_sequence in self._lost

    def mark_lost(self, sequence: int) -> None:
        """Note that a frame could not be read."""
        self._lost.add(sequence - self.header.first_sequence)

    def lose_unreadable(self, sequence: int, topic: str, frame_bytes: int, key_hash: int | None) -> None:
        """Give up a frame that was unreadable while it was in hand."""
        self.unreadable.discard(sequence)
        self.mark_lost(sequence)
        self.waiting -= 1
        sums = self.topics[topic]
        sums[0] -= 1
        sums[1] -= frame_bytes
        if self.key_hashes is not None and key_hash is not None:
            self.key_hashes.remove(key_hash)

    def count(self, summary: Summary | Footer) -> None:
        """Take over the sums of the frames that wait."""
        self.waiting = summary.frames
        self.topics = {topic: list(sums) for topic, sums in summary.topics.items()}
        self.oldest_ms = summary.oldest_ms

    def acknowledged(self) -> tuple[int, bytes]:
        """Return the low-water mark (frames done from the first on) and the bitmap of what is done after it."""
        return self._done.packed()

    def set_acknowledged(self, low: int, bitmap: bytes) -> None:
        """Take over what `acknowledged` returned."""
        self._done.load(low, bitmap)

    @property
    def has_passed(self) -> bool:
        """True when any frame in it is acknowledged, lost or in hand."""
        return bool(self.in_hand or self._done or self._lost)

    @property
    def has_sent(self) -> bool:
        """True when any frame in it was put back as sent."""
        return bool(self._sent)

    @property
    def has_acknowledged(self) -> bool:
        """True when any frame in it was marked done."""
        return bool(self._done)


def open_segment(file_system: FileSystem, path: str) -> Segment | None:
    """Return the segment in the file at `path`, not yet counted; None when its header is broken or another's."""
    file = file_system.open_to_read(path)
    try:
        header = parse_segment_header(file.read_at(FRAMES_BEGIN, 0))
        if header is None or segment_name(header.segment_id) != path.rpartition("/")[2]:
            return None
        return Segment(header, path, size=file.size())
    finally:
        file.close()


def is_blank(file: File) -> bool:
    """Return True for a file of zeros, or of nothing: a segment that was never more than begun. Raises OSError."""
    return not any(any(file.read_at(1024 * 1024, at)) for at in range(0, file.size(), 1024 * 1024))


class SegmentWriter:
    """The one open segment of a queue: appends frames and says when they are safe.

    After an OSError from `append` it must be given up by `cut_back`; nothing is written to the file again.

    It fills the file with zeros ahead of the frames, as far again as it is long, up to `fill_bytes` and never beyond
    `segment_bytes`: a sync that changes neither size nor extents costs half of one that does (0.13 to 0.29 ms, ext4).
    """

    __slots__ = (
        "_file",
        "_fill_bytes",
        "_filled_end",
        "_segment_bytes",
        "_sync_failed",
        "has_footer",
        "segment",
        "summary",
    )

    def __init__(self, file: File, segment: Segment, *, segment_bytes: int, fill_bytes: int) -> None:
        self._file = file
        self._segment_bytes = segment_bytes
        self._fill_bytes = fill_bytes
        self._filled_end = segment.frames_end
        self._sync_failed = False
        self.segment = segment
        self.summary = Summary()
        self.has_footer = False

    def append(self, data: bytes) -> None:
        """Write `data` at the synced end and sync it. Raises OSError; then nothing of it counts."""
        offset = self.segment.frames_end
        end = offset + len(data)
        write_all(self._file, data, offset)
        if end > self._filled_end:
            self._filled_end = end
            self._fill_ahead(end, len(data))
        self._sync_failed = True
        self._file.sync()
        self._sync_failed = False

    def _fill_ahead(self, end: int, batch_bytes: int) -> None:
        count = min(max(end, _SMALLEST_FILL_BYTES), self._fill_bytes, self._segment_bytes - end)
        if count < _WORTH_BATCHES * batch_bytes:
            return
        try:
            self._filled_end = end + self._file.write_at(_ZEROS[:count], end)
        except OSError:
            self._filled_end = end
        if self._filled_end < end + count:  # that was the last room: it is for frames, and for others
            self._fill_bytes, self._filled_end = 0, end
            with contextlib.suppress(OSError):
                self._file.truncate(end)

    def cut_back(self) -> bool:
        """Remove what was written after the synced end, and close; True when it is certain never to come back."""
        try:
            self._file.truncate(self.segment.frames_end)
            self._file.sync()
        except OSError:
            return False
        else:
            return not self._sync_failed
        finally:
            self._file.close()

    def seal(self) -> None:
        """Write the footer if that works, and close. A segment without one is as good, only slower to start from."""
        segment = self.segment
        footer = self.summary.pack(segment.header.seed, segment.next_sequence)
        try:
            if self._filled_end > segment.frames_end:  # a footer is found at the end of the file
                self._file.truncate(segment.frames_end)
            write_all(self._file, footer, segment.frames_end)
            segment.size = segment.frames_end + len(footer)
            self.has_footer = True
        except OSError:  # what was written of it is a torn tail; its bytes are not worth counting
            pass
        finally:
            self._file.close()

    def close(self) -> None:
        """Close without a footer."""
        self._file.close()


def create_segment(
    file_system: FileSystem,
    folder: str,
    *,
    kind: int,
    segment_id: int,
    first_sequence: int,
    now_ms: int,
    salt: bytes,
    segment_bytes: int,
    fill_bytes: int,
) -> SegmentWriter:
    """Make a new segment; its name is on the disk when this returns. Raises OSError, and leaves no file then."""
    path = f"{folder}/{segment_name(segment_id)}"
    data = pack_segment_header(kind, segment_id, first_sequence, now_ms, salt)
    file = file_system.create(path)
    try:
        write_all(file, data, 0)
        file_system.sync_folder(folder)
    except OSError:
        file.close()
        with contextlib.suppress(OSError):  # what stays has no frames: a start removes it
            file_system.unlink(path)
        raise
    header = parse_segment_header(data)
    assert header is not None
    segment = Segment(header, path, size=FRAMES_BEGIN)
    segment.is_known, segment.is_closed = True, False
    return SegmentWriter(file, segment, segment_bytes=segment_bytes, fill_bytes=fill_bytes)


def write_all(file: File, data: bytes, offset: int) -> None:
    """Write all of `data`, in as many writes as the operating system needs."""
    written = file.write_at(data, offset)
    while written < len(data):
        more = file.write_at(data[written:], offset + written)
        if not more:
            raise OSError(0, "the file takes no more bytes")
        written += more
