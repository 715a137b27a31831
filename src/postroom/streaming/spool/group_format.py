"""The bytes of a group, which is what one sync stores: head, table, bodies, copy. See docs/specs/spool-format.md.

One checksum for each body, everything else once for all of them: a head for each record cost as much as its packing.
"""

from __future__ import annotations

import struct
from typing import TYPE_CHECKING

import msgspec
from google_crc32c import extend as crc32c_extend
from google_crc32c import value as crc32c

if TYPE_CHECKING:
    from collections.abc import Sequence

FOOTER_KIND = 255
HEAD_BYTES = 28
ENTRY_BYTES = 8
"""What a frame has in the table: its size is this and its body. No frame is smaller."""

_CHECKED = struct.Struct("<BBHQIII")
_HEAD = struct.Struct("<IBBHQIII")
_U32 = struct.Struct("<I")


class GroupHead(msgspec.Struct, frozen=True, gc=False):
    """What stands before the table of a group, or of its copy."""

    kind: int
    is_copy: bool
    first_sequence: int
    frames: int
    body_bytes: int
    table_checksum: int

    @property
    def table_bytes(self) -> int:
        """How long the table is."""
        return ENTRY_BYTES * self.frames

    @property
    def size(self) -> int:
        """How long the whole group is, with its copy."""
        return group_bytes(self.frames, self.body_bytes)


class Table(msgspec.Struct, frozen=True, gc=False):
    """The lengths and the checksums of the bodies of a group."""

    lengths: tuple[int, ...]
    checksums: tuple[int, ...]


def group_bytes(frames: int, body_bytes: int) -> int:
    """Return how long a group is."""
    framing = HEAD_BYTES + ENTRY_BYTES * frames
    return (framing if frames == 1 else 2 * framing) + body_bytes


def pack_group(seed: int, kind: int, first_sequence: int, bodies: Sequence[bytes]) -> bytes:
    """Return a whole group; `bodies` holds at least one."""
    lengths, count = list(map(len, bodies)), len(bodies)
    table = struct.pack(f"<{2 * count}I", *lengths, *map(crc32c, bodies))
    fields = first_sequence, count, sum(lengths), crc32c(table)
    parts = [_pack_head(seed, kind, 0, fields), table, *bodies]
    if count > 1:
        parts += (_pack_head(seed, kind, 1, fields), table)
    return b"".join(parts)


def _pack_head(seed: int, kind: int, copy: int, fields: tuple[int, int, int, int]) -> bytes:
    checked = _CHECKED.pack(kind, copy, 0, *fields)
    return _U32.pack(crc32c_extend(seed, checked)) + checked


def parse_head(seed: int, data: bytes, at: int) -> GroupHead | None:
    """Return the head at `at`, where 28 bytes must be; None when its checksum or a field is wrong."""
    checksum, kind, copy, reserved, sequence, frames, body_bytes, table_checksum = _HEAD.unpack_from(data, at)
    if crc32c_extend(seed, data[at + 4 : at + HEAD_BYTES]) != checksum or copy > 1 or reserved or not frames:
        return None
    return GroupHead(kind, bool(copy), sequence, frames, body_bytes, table_checksum)


def parse_table(head: GroupHead, data: bytes) -> Table | None:
    """Return the table that is all of `data`; None when it is not the one of this head."""
    if len(data) != head.table_bytes or crc32c(data) != head.table_checksum:
        return None
    numbers = struct.unpack(f"<{2 * head.frames}I", data)
    lengths = numbers[: head.frames]
    return Table(lengths, numbers[head.frames :]) if sum(lengths) == head.body_bytes else None


def find_head(seed: int, kind: int, data: bytes, next_sequence: int, *, copy: bool) -> tuple[int, GroupHead] | None:
    """Return the first good head, or copy of one, in `data` whose sequence can follow, and where it stands.

    A copy counts only if its group begins in `data`.
    """
    mark = bytes((kind, copy, 0, 0))  # these need no checksum to be looked for
    found = data.find(mark, 4)
    while found >= 0:
        at = found - 4
        head = parse_head(seed, data, at) if at + HEAD_BYTES <= len(data) else None
        if (
            head is not None
            and 0 <= head.first_sequence - next_sequence <= at // ENTRY_BYTES + 1
            and (not copy or copied_group_at(head, at) >= 0)
        ):
            return at, head
        found = data.find(mark, found + 1)
    return None


def copied_group_at(head: GroupHead, at: int) -> int:
    """Return where the group begins whose copied head stands at `at`."""
    return at - head.body_bytes - head.table_bytes - HEAD_BYTES
