"""A plain reader of a spool's folders, written from docs/specs/spool-format.md alone. It changes nothing.

It shares no line with the code that writes them: what that one forgets, misplaces or never wrote is seen here.
"""

from __future__ import annotations

import re
import struct
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, NamedTuple

from google_crc32c import extend as crc32c_from
from google_crc32c import value as crc32c

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

_SLOT = re.compile(r"[0-9]+")
_SEGMENT = re.compile(r"([0-9]{20})\.seg")
_QUEUES = {"records": 1, "dead_letters": 2}
_SEGMENT_MAGIC, _CURSOR_MAGIC = b"POSTSPOL", b"POSTCURS"
_VERSION = 1
_HEADER_BYTES, _FRAMES_BEGIN, _FRAME_HEADER_BYTES = 64, 128, 28
_SMALLEST_FRAME_BYTES = _FRAME_HEADER_BYTES + 32
_FOOTER = 255
_LARGEST_BODY_BYTES = 2**30
_NULL = 2**32 - 1


class Stored(NamedTuple):
    """One whole record in a segment, and what the cursor says of it."""

    slot: str
    queue: str
    segment_id: int
    sequence: int
    event_id: str
    topic: str
    key: bytes | None
    value: bytes | None
    headers: tuple[tuple[str, bytes], ...]
    labels: tuple[tuple[str, bytes], ...]
    timestamp_ms: int
    attempts: int
    is_acknowledged: bool
    was_handed_out: bool


@dataclass(slots=True)
class SpoolFolders:
    """All that stands in a spool's root. `quarantine` holds the files there, whole, by their path."""

    stored: list[Stored] = field(default_factory=list)
    quarantine: dict[str, bytes] = field(default_factory=dict)
    torn_tails: int = 0  # bytes without a good frame after the last one, neither zeros nor a footer
    bad_ranges: int = 0  # ranges between good frames that cannot be read
    unknown: list[str] = field(default_factory=list)  # files that the specification does not name

    @property
    def waiting(self) -> list[Stored]:
        """What is not acknowledged: it would be sent by the next start."""
        return [one for one in self.stored if not one.is_acknowledged]


class _Header(NamedTuple):
    kind: int
    segment_id: int
    first_sequence: int
    seed: int


class _Frame(NamedTuple):
    kind: int
    attempts: int
    sequence: int
    length: int
    body_checksum: int


class _Cursor(NamedTuple):
    generation: int
    handed_out: int
    entries: dict[tuple[int, int], tuple[int, int]]  # segment id and seed -> low-water mark, bitmap as a number


def read_spool(root: Path) -> SpoolFolders:
    """Read every slot under `root`; nothing when there is no such folder.

    Files that are unlinked while this reads are as good as acknowledged and left out.
    """
    found = SpoolFolders()
    if not root.is_dir():
        return found
    for slot in sorted(root.iterdir()):
        if not slot.is_dir() or not _SLOT.fullmatch(slot.name):
            found.unknown.append(slot.name)
            continue
        for entry in sorted(slot.iterdir()):
            if entry.name in _QUEUES:
                _read_queue(slot.name, entry, found)
            elif entry.name == "quarantine":
                found.quarantine |= {f"{slot.name}/{one.name}": one.read_bytes() for one in sorted(entry.iterdir())}
            elif entry.name != "LOCK":
                found.unknown.append(f"{slot.name}/{entry.name}")
    return found


def _read_queue(slot: str, folder: Path, found: SpoolFolders) -> None:
    cursor = _read_cursor(folder / "cursor")
    for path in sorted(folder.iterdir()):
        match = _SEGMENT.fullmatch(path.name)
        if match is None:
            if path.name not in {"cursor", "cursor.new", "trial", "trial.new"}:
                found.unknown.append(f"{slot}/{folder.name}/{path.name}")
            continue
        try:
            data = path.read_bytes()
        except FileNotFoundError:
            continue
        header = _segment_header(data)
        if header is None or header.segment_id != int(match[1]) or header.kind != _QUEUES[folder.name]:
            if any(data):
                found.bad_ranges += 1
            continue
        for frame, at in _frames(data, header, found):
            body = data[at + _FRAME_HEADER_BYTES : at + _FRAME_HEADER_BYTES + frame.length]
            found.stored.append(_stored(slot, folder.name, header, frame, body, cursor))


# -- segments


def _segment_header(data: bytes) -> _Header | None:
    for start in (0, _HEADER_BYTES):
        copy = data[start : start + _HEADER_BYTES]
        if len(copy) < _HEADER_BYTES or not copy.startswith(_SEGMENT_MAGIC):
            continue
        seed = crc32c(copy[:60])
        version, begin, kind = struct.unpack_from("<HHB", copy, 8)
        segment_id, first_sequence = struct.unpack_from("<QQ", copy, 16)
        if seed == struct.unpack_from("<I", copy, 60)[0] and (version, begin) == (_VERSION, _FRAMES_BEGIN):
            return _Header(kind, segment_id, first_sequence, seed)
    return None


