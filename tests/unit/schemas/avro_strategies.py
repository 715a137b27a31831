"""Generated schemas, valid events for them, and ways to spoil an event."""

from __future__ import annotations

import contextlib
import copy
import datetime as dt
import enum
import math
import uuid
from decimal import Decimal
from typing import Any

from hypothesis import HealthCheck, assume, reject, settings
from hypothesis import strategies as st

from postroom.schemas.avro_leaves import EPOCH, LOCAL_EPOCH
from postroom.schemas.avro_nodes import Array, Leaf, Map, Node, Record, Union
from postroom.schemas.avro_schema import AvroSchema, try_schema

UNHURRIED = settings(
    deadline=None, suppress_health_check=[HealthCheck.too_slow, HealthCheck.filter_too_much, HealthCheck.data_too_large]
)
"""For tests over generated schemas: some are large, and a doubtful one is thrown away."""

PRIMITIVES = ("null", "boolean", "int", "long", "float", "double", "bytes", "string")
LOGICAL = (
    {"type": "int", "logicalType": "date"},
    {"type": "int", "logicalType": "time-millis"},
    {"type": "long", "logicalType": "time-micros"},
    {"type": "long", "logicalType": "timestamp-millis"},
    {"type": "long", "logicalType": "timestamp-micros"},
    {"type": "long", "logicalType": "local-timestamp-millis"},
    {"type": "long", "logicalType": "local-timestamp-micros"},
    {"type": "string", "logicalType": "uuid"},
    {"type": "bytes", "logicalType": "decimal", "precision": 9, "scale": 3},
    {"type": "bytes", "logicalType": "decimal", "precision": 30},
)
FIELD_NAMES = ("a", "b", "class", "def", "event", "prefix", "None_", "_x", "__init__", "No", "Z", "join")


class Names:
    """Fresh names for named types, and those that are complete and may be used again."""

    def __init__(self, *, doubtful: bool) -> None:
        self.doubtful = doubtful
        self.count = 0
        self.known: list[str] = []
        self.open: list[str] = []

    def new(self) -> str:
        self.count += 1
        return f"{'ns.sub' if self.count % 3 == 0 else 'ns'}.T{self.count}"


@st.composite
def _named_leaf(draw: st.DrawFn, names: Names) -> Any:
    name = names.new()
    kind = draw(st.sampled_from(["enum", "fixed", "fixed-decimal"]))
    names.known.append(name)
    if kind == "enum":
        size = draw(st.integers(1, 5))
        return {"type": "enum", "name": name, "symbols": [f"{name.rpartition('.')[2]}_{n}" for n in range(size)]}
    if kind == "fixed":
        return {"type": "fixed", "name": name, "size": draw(st.integers(1, 17))}
    return {"type": "fixed", "name": name, "size": 6, "logicalType": "decimal", "precision": 14, "scale": 2}


@st.composite
def _record(draw: st.DrawFn, names: Names, depth: int) -> Any:
    name = names.new()
    names.open.append(name)
    fields = []
    for field in draw(st.lists(st.sampled_from(FIELD_NAMES), max_size=5, unique=True)):
        item: dict[str, Any] = {"name": field, "type": draw(_type(names, depth + 1))}
        if isinstance(item["type"], list) and item["type"][0] == "null" and draw(st.booleans()):
            item["default"] = None
        elif isinstance(item["type"], str) and item["type"] in DEFAULTS and draw(st.booleans()):
            item["default"] = DEFAULTS[item["type"]]
        fields.append(item)
    names.open.pop()
    names.known.append(name)
    return {"type": "record", "name": name, "fields": fields}


DEFAULTS: dict[str, Any] = {
    "boolean": True,
    "int": -5,
    "long": 2**40,
    "float": 1.5,
    "double": -0.25,
    "bytes": "\u00ff\u0000",
    "string": "d\u00e9faut",
}


@st.composite
def _type(draw: st.DrawFn, names: Names, depth: int) -> Any:
    kinds = ["primitive", "primitive", "logical", "named", "known", "union"]
    if depth < 4:
        kinds += ["record", "array", "map", "union"]
    return draw(_one(draw(st.sampled_from(kinds)), names, depth))


