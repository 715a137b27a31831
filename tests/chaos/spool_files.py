"""A plain reader of a spool's folders, written from docs/specs/spool-format.md alone. It changes nothing.

It shares no line with the code that writes them: what that one forgets, misplaces or never wrote is seen here.
"""

from __future__ import annotations

import re
import struct
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, NamedTuple

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
_HEADER_BYTES, _GROUPS_BEGIN, _HEAD_BYTES, _ENTRY_BYTES = 64, 128, 28, 8
_FOOTER = 255


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


class _Group(NamedTuple):
    kind: int
    is_copy: bool
    first_sequence: int
    frames: int
    body_bytes: int
    table_checksum: int

    @property
    def table_bytes(self) -> int:
        return _ENTRY_BYTES * self.frames

    @property
    def size(self) -> int:
        copies = 1 if self.frames == 1 else 2
        return copies * (_HEAD_BYTES + self.table_bytes) + self.body_bytes


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
        if slot.name == "contracts":  # what the Schema Registry said; nothing of an event
            continue
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
        for sequence, body in _bodies(data, header, found):
            found.stored.append(_stored(slot, folder.name, header, sequence, body, cursor))


# -- segments


def _segment_header(data: bytes) -> _Header | None:
    for start in (0, _HEADER_BYTES):
        copy = data[start : start + _HEADER_BYTES]
        if len(copy) < _HEADER_BYTES or not copy.startswith(_SEGMENT_MAGIC):
            continue
        seed = crc32c(copy[:60])
        version, begin, kind = struct.unpack_from("<HHB", copy, 8)
        segment_id, first_sequence = struct.unpack_from("<QQ", copy, 16)
        if seed == struct.unpack_from("<I", copy, 60)[0] and (version, begin) == (_VERSION, _GROUPS_BEGIN):
            return _Header(kind, segment_id, first_sequence, seed)
    return None


def _bodies(data: bytes, header: _Header, found: SpoolFolders) -> Iterator[tuple[int, bytes]]:
    """Every whole body with its sequence, from the first to the footer or the torn tail."""
    at, sequence = _GROUPS_BEGIN, header.first_sequence
    bad = 0  # ranges since the last whole body: at the end of a segment without a footer they are its torn tail
    while at < len(data):
        group = _head(data, at, header.seed)
        if group is not None and group.kind == _FOOTER:
            found.bad_ranges += bad
            return
        if group is None or group.is_copy or group.first_sequence < sequence:
            at, group, skipped = _next_group(data, at, header, sequence)
            bad += skipped
            if group is None:
                break
        table = _table(data, at, group)
        if table is None:
            bad += 1
        else:
            place = at + _HEAD_BYTES + group.table_bytes
            for number, (length, checksum) in enumerate(table, group.first_sequence):
                body = data[place : place + length]
                if len(body) == length and crc32c(body) == checksum:
                    found.bad_ranges += bad
                    bad = 0
                    yield number, body
                else:
                    bad += 1
                place += length
        at, sequence = at + group.size, group.first_sequence + group.frames
    found.torn_tails += bool(bad)


def _head(data: bytes, at: int, seed: int) -> _Group | None:
    if at + _HEAD_BYTES > len(data):
        return None
    checksum, kind, copy, reserved, *fields = struct.unpack_from("<IBBHQIII", data, at)
    is_good = crc32c_from(seed, data[at + 4 : at + _HEAD_BYTES]) == checksum and copy <= 1 and not reserved
    return _Group(kind, copy == 1, *fields) if is_good and fields[1] else None


def _table(data: bytes, at: int, group: _Group) -> list[tuple[int, int]] | None:
    """The length and the checksum of each body, from before the bodies or from behind them."""
    places = [at + _HEAD_BYTES]
    if group.frames > 1:
        places.append(at + group.size - group.table_bytes)
    for place in places:
        table = data[place : place + group.table_bytes]
        if len(table) == group.table_bytes and crc32c(table) == group.table_checksum:
            numbers = struct.unpack(f"<{2 * group.frames}I", table)
            return list(zip(numbers[: group.frames], numbers[group.frames :], strict=True))
    return None


