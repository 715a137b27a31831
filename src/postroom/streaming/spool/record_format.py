"""The bytes of the spool, in both directions and without any file: docs/specs/spool-format.md, version 1."""

from __future__ import annotations

import struct
from enum import IntEnum
from functools import lru_cache
from typing import TYPE_CHECKING

import msgspec
from google_crc32c import extend as crc32c_extend
from google_crc32c import value as crc32c

from postroom.libs.event import Record
from postroom.libs.exceptions import NotRepresentableError

if TYPE_CHECKING:
    from collections.abc import Iterable, Sequence

    from postroom.libs.event import Headers

VERSION = 1
MAGIC = b"POSTSPOL"
HEADER_BYTES = 64
FRAMES_BEGIN = 2 * HEADER_BYTES
FRAME_HEADER_BYTES = 28
MAX_BODY_BYTES = 2**30
FOOTER_KIND = 255

_HEADER = struct.Struct("<8sHHB3xQQq8s12x")
_U32 = struct.Struct("<I")
_CHECKED = struct.Struct("<IIBBHIQ")
_FRAME = struct.Struct("<IIIBBHIQ")
_BODY = struct.Struct("<qqHHHHII")
_PAIR = struct.Struct("<HI")
_unpack_frame = _FRAME.unpack_from
_unpack_body_head = _BODY.unpack_from
_unpack_pair = _PAIR.unpack_from
_pack_body_head = _BODY.pack
_pack_pair = _PAIR.pack
_MAX_U32 = _NULL = 0xFFFF_FFFF

SMALLEST_FRAME_BYTES = FRAME_HEADER_BYTES + _BODY.size


class Kind(IntEnum):
    """The two queues of a spool."""

    RECORD = 1
    DEAD_LETTER = 2


class SegmentHeader(msgspec.Struct, frozen=True):
    """What the first bytes of a segment say. `seed` is where the checksums of its frames begin."""

    kind: int
    segment_id: int
    first_sequence: int
    created_ms: int
    salt: bytes
    seed: int


class FrameHeader(msgspec.Struct, frozen=True, gc=False):
    """What stands before the body of a frame."""

    length: int
    body_checksum: int
    kind: int
    attempts: int
    sequence: int


class StoredRecord(msgspec.Struct, frozen=True, gc=False):
    """A record as it came back from the disk, with its labels and the time it was appended (ms since 1970)."""

    record: Record
    labels: Headers
    appended_ms: int


def pack_segment_header(kind: int, segment_id: int, first_sequence: int, created_ms: int, salt: bytes) -> bytes:
    """Return the 128 bytes a segment begins with. `salt` has 8 bytes."""
    fields = _HEADER.pack(MAGIC, VERSION, FRAMES_BEGIN, kind, segment_id, first_sequence, created_ms, salt)
    return (fields + _U32.pack(crc32c(fields))) * 2


def parse_segment_header(data: bytes) -> SegmentHeader | None:
    """Return the header from a segment's first 128 bytes, from either copy; None when both are broken."""
    for start in (0, HEADER_BYTES):
        copy = data[start : start + HEADER_BYTES]
        if len(copy) < HEADER_BYTES:
            return None
        seed = crc32c(copy[:-4])
        if copy.startswith(MAGIC) and _U32.unpack(copy[-4:])[0] == seed:
            _, version, begin, kind, segment_id, first, created, salt = _HEADER.unpack(copy[:-4])
            if version == VERSION and begin == FRAMES_BEGIN:
                return SegmentHeader(kind, segment_id, first, created, salt, seed)
    return None


def is_newer_segment(data: bytes) -> bool:
    """True for the first 128 bytes of a segment of a newer version: both copies say so, so no flipped bit."""
    begin = data[:10]
    newer = begin.startswith(MAGIC) and int.from_bytes(begin[8:], "little") > VERSION
    return newer and data[HEADER_BYTES : HEADER_BYTES + 10] == begin


def pack_frames(seed: int, kind: int, frames: Iterable[tuple[int, int, bytes]]) -> bytes:
    """Return many whole frames, from attempts, sequence and body of each. Written out: it runs for every record."""
    pack, pack_checksum, extend, value = _CHECKED.pack, _U32.pack, crc32c_extend, crc32c
    parts: list[bytes] = []
    for attempts, sequence, body in frames:
        checked = pack(len(body), value(body), kind, 0, 0, attempts, sequence)
        parts += (pack_checksum(extend(seed, checked)), checked, body)
    return b"".join(parts)


def parse_frame_header(seed: int, data: bytes, at: int) -> FrameHeader | None:
    """Return the frame header at `at`, where 28 bytes must be; None when its checksum or a field is wrong."""
    checksum, length, body_checksum, kind, flags, reserved, attempts, sequence = _unpack_frame(data, at)
    if (
        crc32c_extend(seed, data[at + 4 : at + FRAME_HEADER_BYTES]) != checksum
        or flags
        or reserved
        or length > MAX_BODY_BYTES
    ):
        return None
    return FrameHeader(length, body_checksum, kind, attempts, sequence)


@lru_cache(1024)
def _encoded(text: str) -> bytes:
    """Names of topics and headers come again with every record."""
    return text.encode()


