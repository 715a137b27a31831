"""The parts of a resolved Avro schema: leaves, arrays, maps, unions and records, with every name looked up.

A schema is a graph: a record that is used twice is one node, and a recursive record holds itself.
"""

from __future__ import annotations

import datetime as dt
import uuid
from dataclasses import dataclass, field
from decimal import Decimal
from typing import Final, TypeAlias

MAX_DEPTH: Final = 64
"""Records, arrays and maps inside each other, the event itself being the first. Deeper is refused everywhere."""

_SYMBOLS_SHOWN = 12

INT_RANGES: Final = {"int": (-(2**31), 2**31 - 1), "long": (-(2**63), 2**63 - 1)}

PYTHON_TYPES: Final[dict[str, type]] = {
    "null": type(None),
    "boolean": bool,
    "int": int,
    "long": int,
    "float": float,
    "double": float,
    "bytes": bytes,
    "string": str,
    "fixed": bytes,
    "enum": str,
    "decimal": Decimal,
    "uuid": uuid.UUID,
    "date": dt.date,
    "time-millis": dt.time,
    "time-micros": dt.time,
    "timestamp-millis": dt.datetime,
    "timestamp-micros": dt.datetime,
    "local-timestamp-millis": dt.datetime,
    "local-timestamp-micros": dt.datetime,
}
"""The one Python type of each row of docs/specs/lexical-forms.md; subclasses are refused."""

_EXPECTED: Final = {
    "decimal": "decimal",
    "uuid": "uuid (UUID; in JSON text)",
    "date": "date (in JSON yyyy-mm-dd)",
    "time-millis": "time-millis (time; in JSON hh:mm:ss.sss)",
    "time-micros": "time-micros (time; in JSON hh:mm:ss.ssssss)",
    "timestamp-millis": "timestamp-millis (datetime with a time zone; in JSON RFC 3339 text)",
    "timestamp-micros": "timestamp-micros (datetime with a time zone; in JSON RFC 3339 text)",
    "local-timestamp-millis": "local-timestamp-millis (datetime without a time zone)",
    "local-timestamp-micros": "local-timestamp-micros (datetime without a time zone)",
    "bytes": "bytes (in JSON base64 text)",
}


@dataclass(frozen=True, slots=True)
class Leaf:
    """A value without parts. `row` names its line in the lexical table, `base` the Avro type on the wire.

    `name` is the full name of a fixed or an enum. `size` is in bytes and belongs to a fixed base.
    """

    row: str
    base: str
    name: str = ""
    size: int = 0
    symbols: tuple[str, ...] = ()
    precision: int = 0
    scale: int = 0

    @property
    def python_type(self) -> type:
        """The only type a value may have."""
        return PYTHON_TYPES[self.row]

    def __str__(self) -> str:
        if self.row == "enum":
            shown = ", ".join(self.symbols[:_SYMBOLS_SHOWN])
            return f"one of {shown}{', ...' if len(self.symbols) > _SYMBOLS_SHOWN else ''}"
        if self.row == "fixed":
            return f"fixed of {self.size} bytes (in JSON base64 text)"
        if self.row == "decimal":
            return f"decimal of precision {self.precision} and scale {self.scale} (Decimal; in JSON text)"
        return _EXPECTED.get(self.row, self.row)


@dataclass(frozen=True, slots=True, eq=False)
class Array:
    """A list of items of one kind."""

    items: Node

    def __str__(self) -> str:
        return "array"


@dataclass(frozen=True, slots=True, eq=False)
class Map:
    """A dict from any text to values of one kind."""

    values: Node

    def __str__(self) -> str:
        return "map"


@dataclass(slots=True, eq=False)
class Field:
    """One field of a record. `default` is a Python value with its own defaults filled in.

    `tags` are those that the schema itself gives it (`confluent:tags`).
    """

    name: str
    type: Node
    has_default: bool = False
    default: object = None
    tags: tuple[str, ...] = ()


@dataclass(slots=True, eq=False)
class Record:
    """Named fields in order. Filled while the schema is parsed, unchanged afterwards."""

    name: str
    fields: list[Field] = field(default_factory=list)

    def __str__(self) -> str:
        return f"record {self.name}"

    @property
    def required(self) -> frozenset[str]:
        """Names of the fields that must be present."""
        return frozenset(item.name for item in self.fields if not item.has_default)

    @property
    def names(self) -> frozenset[str]:
        """Names of all fields."""
        return frozenset(item.name for item in self.fields)


@dataclass(frozen=True, slots=True, eq=False)
class Union:
    """One of several kinds, told apart by the Python type of the value (and a record by its field names)."""

    branches: tuple[Node, ...]

    def __str__(self) -> str:
        return " or ".join(str(branch) for branch in self.branches)


Node: TypeAlias = "Leaf | Array | Map | Union | Record"


def python_type(node: Leaf | Array | Map | Record) -> type:
    """The only Python type that a value of this node, which is no union, may have."""
    if isinstance(node, Leaf):
        return node.python_type
    return list if isinstance(node, Array) else dict


def children(node: Node) -> tuple[Node, ...]:
    """The nodes directly inside this one, in order."""
    if isinstance(node, Leaf):
        return ()
    if isinstance(node, Array):
        return (node.items,)
    if isinstance(node, Map):
        return (node.values,)
    if isinstance(node, Union):
        return node.branches
    return tuple(item.type for item in node.fields)
