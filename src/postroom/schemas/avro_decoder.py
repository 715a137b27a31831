"""Avro bytes to Python values, bounded by the bytes that are there: no claim in the data costs more than they do."""

from __future__ import annotations

import struct
from typing import TYPE_CHECKING, Final, TypeAlias

from postroom.libs.exceptions import DecodeError
from postroom.schemas.avro_leaves import LeafError, from_raw
from postroom.schemas.avro_nodes import INT_RANGES, MAX_DEPTH, Array, Leaf, Map, Node, Record, Union

if TYPE_CHECKING:
    from collections.abc import Callable

MAX_EMPTY_ITEMS: Final = 65_536
"""Items that take no bytes (null, a record without fields) and that one body may claim in all its arrays."""

_FLOAT, _DOUBLE = struct.Struct("<f"), struct.Struct("<d")


class _Cursor:
    """The place in one body. Everything is read through it, so that every read is checked in one place."""

    __slots__ = ("body", "depth", "empty_items", "position")

    def __init__(self, body: bytes) -> None:
        self.body = body
        self.position = 0
        self.depth = 0
        self.empty_items = 0

    def fail(self, reason: str, text: str) -> DecodeError:
        return DecodeError(f"Avro body, byte {self.position}: {text}", reason=reason, position=self.position)

    def left(self) -> int:
        return len(self.body) - self.position

    def take(self, size: int) -> bytes:
        if not 0 <= size <= self.left():
            raise self._bad_size(size)
        start = self.position
        self.position = start + size
        return self.body[start : self.position]

    def _bad_size(self, size: int) -> DecodeError:
        if size < 0:
            return self.fail("negative_length", "a length below zero")
        return self.fail("truncated", "the body ends inside a value")

    def long(self) -> int:
        """A varint of at most ten bytes and 64 bits."""
        number, shift = 0, 0
        for byte in self.body[self.position : self.position + 10]:
            number |= (byte & 0x7F) << shift
            shift += 7
            if byte < 0x80:
                if number >> 64:
                    raise self.fail("bad_varint", "a number of more than 64 bits")
                self.position += shift // 7
                return (number >> 1) ^ -(number & 1)
        if shift == 70:
            raise self.fail("bad_varint", "a number of more than ten bytes")
        raise self.fail("truncated", "the body ends inside a number")

    def down(self) -> None:
        self.depth += 1
        if self.depth > MAX_DEPTH:
            raise self.fail("too_deep", f"more than {MAX_DEPTH} levels")


_Read: TypeAlias = "Callable[[_Cursor], object]"


def build_decoder(root: Node) -> Callable[[bytes], object]:
    """`decode(body)`: the value, or DecodeError for every body that is not exactly one value of this schema."""
    read = _Builder().reader(root)

    def decode(body: bytes) -> object:
        cursor = _Cursor(body)
        value = read(cursor)
        if cursor.left():
            raise cursor.fail("trailing_bytes", "bytes after the end of the value")
        return value

    return decode


class _Builder:
    """Makes one reading function for each node; a record that holds itself finds its own in the table."""

    def __init__(self) -> None:
        self._records: dict[int, _Read] = {}

    def reader(self, node: Node) -> _Read:
        if isinstance(node, Leaf):
            return _leaf_reader(node)
        if isinstance(node, Array):
            return self._array(node)
        if isinstance(node, Map):
            return self._map(node)
        if isinstance(node, Union):
            return self._union(node)
        return self._records.get(id(node)) or self._record(node)

    def _record(self, node: Record) -> _Read:
        fields: list[tuple[str, _Read]] = []

        def read_record(cursor: _Cursor) -> object:
            cursor.down()
            value = {name: read(cursor) for name, read in fields}
            cursor.depth -= 1
            return value

        self._records[id(node)] = read_record
        fields += [(item.name, self.reader(item.type)) for item in node.fields]
        return read_record

    def _array(self, node: Array) -> _Read:
        read_item = self.reader(node.items)

        def read_array(cursor: _Cursor) -> object:
            value: list[object] = []
            _read_blocks(cursor, lambda: value.append(read_item(cursor)))
            return value

        return read_array

    def _map(self, node: Map) -> _Read:
        read_value = self.reader(node.values)

        def read_map(cursor: _Cursor) -> object:
            value: dict[str, object] = {}

            def read_entry() -> None:
                key = _read_string(cursor)
                if key in value:
                    raise cursor.fail("duplicate_key", "a map with the same key twice")
                value[key] = read_value(cursor)

            _read_blocks(cursor, read_entry)
            return value

        return read_map

    def _union(self, node: Union) -> _Read:
        branches = [self.reader(branch) for branch in node.branches]

        def read_union(cursor: _Cursor) -> object:
            at = cursor.long()
            if not 0 <= at < len(branches):
                raise cursor.fail("bad_index", f"a branch outside of the union's {len(branches)}")
            return branches[at](cursor)

        return read_union


