"""What rules see of an event: the table of docs/design/0007-contract-rules.md in code."""

from __future__ import annotations

import datetime as dt
from typing import TYPE_CHECKING, Any, Final, TypeAlias

from postroom.schemas.avro_graph import walk
from postroom.schemas.avro_leaves import to_raw
from postroom.schemas.avro_nodes import Array, Leaf, Node, Record, Union, children
from postroom.schemas.avro_unions import choose_branch

if TYPE_CHECKING:
    from collections.abc import Callable

View: TypeAlias = "Callable[[Any], Any]"

_AS_THEY_ARE: Final = ("null", "boolean", "int", "long", "float", "double", "enum")
_CUT_AT_A_ZERO: Final = ("string", "bytes", "fixed")


def view_of(root: Node) -> View:
    """A function from a valid event to what CEL sees of it; the event is not changed.

    Where nothing has to be converted or filled in, the event itself is seen: CEL reads from the dict what it needs.
    """
    same = _unchanged(root)
    return _View(same).of(root) if root not in same else lambda event: event


def _unchanged(root: Node) -> set[Node]:
    """The nodes below which nothing is ever converted or filled in."""
    nodes = list(walk(root))
    changed = {node for node in nodes if _changes(node)}
    growing = True
    while growing:
        more = {node for node in nodes if node not in changed and any(part in changed for part in children(node))}
        changed |= more
        growing = bool(more)
    return set(nodes) - changed


def _changes(node: Node) -> bool:
    if isinstance(node, Leaf):
        return node.row not in _AS_THEY_ARE
    return isinstance(node, Record) and any(field.has_default for field in node.fields)


class _View:
    """Makes one function for each node that changes; a record's is made once, so that it may hold itself."""

    def __init__(self, same: set[Node]) -> None:
        self._same = same
        self._records: dict[str, View] = {}

    def of(self, node: Node) -> View:
        if isinstance(node, Leaf):
            return _leaf(node)
        if isinstance(node, Record):
            return self._record(node)
        if isinstance(node, Union):
            return self._union(node)
        inner = self.of(node.items if isinstance(node, Array) else node.values)
        if isinstance(node, Array):
            return lambda items: [inner(item) for item in items]
        return lambda entries: {key: inner(value) for key, value in entries.items()}

    def _union(self, union: Union) -> View:
        leaves = [branch.row if isinstance(branch, Leaf) else "" for branch in union.branches]
        if all(row in _AS_THEY_ARE or row in _CUT_AT_A_ZERO for row in leaves):
            return _whole  # whichever branch it is
        views = [None if branch in self._same else self.of(branch) for branch in union.branches]

        def view(value: Any) -> Any:
            at = choose_branch(union, value)
            branch = None if at is None else views[at]
            return value if branch is None else branch(value)

        return view

    def _record(self, record: Record) -> View:
        known = self._records.get(record.name)
        if known is not None:
            return known
        count = len(record.fields)
        defaults = {field.name: field.default for field in record.fields if field.has_default}
        converted: list[tuple[str, View]] = []

        def view(event: Any) -> Any:
            if len(event) < count:
                event = {**defaults, **event}
            elif converted:
                event = dict(event)
            for name, inner in converted:
                event[name] = inner(event[name])
            return event

        self._records[record.name] = view
        converted += [(field.name, self.of(field.type)) for field in record.fields if field.type not in self._same]
        return view


def _leaf(leaf: Leaf) -> View:
    if leaf.row in _CUT_AT_A_ZERO:
        return _whole
    if leaf.row == "decimal":
        return float
    if leaf.row == "uuid":
        return str
    if leaf.row.startswith(("timestamp", "local-timestamp")):
        return _timestamp
    return lambda value: to_raw(leaf, value)  # a date or a time of day: the number on the wire


def _whole(value: Any) -> Any:
    """Text and bytes with a zero in them as Protobuf's: of plain ones the library takes what stands before it."""
    if type(value) is str:
        return _wrapped(value) if "\0" in value else value
    return _wrapped(value) if type(value) is bytes and 0 in value else value


def _wrapped(value: str | bytes) -> object:
    from google.protobuf.wrappers_pb2 import BytesValue, StringValue

    return StringValue(value=value) if isinstance(value, str) else BytesValue(value=value)


def _timestamp(moment: dt.datetime) -> object:
    """A Protobuf timestamp: inside a dict CEL takes no datetime. It reads a local time as UTC."""
    from google.protobuf.timestamp_pb2 import Timestamp

    utc = moment.replace(tzinfo=dt.UTC) if moment.tzinfo is None else moment
    since = utc - _EPOCH
    return Timestamp(seconds=since.days * 86_400 + since.seconds, nanos=since.microseconds * 1000)


_EPOCH: Final = dt.datetime(1970, 1, 1, tzinfo=dt.UTC)
