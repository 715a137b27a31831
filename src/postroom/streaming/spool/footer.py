"""What a segment holds, in sums: kept while it is written, stored in its footer, so that a start need not scan it."""

from __future__ import annotations

import struct
from typing import TYPE_CHECKING

from postroom.streaming.spool.record_format import FOOTER_KIND, FRAME_HEADER_BYTES, pack_frames

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from postroom.streaming.spool.group_commit import PendingFrame

END_MAGIC = b"PSFT"
END_BYTES = 8

_HEAD = struct.Struct("<IqII")
_TOPIC = struct.Struct("<HIQ")
_END = struct.Struct("<I4s")


class Summary:
    """Counts of frames: by topic (frames, bytes) and by key hash. `oldest_ms` is the first frame's appended time."""

    __slots__ = ("frames", "keys", "oldest_ms", "topics")

    def __init__(self) -> None:
        self.frames = 0
        self.oldest_ms = 0
        self.topics: dict[str, list[int]] = {}
        self.keys: dict[int, int] = {}

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
            self.keys[key_hash] = self.keys.get(key_hash, 0) + 1

    def add_all(self, frames: Sequence[PendingFrame]) -> dict[str, tuple[int, int]]:
        """Count many frames; return how many and how many bytes they are for each topic."""
        if frames and not self.frames:
            self.oldest_ms = frames[0].appended_ms
        self.frames += len(frames)
        keys = self.keys
        by_topic: dict[str, tuple[int, int]] = {}
        for frame in frames:
            count, size = by_topic.get(frame.topic, (0, 0))
            by_topic[frame.topic] = (count + 1, size + frame.size)
            if (key_hash := frame.key_hash) is not None:
                keys[key_hash] = keys.get(key_hash, 0) + 1
        add_topics(self.topics, by_topic)
        return by_topic

    def pack(self, seed: int, next_sequence: int) -> bytes:
        """Return the footer frame."""
        parts = [_HEAD.pack(self.frames, self.oldest_ms, len(self.topics), len(self.keys))]
        for topic, (frames, size) in self.topics.items():
            name = topic.encode()
            parts += (_TOPIC.pack(len(name), frames, size), name)
        hashes = sorted(self.keys)
        parts.append(struct.pack(f"<{2 * len(hashes)}I", *(part for key in hashes for part in (key, self.keys[key]))))
        whole = FRAME_HEADER_BYTES + sum(map(len, parts)) + END_BYTES
        parts.append(_END.pack(whole, END_MAGIC))
        return pack_frames(seed, FOOTER_KIND, [(0, next_sequence, b"".join(parts))])


def add_topics(sums: dict[str, list[int]], more: Mapping[str, tuple[int, int]]) -> None:
    """Add frames and bytes by topic to `sums`."""
    for topic, (frames, size) in more.items():
        held = sums.get(topic)
        if held is None:
            held = sums[topic] = [0, 0]
        held[0] += frames
        held[1] += size


def footer_length(last_bytes: bytes) -> int | None:
    """Return the length of the footer frame that ends with these 8 bytes, None when they end no footer."""
    if len(last_bytes) != END_BYTES:
        return None
    length, magic = _END.unpack(last_bytes)
    return length if magic == END_MAGIC else None


def parse_footer(body: bytes) -> Summary:
    """Return what `Summary.pack` stored. Raises ValueError for a body that is no footer's."""
    summary = Summary()
    try:
        summary.frames, summary.oldest_ms, topics, keys = _HEAD.unpack_from(body)
        at = _HEAD.size
        for _ in range(topics):
            name_bytes, frames, size = _TOPIC.unpack_from(body, at)
            at += _TOPIC.size
            summary.topics[body[at : (at := at + name_bytes)].decode()] = [frames, size]
        if at + 8 * keys + END_BYTES != len(body):
            raise ValueError("the footer has another length than its parts")
        summary.keys = dict(struct.iter_unpack("<II", body[at:-END_BYTES]))
    except struct.error:
        raise ValueError("the footer ends too early") from None
    return summary
