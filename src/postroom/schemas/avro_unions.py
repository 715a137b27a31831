"""Which branch of a union a value takes, and which unions leave that open.

A branch is found by the exact Python type of the value; between branches of one Python type the order in the schema
decides (`int` before `long`: the range), a float takes `double` where there is one, and records are told apart by the
names of their fields. No branch is tried by encoding into it, so nested unions cost nothing extra.
"""

from __future__ import annotations

import datetime as dt
import itertools
import uuid
from decimal import Decimal
from typing import Final

from postroom.schemas.avro_nodes import INT_RANGES, Leaf, Map, Node, Record, Union, python_type

_ALSO_TAKEN: Final[dict[str, frozenset[type]]] = {
    "float": frozenset({int}),
    "double": frozenset({int}),
    "decimal": frozenset({bytes}),
    "uuid": frozenset({str, bytes}),
    "date": frozenset({int, str, dt.datetime}),
    "time-millis": frozenset({int}),
    "time-micros": frozenset({int}),
    "timestamp-millis": frozenset({int}),
    "timestamp-micros": frozenset({int}),
    "local-timestamp-millis": frozenset({int}),
    "local-timestamp-micros": frozenset({int}),
}
"""What other Avro libraries take for a branch although postroom does not: a union is refused where that decides."""

_ONE_OF_A_KIND: Final = (Decimal, uuid.UUID, dt.time, dt.datetime, dt.date)


def choose_branch(union: Union, value: object) -> int | None:
    """The index of the branch whose Python type the value has, or None. The value may still break that branch.

    Never raises. The value's own code runs only where its keys are compared with field names.
    """
    kind = type(value)
    fitting = [at for at, branch in enumerate(union.branches) if python_type(_plain(branch)) is kind]
    if len(fitting) < 2:
        return fitting[0] if fitting else None
    return next((at for at in fitting if _accepts(union, union.branches[at], value)), None)


def _plain(branch: Node) -> Leaf | Record | Map:
    assert not isinstance(branch, Union)  # a union directly inside a union is refused by the parser
    return branch  # type: ignore[return-value]  # arrays too: all that matters here is that it is no union


def _accepts(union: Union, branch: Node, value: object) -> bool:  # noqa: PLR0911  a table, one line a kind
    """Between branches of one Python type: whether this one takes the value."""
    if isinstance(branch, Record):
        return fits_names(branch, value)
    if not isinstance(branch, Leaf):
        return True
    if isinstance(value, int):
        low, high = INT_RANGES[branch.base]
        return low <= value <= high
    if isinstance(value, float):
        return branch.base == "double" or not any(
            isinstance(other, Leaf) and other.base == "double" for other in union.branches
        )
    if isinstance(value, str):
        return branch.row != "enum" or value in branch.symbols
    if isinstance(value, bytes):
        return branch.row != "fixed" or len(value) == branch.size
    return True


def fits_names(record: Record, value: object) -> bool:
    """True for a dict that has all required fields of the record and no field that is not the record's."""
    try:
        keys = value.keys()  # type: ignore[attr-defined]  # called for dicts only
        return bool(record.required <= keys <= record.names)
    except Exception:  # noqa: BLE001  a key's own __hash__ or __eq__ may raise anything
        return False


def ambiguities(union: Union) -> list[tuple[str, str]]:
    """Why values would not find their branch, or not the one of other Avro libraries: each a reason and a remedy."""
    pairs = itertools.combinations(union.branches, 2)
    return [clash for earlier, later in pairs if (clash := _clash(earlier, later)) is not None]


def _clash(earlier: Node, later: Node) -> tuple[str, str] | None:  # noqa: PLR0911  a table, one line a reason
    one, other = python_type(_plain(earlier)), python_type(_plain(later))
    if isinstance(earlier, Record) and isinstance(later, Record):
        if _told_apart(earlier, later):
            return None
        remedy = "give one of them a required field, not nullable, that the other does not have"
        return f"{earlier} and {later} can hold the same fields", remedy
    if one is other is dict:
        return "a map and a record are both a dict", "put one of them inside a record of its own"
    if one is other and one in _ONE_OF_A_KIND:
        return f"two branches hold {one.__name__} values", "keep one of them"
    if one is list and other is bytes:
        return "other libraries take bytes for an array", "put the array last"
    if isinstance(earlier, Leaf) and other in _ALSO_TAKEN.get(earlier.row, ()):
        remedy = f"put {earlier.row} after the branch of the {other.__name__} values"
        return f"other libraries take {other.__name__} values for {earlier.row}", remedy
    return None


def _told_apart(one: Record, other: Record) -> bool:
    """True when each dict fits at most one of the two, also for libraries that read an absent field as null."""
    return bool(_indispensable(one) - other.names or _indispensable(other) - one.names)


def _indispensable(record: Record) -> set[str]:
    return {item.name for item in record.fields if not item.has_default and not _takes_null(item.type)}


def _takes_null(node: Node) -> bool:
    if isinstance(node, Union):
        return any(_takes_null(branch) for branch in node.branches)
    return isinstance(node, Leaf) and node.row == "null"
