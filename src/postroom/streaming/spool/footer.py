"""What a segment holds, in sums: kept while it is written, stored in its footer, so that a start need not scan it."""

from __future__ import annotations

import struct
from array import array
from collections import Counter
from itertools import chain
from typing import TYPE_CHECKING

import msgspec

from postroom.streaming.spool.group_format import ENTRY_BYTES, FOOTER_KIND, HEAD_BYTES, pack_group

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from postroom.streaming.spool.group_commit import Batch

END_MAGIC = b"PSFT"
END_BYTES = 8

_HEAD = struct.Struct("<IqII")
_TOPIC = struct.Struct("<HIQ")
_END = struct.Struct("<I4s")


class Summary:
    """Counts of frames: by topic (frames, bytes) and by key hash. `oldest_ms` is the first frame's appended time."""

    __slots__ = ("frames", "key_hashes", "oldest_ms", "topics")

    def __init__(self) -> None:
        self.frames = 0
        self.oldest_ms = 0
        self.topics: dict[str, list[int]] = {}
        self.key_hashes = array("I")  # four bytes a frame, counted when somebody asks; a dict while it grows takes 100

    @property
    def keys(self) -> dict[int, int]:
        """How many frames there are of each key hash."""
        return Counter(self.key_hashes)

    def add(self, topic: str, key_hash: int | None, frame_bytes: int, appended_ms: int) -> None:
        """Count one more frame; `key_hash` is None for a record without a key."""
        if not self.frames:
            self.oldest_ms = appended_ms
        self.frames += 1
        sums = self.topics.get(topic)
        if sums is None:
            sums = self.topics[topic] = [0, 0]
        sums[0] += 1
        sums[1] += frame_bytes
        if key_hash is not None:
            self.key_hashes.append(key_hash)

    def add_batch(self, batch: Batch) -> None:
        """Count the frames of a batch."""
        if batch.bodies and not self.frames:
            self.oldest_ms = batch.appended_ms
        self.frames += len(batch.bodies)
        self.key_hashes.extend(batch.key_hashes)
        self.key_hashes.extend([ticket.key_hash for ticket in batch.claims if ticket.key_hash is not None])
        add_topics(self.topics, batch.topics)

    def pack(self, seed: int, next_sequence: int) -> bytes:
        """Return the footer, a group of its own."""
        keys = self.keys
        parts = [_HEAD.pack(self.frames, self.oldest_ms, len(self.topics), len(keys))]
        for topic, (frames, size) in self.topics.items():
            name = topic.encode()
            parts += (_TOPIC.pack(len(name), frames, size), name)
        # In C, and in no order: sorted, and written out in Python, a segment's 50,000 keys held up everybody for 30 ms.
        parts.append(struct.pack(f"<{2 * len(keys)}I", *chain.from_iterable(keys.items())))
        whole = HEAD_BYTES + ENTRY_BYTES + sum(map(len, parts)) + END_BYTES
        parts.append(_END.pack(whole, END_MAGIC))
        return pack_group(seed, FOOTER_KIND, next_sequence, [b"".join(parts)])


def add_topics(sums: dict[str, list[int]], more: Mapping[str, Sequence[int]]) -> None:
    """Add frames and bytes by topic to `sums`."""
    for topic, (frames, size) in more.items():
        held = sums.get(topic)
        if held is None:
            held = sums[topic] = [0, 0]
        held[0] += frames
        held[1] += size


def footer_length(last_bytes: bytes) -> int | None:
    """Return the length of the footer that ends with these 8 bytes, None when they end no footer."""
    if len(last_bytes) != END_BYTES:
        return None
    length, magic = _END.unpack(last_bytes)
    return length if magic == END_MAGIC else None


class Footer(msgspec.Struct, frozen=True):
    """What a footer says: the sums of all frames of its segment."""

    frames: int
    oldest_ms: int
    topics: dict[str, list[int]]
    keys: dict[int, int]


def parse_footer(body: bytes) -> Footer:
    """Return what `Summary.pack` stored. Raises ValueError for a body that is no footer's."""
    sums: dict[str, list[int]] = {}
    try:
        frames, oldest_ms, topics, keys = _HEAD.unpack_from(body)
        at = _HEAD.size
        for _ in range(topics):
            name_bytes, count, size = _TOPIC.unpack_from(body, at)
            at += _TOPIC.size
            sums[body[at : (at := at + name_bytes)].decode()] = [count, size]
        if at + 8 * keys + END_BYTES != len(body):
            raise ValueError("the footer has another length than its parts")
        return Footer(frames, oldest_ms, sums, dict(struct.iter_unpack("<II", body[at:-END_BYTES])))
    except struct.error:
        raise ValueError("the footer ends too early") from None
