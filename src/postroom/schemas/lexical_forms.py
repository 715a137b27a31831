"""JSON to event and back by the schema: one lossless table, docs/specs/lexical-forms.md.

Reading changes only what the schema asks for and what can be read exactly; everything else is left as it is, for the
validator to name. `from_json(schema, to_json(schema, event)) == event` for every valid event.
"""

from __future__ import annotations

import base64
import binascii
import datetime as dt
import functools
import re
from decimal import Decimal
from typing import TYPE_CHECKING, Any, Final, TypeAlias, cast

from postroom.schemas.avro_leaves import LeafError, from_raw, parse_uuid, to_raw
from postroom.schemas.avro_nodes import INT_RANGES, MAX_DEPTH, Array, Leaf, Map, Node, Record, Union
from postroom.schemas.avro_schema import AvroSchema, branch_name, parse_schema
from postroom.schemas.avro_unions import choose_branch

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping

    from postroom.schemas.data_contracts import Contract

    Schema: TypeAlias = "Contract | AvroSchema | Mapping[str, Any]"

_DECIMAL: Final = re.compile(r"-?(?:0|[1-9][0-9]{0,4999})(?:\.[0-9]{1,5000})?")
_DATE: Final = r"([0-9]{4})-([0-9]{2})-([0-9]{2})"
_TIME: Final = r"([0-9]{2}):([0-9]{2}):([0-9]{2})(?:\.([0-9]{1,6})0*)?"
_DATE_ONLY: Final = re.compile(_DATE)
_TIME_ONLY: Final = re.compile(_TIME)
_LOCAL: Final = re.compile(f"{_DATE}T{_TIME}")
_INSTANT: Final = re.compile(f"{_DATE}[Tt ]{_TIME}(?:([Zz])|([+-])([0-9]{{2}}):([0-9]{{2}}))")


def from_json(schema: Schema, data: object) -> Any:
    """The event that JSON `data` (from `read_json`) means by the schema; what does not fit stays as it is.

    Never raises for any JSON value and does not change `data`. The result may share parts with it.
    """
    read = _reader(tree_of(schema))
    return data if read is None else read(data, 1)


def reader_of(node: Node) -> Callable[[object], object]:
    """`from_json` for the values of one node."""
    read = _Readers().of(node)
    return (lambda data: data) if read is None else (lambda data: read(data, 1))


def to_json(schema: Schema, event: object) -> Any:
    """The JSON form of a valid event: dicts, lists, str, int, float, bool and None only.

    The event must be valid (as what `Codec.decode` gives is); for others the result is undefined, LeafError included.
    """
    return _write(tree_of(schema).root, event)


def tree_of(schema: Schema) -> AvroSchema:
    """The parsed schema behind a contract, a parsed schema or a schema's JSON form."""
    if isinstance(schema, AvroSchema):
        return schema
    avro = getattr(schema, "avro", None)
    return avro if isinstance(avro, AvroSchema) else parse_schema(cast("Mapping[str, Any]", schema))


_Read: TypeAlias = "Callable[[object, int], object]"
"""Takes JSON and its depth. None instead of one: nothing below this node is read otherwise than it stands there."""


@functools.lru_cache(maxsize=256)
def _reader(schema: AvroSchema) -> _Read | None:
    return _Readers().of(schema.root)