def _one(kind: str, names: Names, depth: int) -> st.SearchStrategy[Any]:  # noqa: PLR0911  a table
    if kind == "primitive":
        return st.sampled_from(PRIMITIVES)
    if kind == "logical":
        return st.sampled_from(LOGICAL)
    if kind == "named":
        return _named_leaf(names)
    if kind == "known":
        return _known(names)
    if kind == "record":
        return _record(names, depth)
    if kind == "array":
        return st.builds(lambda items: {"type": "array", "items": items}, _bytes_taking(names, depth + 1))
    if kind == "map":
        return st.builds(lambda values: {"type": "map", "values": values}, _type(names, depth + 1))
    return _union(names, depth)


def _bytes_taking(names: Names, depth: int) -> st.SearchStrategy[Any]:
    return _type(names, depth).map(lambda raw: "string" if raw == "null" else raw)


@st.composite
def _record_with(draw: st.DrawFn, names: Names, depth: int, own: str) -> Any:
    """A record that others are told apart from by a required field of its own."""
    raw = draw(_record(names, depth))
    at = draw(st.integers(0, len(raw["fields"])))
    raw["fields"].insert(at, {"name": own, "type": draw(st.sampled_from(["int", "string", "bytes"]))})
    return raw


@st.composite
def _known(draw: st.DrawFn, names: Names) -> Any:
    """A name that is defined, or (within a way out) one that is still being defined: recursion."""
    recursive: bool = draw(st.booleans())
    if names.open and recursive:
        return ["null", draw(st.sampled_from(names.open))]
    return draw(st.sampled_from(names.known)) if names.known else "string"


@st.composite
def _union(draw: st.DrawFn, names: Names, depth: int) -> Any:
    """Branches in an order that leaves no choice open; in any order when the schema may be doubtful."""
    branches: list[Any] = [name for name in ("null", "boolean", "int", "long") if draw(st.booleans())]
    branches += [name for name in ("float", "double") if draw(st.booleans())]
    if draw(st.booleans()):
        branches.append(draw(_named_leaf(names)))
    branches += [name for name in ("bytes", "string") if draw(st.booleans())]
    if depth < 4 and draw(st.integers(0, 2)) == 0:
        branches += [draw(_record_with(names, depth + 1, own)) for own in ("own", "mine")]
    elif depth < 4 and draw(st.booleans()):
        branches.append(draw(st.one_of(_record(names, depth + 1), _one("map", names, depth + 1))))
    if depth < 4 and draw(st.booleans()):
        branches.append(draw(_one("array", names, depth + 1)))
    if names.doubtful:
        branches = draw(st.permutations(branches))
    return branches or ["null", draw(st.sampled_from(LOGICAL))]


@st.composite
def schemas(draw: st.DrawFn, *, doubtful: bool = False) -> tuple[Any, AvroSchema]:
    """A record schema in JSON form and parsed; free of doubts unless they are asked for."""
    raw = draw(_record(Names(doubtful=doubtful), 0))
    parsed, problems = try_schema(raw)
    if parsed is None:
        assert doubtful, problems  # in another order, a name may be used before it is defined
        reject()
    assume(doubtful or not parsed.doubts)
    return raw, parsed


def values(node: Node, depth: int = 0) -> st.SearchStrategy[Any]:
    """Valid values of a node, fields with defaults sometimes left out."""
    if isinstance(node, Leaf):
        return leaf_values(node)
    if isinstance(node, Array):
        return st.lists(st.deferred(lambda: values(node.items, depth + 1)), max_size=0 if depth > 6 else 3)
    if isinstance(node, Map):
        inner = st.deferred(lambda: values(node.values, depth + 1))
        return st.dictionaries(st.text(max_size=5), inner, max_size=0 if depth > 6 else 3)
    if isinstance(node, Union):
        branches = node.branches[:1] if depth > 6 else node.branches
        return st.sampled_from(branches).flatmap(lambda branch: values(branch, depth))
    return _record_values(node, depth)