def _next_group(data: bytes, begin: int, header: _Header, sequence: int) -> tuple[int, _Group | None, bool]:
    """Where the next group begins whose head, or the copy of it, holds and can follow; whether bytes are skipped.

    Without one: whether there is anything but zeros.
    """
    for at in range(begin, len(data) - _HEAD_BYTES + 1):
        if data[at + 4] != header.kind:
            continue
        group = _head(data, at, header.seed)
        if group is None or not 0 <= group.first_sequence - sequence <= (at - begin) // _ENTRY_BYTES + 1:
            continue
        starts = at if not group.is_copy else at - group.body_bytes - group.table_bytes - _HEAD_BYTES
        if starts >= begin:
            return starts, group, starts > begin
    return len(data), None, any(data[begin:])


def _stored(slot: str, queue: str, header: _Header, sequence: int, body: bytes, cursor: _Cursor) -> Stored:
    _, label_bytes = struct.unpack_from("<qI", body)
    labels, at = _unpacked(body, 12) if label_bytes else ([], 12)
    assert at == 12 + label_bytes
    (topic, key, value, headers, event_id, timestamp, attempts), at = _unpacked(body, at)
    if at != len(body):
        raise ValueError(f"the record {sequence} of segment {header.segment_id} has bytes that nothing explains")
    low, bitmap = cursor.entries.get((header.segment_id, header.seed), (0, 0))
    index = sequence - header.first_sequence
    return Stored(
        slot,
        queue,
        header.segment_id,
        sequence,
        event_id,
        topic,
        key,
        value,
        tuple((name, content) for name, content in headers),
        tuple((name, content) for name, content in labels),
        timestamp,
        attempts,
        is_acknowledged=index < low or bool(bitmap >> (index - low) & 1),
        was_handed_out=sequence < cursor.handed_out,
    )


# -- MessagePack, as far as the specification uses it

_INTEGERS = {0xCC: "B", 0xCD: ">H", 0xCE: ">I", 0xCF: ">Q", 0xD0: "b", 0xD1: ">h", 0xD2: ">i", 0xD3: ">q"}
_LENGTHS = {0xC4: "B", 0xC5: ">H", 0xC6: ">I", 0xD9: "B", 0xDA: ">H", 0xDB: ">I", 0xDC: ">H", 0xDD: ">I"}


def _unpacked(data: bytes, at: int) -> tuple[Any, int]:
    """The value at `at`, and where the next one begins."""
    tag = data[at]
    at += 1
    if tag < 0x80 or tag >= 0xE0:
        return tag if tag < 0x80 else tag - 256, at
    if tag == 0xC0:
        return None, at
    if tag in _INTEGERS:
        (number,) = struct.unpack_from(_INTEGERS[tag], data, at)
        return number, at + struct.calcsize(_INTEGERS[tag])
    if 0x90 <= tag < 0xA0 or tag in {0xDC, 0xDD}:
        length, at = (tag & 0x0F, at) if tag < 0xA0 else _length(tag, data, at)
        values = []
        for _ in range(length):
            value, at = _unpacked(data, at)
            values.append(value)
        return values, at
    length, at = (tag & 0x1F, at) if 0xA0 <= tag < 0xC0 else _length(tag, data, at)
    content = data[at : at + length]
    is_text = 0xA0 <= tag < 0xC0 or tag in {0xD9, 0xDA, 0xDB}
    return content.decode() if is_text else content, at + length


def _length(tag: int, data: bytes, at: int) -> tuple[int, int]:
    (length,) = struct.unpack_from(_LENGTHS[tag], data, at)
    return length, at + struct.calcsize(_LENGTHS[tag])


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