class _Readers:
    """Makes the reading function of each node, once; a record that holds itself finds its own in the table."""

    def __init__(self) -> None:
        self._records: dict[int, _Read | None] = {}

    def of(self, node: Node) -> _Read | None:
        if isinstance(node, Leaf):
            read = _READERS.get(node.row)
            return None if read is None else lambda data, _depth: read(node, data)
        if isinstance(node, Union):
            return self._union(node)
        if isinstance(node, Array):
            return self._array(node)
        if isinstance(node, Map):
            return self._map(node)
        if id(node) not in self._records:
            self._record(node)
        return self._records[id(node)]

    def _record(self, node: Record) -> None:
        needed: dict[str, _Read] = {}

        def read_record(data: object, depth: int) -> object:
            if type(data) is not dict or depth > MAX_DEPTH:
                return data
            value = dict(data)
            for name, read in needed.items():
                if name in value:
                    value[name] = read(value[name], depth + 1)
            return value

        self._records[id(node)] = read_record
        for item in node.fields:
            read = self.of(item.type)
            if read is not None:
                needed[item.name] = read
        if not needed:
            self._records[id(node)] = None

    def _array(self, node: Array) -> _Read | None:
        read = self.of(node.items)
        if read is None:
            return None
        return lambda data, depth: (
            [read(item, depth + 1) for item in data] if type(data) is list and depth <= MAX_DEPTH else data
        )

    def _map(self, node: Map) -> _Read | None:
        read = self.of(node.values)
        if read is None:
            return None
        return lambda data, depth: (
            {key: read(item, depth + 1) for key, item in data.items()}
            if type(data) is dict and depth <= MAX_DEPTH
            else data
        )

    def _union(self, node: Union) -> _Read | None:
        readers = [self.of(branch) for branch in node.branches]
        if not any(readers):
            return None
        tags = {branch_name(cast("Leaf", branch)): at for at, branch in enumerate(node.branches)}
        texts = [at for at, branch in enumerate(node.branches) if branch in _of_text(node)]
        tagged = needs_tags(node)

        def read_at(at: int | None, data: object, depth: int) -> object:
            read = None if at is None else readers[at]
            return data if read is None else read(data, depth)

        def read_union(data: object, depth: int) -> object:
            kind = type(data)
            if kind is str:
                return read_at(texts[0], data, depth) if len(texts) == 1 else data
            if tagged and type(data) is dict and len(data) == 1:
                tag, inner = next(iter(data.items()))
                if tag in tags:
                    return read_at(tags[tag], inner, depth)
            at = choose_branch(node, data)
            if at is None and kind is int:
                return _read_number(node, readers, data, depth)
            return read_at(at, data, depth)

        return read_union


def _read_number(node: Union, readers: list[_Read | None], data: object, depth: int) -> object:
    """A whole number that no int branch holds: what the first other branch makes of it."""
    for branch, read in zip(node.branches, readers, strict=True):
        if isinstance(branch, Leaf) and read is not None:
            value = read(data, depth)
            if value is not data:
                return value
    return data


def needs_tags(node: Union) -> bool:
    """True when text alone does not say which branch is meant; then text and objects are written `{"branch": ...}`."""
    return len({branch.python_type for branch in _of_text(node)}) > 1


def _of_text(node: Union) -> list[Leaf]:
    """The branches whose JSON form is a text; those that hold a plain str are one."""
    found: dict[type, Leaf] = {}
    for branch in node.branches:
        if isinstance(branch, Leaf) and (branch.python_type is str or branch.row in _WRITERS):
            found.setdefault(branch.python_type, branch)
    return list(found.values())


def _write(node: Node, value: object) -> object:
    if isinstance(node, Leaf):
        write = _WRITERS.get(node.row)
        return value if write is None else write(node, value)
    if isinstance(node, Union):
        return _write_union(node, value)
    if isinstance(node, Array):
        return [_write(node.items, item) for item in cast("list[object]", value)]
    members = cast("dict[str, object]", value)
    if isinstance(node, Map):
        return {key: _write(node.values, item) for key, item in members.items()}
    return {item.name: _write(item.type, members[item.name]) for item in node.fields if item.name in members}


def _write_union(node: Union, value: object) -> object:
    at = choose_branch(node, value)
    if at is None:
        raise LeafError("wrong_branch", "a value of no branch")
    branch = node.branches[at]
    written = _write(branch, value)
    if isinstance(written, str | dict) and needs_tags(node):
        return {branch_name(cast("Leaf", branch)): written}
    return written


def _read_float(_leaf: Leaf, data: object) -> object:
    """A whole number for a floating one, where that is exact."""
    if type(data) is not int or data.bit_length() > 1024:
        return data
    try:
        number = float(data)
    except OverflowError:
        return data
    return number if number == data else data


def _read_bytes(_leaf: Leaf, data: object) -> object:
    """Base64 with padding (RFC 4648, section 4), in its one canonical spelling."""
    if type(data) is not str:
        return data
    try:
        raw = base64.b64decode(data, validate=True)
    except (binascii.Error, ValueError):
        return data
    return raw if base64.b64encode(raw).decode() == data else data


def _read_decimal(_leaf: Leaf, data: object) -> object:
    if type(data) is int:
        return Decimal(data)
    return Decimal(data) if type(data) is str and _DECIMAL.fullmatch(data) else data