def _pack_pairs(pairs: Headers) -> bytes:
    if len(pairs) == 1:  # as most records have it: a list for one would cost as much again
        ((name, content),) = pairs
        encoded = _encoded(name)
        return _pack_pair(len(encoded), len(content)) + encoded + content
    parts: list[bytes] = []
    for name, content in pairs:
        encoded = _encoded(name)
        parts += (_pack_pair(len(encoded), len(content)), encoded, content)
    return b"".join(parts)


_pack_labels = lru_cache(1024)(_pack_pairs)
"""The labels of a contract are the same with every record."""


def pack_bodies(records: Iterable[Record], labels: Headers, appended_ms: int, bodies: list[bytes]) -> None:
    """Add the bytes of each record to `bodies`. Raises NotRepresentableError at the first that no frame can hold.

    Written out: a call for each record would cost as much as its packing.
    """
    packed_labels, label_count = _pack_labels(labels), len(labels)
    try:
        for record in records:
            key, value, headers = record.key, record.value, record.headers
            event_id, topic = record.event_id.encode(), _encoded(record.topic)
            body = b"".join(
                (
                    _pack_body_head(
                        record.timestamp_ms,
                        appended_ms,
                        len(event_id),
                        len(topic),
                        len(headers),
                        label_count,
                        _NULL if key is None else len(key),
                        _NULL if value is None else len(value),
                    ),
                    event_id,
                    topic,
                    key or b"",
                    value or b"",
                    _pack_pairs(headers),
                    packed_labels,
                )
            )
            if len(body) > MAX_BODY_BYTES:
                raise NotRepresentableError(
                    f"the record has {len(body)} bytes; the spool stores up to {MAX_BODY_BYTES}"
                )
            if not 0 <= record.attempt <= _MAX_U32:
                raise NotRepresentableError("the record has more attempts than the spool can count")
            bodies.append(body)
    except (struct.error, UnicodeEncodeError):
        raise NotRepresentableError("a field of the record is longer than the spool can store, or no text") from None


def pack_body(record: Record, labels: Headers, appended_ms: int) -> bytes:
    """Return the bytes of a record. Raises NotRepresentableError for what no frame can hold."""
    bodies: list[bytes] = []
    pack_bodies((record,), labels, appended_ms, bodies)
    return bodies[0]


def parse_body(body: bytes, attempts: int) -> StoredRecord:
    """Return what `pack_body` was given. Raises ValueError for a body that no writer of version 1 made."""
    try:
        timestamp, appended, id_bytes, topic_bytes, headers, labels, key_bytes, value_bytes = _unpack_body_head(body)
        at = _BODY.size
        event_id = body[at : (at := at + id_bytes)].decode()
        topic = _decoded(body[at : (at := at + topic_bytes)])
        key = None if key_bytes == _NULL else body[at : (at := at + key_bytes)]
        value = None if value_bytes == _NULL else body[at : (at := at + value_bytes)]
        pairs, at = _parse_pairs(body, at, headers)
        record = Record(topic, key, value, pairs, event_id, timestamp, attempts)
        return StoredRecord(record, _parse_labels(body[at:], labels), appended)
    except struct.error:
        raise ValueError("the body of a frame ends too early") from None


def _parse_pairs(body: bytes, at: int, count: int) -> tuple[Headers, int]:
    """Return `count` pairs of a name and a value, and where the next byte stands."""
    pairs: list[tuple[str, bytes]] = []
    for _ in range(count):
        name_bytes, content_bytes = _unpack_pair(body, at)
        at += _PAIR.size
        name = _decoded(body[at : (at := at + name_bytes)])
        pairs.append((name, body[at : (at := at + content_bytes)]))
    return tuple(pairs), at


@lru_cache(1024)
def _parse_labels(rest: bytes, count: int) -> Headers:
    """Return the labels, which are what is left of a body: the same ones with every record of a contract."""
    labels, at = _parse_pairs(rest, 0, count)
    if at != len(rest):
        raise ValueError("the body of a frame has another length than its parts")
    return labels


@lru_cache(1024)
def _decoded(name: bytes) -> str:
    """Names of topics and headers come again with every record."""
    return name.decode()


class KeyHash:
    """Hashes topic and key to the 32 bits that stand in the footers. Remembers the topics' part."""

    __slots__ = ("_topics",)

    def __init__(self) -> None:
        self._topics: dict[str, int] = {}

    def __call__(self, topic: str, key: bytes) -> int:
        """Return the hash of a record's topic and key."""
        begun = self._topics.get(topic)
        hashed: int = crc32c_extend(self._begun(topic) if begun is None else begun, key)
        return hashed

    def each(self, records: Sequence[Record]) -> list[int | None]:
        """Return the hash of each record, None for one without a key."""
        topics, begin, extend = self._topics, self._begun, crc32c_extend
        return [
            None
            if (key := record.key) is None
            else extend(begin(topic) if (begun := topics.get(topic := record.topic)) is None else begun, key)
            for record in records
        ]

    def _begun(self, topic: str) -> int:
        begun: int = crc32c(topic.encode() + b"\0")
        self._topics[topic] = begun
        return begun