def _read_blocks(cursor: _Cursor, read_item: Callable[[], None]) -> None:
    """Blocks of a count and so many items, up to a count of zero; a negative count has the block's size after it."""
    cursor.down()
    while (count := cursor.long()) != 0:
        end = None
        if count < 0:
            count, size = -count, cursor.long()
            if not 0 <= size <= cursor.left():
                raise cursor.fail("bad_block", "a block whose size is not there")
            end = cursor.position + size
        for _ in range(count):
            start = cursor.position
            read_item()
            if cursor.position == start:
                _count_empty(cursor)
        if end is not None and cursor.position != end:
            raise cursor.fail("bad_block", "a block of another size than it claims")
    cursor.depth -= 1


def _count_empty(cursor: _Cursor) -> None:
    cursor.empty_items += 1
    if cursor.empty_items > MAX_EMPTY_ITEMS:
        raise cursor.fail("too_many_items", f"more than {MAX_EMPTY_ITEMS} items that take no bytes")


def _read_string(cursor: _Cursor) -> str:
    raw = cursor.take(cursor.long())
    try:
        return raw.decode()
    except UnicodeDecodeError:
        raise cursor.fail("invalid_utf8", "text that is not UTF-8") from None


def _read_null(_cursor: _Cursor) -> object:
    return None


def _read_boolean(cursor: _Cursor) -> object:
    byte = cursor.take(1)[0]
    if byte > 1:
        raise cursor.fail("bad_boolean", "a boolean that is neither 0 nor 1")
    return byte == 1


def _read_bytes(cursor: _Cursor) -> object:
    return cursor.take(cursor.long())


def _read_float(cursor: _Cursor) -> object:
    return _FLOAT.unpack(cursor.take(4))[0]


def _read_double(cursor: _Cursor) -> object:
    return _DOUBLE.unpack(cursor.take(8))[0]


_RAW_READERS: Final[dict[str, _Read]] = {
    "null": _read_null,
    "boolean": _read_boolean,
    "long": _Cursor.long,
    "float": _read_float,
    "double": _read_double,
    "bytes": _read_bytes,
    "string": _read_string,
}


def _raw_reader(leaf: Leaf) -> _Read:
    if leaf.base == "int":
        return _read_int
    if leaf.base == "fixed":
        return lambda cursor: cursor.take(leaf.size)
    if leaf.base == "enum":
        return lambda cursor: _read_symbol(cursor, leaf.symbols)
    return _RAW_READERS[leaf.base]


def _read_int(cursor: _Cursor) -> object:
    number = cursor.long()
    low, high = INT_RANGES["int"]
    if not low <= number <= high:
        raise cursor.fail("out_of_range", "an int of more than 32 bits")
    return number


def _read_symbol(cursor: _Cursor, symbols: tuple[str, ...]) -> object:
    at = cursor.long()
    if not 0 <= at < len(symbols):
        raise cursor.fail("bad_index", f"a symbol outside of the enum's {len(symbols)}")
    return symbols[at]


def _leaf_reader(leaf: Leaf) -> _Read:
    read = _raw_reader(leaf)
    if leaf.row == leaf.base:
        return read

    def read_logical(cursor: _Cursor) -> object:
        raw = read(cursor)
        try:
            return from_raw(leaf, raw)
        except LeafError as error:
            raise cursor.fail("out_of_range", f"{leaf.row}: {error.found}") from None

    return read_logical