def _read_uuid(_leaf: Leaf, data: object) -> object:
    if type(data) is not str:
        return data
    try:
        return parse_uuid(data)
    except LeafError:
        return data


def _read_time_like(leaf: Leaf, data: object) -> object:
    """A text in the ISO form of the row, or the whole number that Avro writes for it."""
    try:
        if type(data) is int:
            low, high = INT_RANGES[leaf.base]
            return from_raw(leaf, data) if low <= data <= high else data
        return _FROM_TEXT[leaf.row](data) if type(data) is str else data
    except (ValueError, OverflowError, LeafError):
        return data


def _matched(pattern: re.Pattern[str], text: str) -> list[str]:
    match = pattern.fullmatch(text)
    if match is None:
        raise ValueError
    return [group or "" for group in match.groups()]


def _clock(hour: str, minute: str, second: str, fraction: str) -> dt.time:
    return dt.time(int(hour), int(minute), int(second), int(fraction.ljust(6, "0") or 0))


def _date(text: str) -> dt.date:
    year, month, day = _matched(_DATE_ONLY, text)
    return dt.date(int(year), int(month), int(day))


def _time(text: str) -> dt.time:
    return _clock(*_matched(_TIME_ONLY, text))


def _local(text: str) -> dt.datetime:
    parts = _matched(_LOCAL, text)
    return dt.datetime.combine(dt.date(*map(int, parts[:3])), _clock(*parts[3:7]))


def _instant(text: str) -> dt.datetime:
    parts = _matched(_INSTANT, text)
    sign, hours, minutes = parts[8:]
    if sign and int(minutes) > 59:
        raise ValueError
    offset = dt.timedelta(hours=int(hours or 0), minutes=int(minutes or 0))
    zone = dt.timezone(-offset if sign == "-" else offset)
    return dt.datetime.combine(dt.date(*map(int, parts[:3])), _clock(*parts[3:7]), zone)


_FROM_TEXT: Final[dict[str, Callable[[str], object]]] = {
    "date": _date,
    "time-millis": _time,
    "time-micros": _time,
    "timestamp-millis": _instant,
    "timestamp-micros": _instant,
    "local-timestamp-millis": _local,
    "local-timestamp-micros": _local,
}

_READERS: Final[dict[str, Callable[[Leaf, object], object]]] = {
    "float": _read_float,
    "double": _read_float,
    "bytes": _read_bytes,
    "fixed": _read_bytes,
    "decimal": _read_decimal,
    "uuid": _read_uuid,
    **dict.fromkeys(_FROM_TEXT, _read_time_like),
}


def _write_bytes(_leaf: Leaf, value: object) -> str:
    return base64.b64encode(cast("bytes", value)).decode()


def _write_decimal(leaf: Leaf, value: object) -> str:
    exact = from_raw(leaf, to_raw(leaf, value))  # with the scale of the schema: 0E+9 is "0", not ten zeros
    return f"{exact:f}"


def _write_plain(_leaf: Leaf, value: object) -> str:
    return str(value)


def _write_time(leaf: Leaf, value: object) -> str:
    return cast("dt.time", value).isoformat(_precision(leaf))


def _write_timestamp(leaf: Leaf, value: object) -> str:
    """In UTC: the instant is what Avro keeps, not the zone it was told in."""
    instant = cast("dt.datetime", from_raw(leaf, to_raw(leaf, value)))
    text = instant.replace(tzinfo=None).isoformat("T", _precision(leaf))
    return text if leaf.row.startswith("local") else f"{text}Z"


def _precision(leaf: Leaf) -> str:
    return "milliseconds" if leaf.row.endswith("millis") else "microseconds"


_WRITERS: Final[dict[str, Callable[[Leaf, object], str]]] = {
    "bytes": _write_bytes,
    "fixed": _write_bytes,
    "decimal": _write_decimal,
    "uuid": _write_plain,
    "date": _write_plain,
    "time-millis": _write_time,
    "time-micros": _write_time,
    "timestamp-millis": _write_timestamp,
    "timestamp-micros": _write_timestamp,
    "local-timestamp-millis": _write_timestamp,
    "local-timestamp-micros": _write_timestamp,
}