def _frames(data: bytes, header: _Header, found: SpoolFolders) -> Iterator[tuple[_Frame, int]]:
    """Every whole frame with its place, from the first to the footer or the torn tail."""
    at, sequence = _FRAMES_BEGIN, header.first_sequence
    while at < len(data):
        frame = _frame_header(data, at, header.seed)
        if frame is None:
            good = _next_good(data, at, header.seed, sequence)
            if good is None:
                found.torn_tails += any(data[at:])
                return
            found.bad_ranges += 1
            at = good
            continue
        body_begins = at + _FRAME_HEADER_BYTES
        if frame.kind == _FOOTER:
            return
        if body_begins + frame.length > len(data):
            found.torn_tails += 1
            return
        if crc32c(data[body_begins : body_begins + frame.length]) == frame.body_checksum:
            yield frame, at
        elif _next_good(data, body_begins + frame.length, header.seed, frame.sequence + 1) is None:
            found.torn_tails += 1  # the last frame: its body was on its way to the disk
        else:
            found.bad_ranges += 1
        at, sequence = body_begins + frame.length, frame.sequence + 1


def _frame_header(data: bytes, at: int, seed: int) -> _Frame | None:
    if at + _FRAME_HEADER_BYTES > len(data):
        return None
    checksum, length, body_checksum, kind, flags, reserved, attempts, sequence = struct.unpack_from(
        "<IIIBBHIQ", data, at
    )
    is_good = (
        crc32c_from(seed, data[at + 4 : at + _FRAME_HEADER_BYTES]) == checksum
        and length <= _LARGEST_BODY_BYTES
        and not flags
        and not reserved
    )
    return _Frame(kind, attempts, sequence, length, body_checksum) if is_good else None


def _next_good(data: bytes, begin: int, seed: int, sequence: int) -> int | None:
    """Where the next frame begins whose header holds and whose sequence can follow; None when there is none."""
    for at in range(begin, len(data) - _FRAME_HEADER_BYTES + 1):
        frame = _frame_header(data, at, seed)
        if frame is not None:
            skipped = frame.sequence - sequence
            if 0 <= skipped <= (at - begin) // _SMALLEST_FRAME_BYTES + 1:
                return at
    return None


def _stored(slot: str, queue: str, header: _Header, frame: _Frame, body: bytes, cursor: _Cursor) -> Stored:
    timestamp, _, id_bytes, topic_bytes, headers, labels, key_bytes, value_bytes = struct.unpack_from("<qqHHHHII", body)
    at = 32
    event_id, at = body[at : at + id_bytes].decode(), at + id_bytes
    topic, at = body[at : at + topic_bytes].decode(), at + topic_bytes
    key, at = (None, at) if key_bytes == _NULL else (body[at : at + key_bytes], at + key_bytes)
    value, at = (None, at) if value_bytes == _NULL else (body[at : at + value_bytes], at + value_bytes)
    pairs: list[tuple[str, bytes]] = []
    for _ in range(headers + labels):
        name_bytes, content_bytes = struct.unpack_from("<HI", body, at)
        at += 6
        name, at = body[at : at + name_bytes].decode(), at + name_bytes
        content, at = body[at : at + content_bytes], at + content_bytes
        pairs.append((name, content))
    if at != len(body):
        raise ValueError(f"the record {frame.sequence} of segment {header.segment_id} has bytes that nothing explains")
    low, bitmap = cursor.entries.get((header.segment_id, header.seed), (0, 0))
    index = frame.sequence - header.first_sequence
    return Stored(
        slot,
        queue,
        header.segment_id,
        frame.sequence,
        event_id,
        topic,
        key,
        value,
        tuple(pairs[:headers]),
        tuple(pairs[headers:]),
        timestamp,
        frame.attempts,
        is_acknowledged=index < low or bool(bitmap >> (index - low) & 1),
        was_handed_out=frame.sequence < cursor.handed_out,
    )


# -- cursor


def _read_cursor(path: Path) -> _Cursor:
    """The newer whole one of the two slots. Without any, everything counts as handed out, nothing as acknowledged."""
    nothing = _Cursor(0, 2**64, {})
    try:
        data = path.read_bytes()
    except FileNotFoundError:
        return nothing
    half = len(data) // 2
    slots = [_cursor_slot(data[:half]), _cursor_slot(data[half:])]
    return max((slot for slot in slots if slot is not None), key=lambda slot: slot.generation, default=nothing)


def _cursor_slot(data: bytes) -> _Cursor | None:
    if len(data) < 36 or not data.startswith(_CURSOR_MAGIC):
        return None
    version, complement, checksum, generation, handed_out, entry_bytes = struct.unpack_from("<HHIQQI", data, 8)
    ends = 36 + entry_bytes
    if version != _VERSION or version ^ complement != 0xFFFF or ends > len(data) or crc32c(data[16:ends]) != checksum:
        return None
    entries: dict[tuple[int, int], tuple[int, int]] = {}
    at = 36
    while at < ends:
        segment_id, seed, low, bitmap_bytes = struct.unpack_from("<QIII", data, at)
        at += 20
        entries[segment_id, seed] = (low, int.from_bytes(data[at : at + bitmap_bytes], "little"))
        at += bitmap_bytes
    return _Cursor(generation, handed_out, entries)