def _record_values(node: Record, depth: int) -> st.SearchStrategy[Any]:
    def inner(field_type: Node) -> st.SearchStrategy[Any]:
        return st.deferred(lambda: values(field_type, depth + 1))

    required = {item.name: inner(item.type) for item in node.fields if not item.has_default}
    optional = {item.name: inner(item.type) for item in node.fields if item.has_default}
    return st.fixed_dictionaries(required, optional=optional)


def leaf_values(leaf: Leaf) -> st.SearchStrategy[Any]:
    """Valid values of a leaf, its limits among them."""
    if leaf.row in {"int", "long"}:
        bits = 31 if leaf.row == "int" else 63
        edges = [sign * 2**n + step for n in (6, 13, 27, 30) for sign in (1, -1) for step in (-1, 0, 1)]
        return st.integers(-(2**bits), 2**bits - 1) | st.sampled_from([-(2**bits), 2**bits - 1, *edges])
    if leaf.row == "decimal":
        top = 10**leaf.precision - 1
        return st.integers(-top, top).map(lambda number: _scaled(number, leaf.scale))
    if leaf.row.startswith("time-"):
        return st.times().map(lambda value: _cut(leaf, value))
    if leaf.row.startswith("timestamp"):
        offsets = st.integers(-1439, 1439).map(lambda minutes: dt.timezone(dt.timedelta(minutes=minutes)))
        inside = st.datetimes(dt.datetime(1, 1, 3), dt.datetime(9999, 12, 29), timezones=offsets)  # noqa: DTZ001
        return inside.map(lambda value: _cut(leaf, value))
    if leaf.row.startswith("local-"):
        return st.datetimes().map(lambda value: _cut(leaf, value))
    return {
        "null": st.none(),
        "boolean": st.booleans(),
        "float": st.floats(width=32, allow_nan=False, allow_infinity=False),
        "double": st.floats(allow_nan=False, allow_infinity=False),
        "bytes": st.binary(max_size=20) | st.sampled_from([b"x" * 8191, b"y" * 8192]),
        "string": st.text(max_size=20) | st.sampled_from(["x" * 63, "x" * 64, "\u00e9" * 4096]),
        "fixed": st.binary(min_size=leaf.size, max_size=leaf.size),
        "enum": st.sampled_from(leaf.symbols or ("",)),
        "uuid": st.uuids(),
        "date": st.dates(),
    }[leaf.row]


def _scaled(number: int, scale: int) -> Decimal:
    sign, digits, _ = Decimal(number).as_tuple()
    return Decimal((sign, digits, -scale))


def _cut(leaf: Leaf, value: Any) -> Any:
    return value.replace(microsecond=value.microsecond // 1000 * 1000) if leaf.row.endswith("millis") else value


def filled(node: Node, value: Any) -> Any:
    """The value with every default written out, which is what fastavro has to be given."""
    if isinstance(node, Record):
        return {
            item.name: filled(item.type, value[item.name]) if item.name in value else item.default
            for item in node.fields
        }
    if isinstance(node, Array):
        return [filled(node.items, item) for item in value]
    if isinstance(node, Map):
        return {key: filled(node.values, item) for key, item in value.items()}
    if isinstance(node, Union):
        from postroom.schemas.avro_unions import choose_branch

        at = choose_branch(node, value)
        assert at is not None
        return filled(node.branches[at], value)
    return value


class HostileError(Exception):
    """Raised by the hostile objects below."""


class Hostile:
    """Raises from everything that Python may ask of an object."""

    def __eq__(self, other: object) -> bool:
        raise HostileError

    def __hash__(self) -> int:
        raise HostileError

    def __repr__(self, *_: object) -> str:
        raise HostileError

    __str__ = __len__ = __iter__ = __bool__ = __getattr__ = __repr__


class HostileKey(str):
    """A key whose comparison raises, with the hash of a real field name."""

    __slots__ = ()

    def __eq__(self, other: object) -> bool:
        raise HostileError

    def __hash__(self) -> int:
        return str.__hash__(self)


class IntLike(enum.IntEnum):
    """An int that is none."""

    ONE = 1


class TextLike(str):
    """A str that is none."""

    __slots__ = ()


class DictLike(dict[str, Any]):
    """A dict that is none."""


class ListLike(list[Any]):
    """A list that is none."""


class BrokenZone(dt.tzinfo):
    """A time zone that fails."""

    def utcoffset(self, _when: dt.datetime | None) -> dt.timedelta:
        raise HostileError

    dst = utcoffset

    def tzname(self, _when: dt.datetime | None) -> str:
        raise HostileError


JUNK: tuple[Any, ...] = (
    None,
    True,
    False,
    0,
    1,
    -1,
    5,
    2**31,
    -(2**31) - 1,
    2**40,
    2**63,
    -(2**63) - 1,
    10**400,
    IntLike.ONE,
    0.0,
    1.0,
    -0.0,
    1e39,
    1e308,
    math.nan,
    math.inf,
    -math.inf,
    1j,
    "",
    "a",
    "T1_0",
    "x" * 9000,
    "\ud800",
    "a\udfffb",
    TextLike("a"),
    b"",
    b"a",
    b"\xff" * 6,
    bytearray(b"a"),
    memoryview(b"a"),
    (),
    (1,),
    ("string", "a"),
    [],
    [None],
    [[]],
    ListLike(),
    {},
    {"a": 1},
    {1: 1},
    {None: None},
    {"\ud800": 1},
    DictLike(),
    {HostileKey("a"): 1},
    {Hostile: Hostile()},
    set(),
    frozenset(),
    range(3),
    Hostile(),
    Hostile,
    object(),
    len,
    Ellipsis,
    Decimal("1.5"),
    Decimal("NaN"),
    Decimal("Infinity"),
    Decimal("1E+1000000"),
    Decimal("1E-1000000"),
    Decimal("0E+999999"),
    Decimal("-0"),
    Decimal("123456789012345678901234567890.5"),
    uuid.UUID(int=5),
    uuid.UUID.__new__(uuid.UUID),
    dt.date(2024, 2, 29),
    dt.time(1, 2, 3, 4),
    dt.time(1, 2, 3, tzinfo=dt.UTC),
    dt.timedelta(1),
    LOCAL_EPOCH.replace(year=2024),
    LOCAL_EPOCH.replace(microsecond=1),
    EPOCH,
    LOCAL_EPOCH,
    EPOCH + dt.timedelta(microseconds=1),
    dt.datetime(2024, 1, 1, tzinfo=BrokenZone()),
    dt.datetime.min.replace(tzinfo=dt.timezone(dt.timedelta(hours=14))),
    dt.datetime.max.replace(tzinfo=dt.timezone(dt.timedelta(hours=-14))),
)


EXTRA_KEYS = ("zz", "a", 5, None, TextLike("a"), HostileKey("b"), HostileKey("zz"), "x y", "\ud800")


def _junk() -> st.SearchStrategy[Any]:
    return st.integers(0, len(JUNK) - 1).map(JUNK.__getitem__)


@st.composite
def spoiled(draw: st.DrawFn, event: Any) -> Any:
    """The event with one thing changed: a value replaced, a field gone, a field too many, or a key of another type."""
    event = copy.deepcopy(event)
    places = list(_places(event))
    if not places or draw(st.integers(0, 9)) == 0:
        return draw(_junk())
    holder, key = draw(st.sampled_from(places))
    act = draw(st.sampled_from(["replace", "replace", "remove", "add"]))
    if act == "replace":
        holder[key] = draw(_junk())
    elif act == "remove":
        del holder[key]
    elif isinstance(holder, dict):
        key = EXTRA_KEYS[draw(st.integers(0, len(EXTRA_KEYS) - 1))]
        with contextlib.suppress(HostileError):  # beside its namesake it cannot even be put in
            holder[key] = draw(_junk())
    else:
        holder.append(draw(_junk()))
    return event


def _places(value: Any) -> Any:
    if isinstance(value, dict):
        for key, item in value.items():
            yield value, key
            yield from _places(item)
    elif isinstance(value, list):
        for at, item in enumerate(value):
            yield value, at
            yield from _places(item)
