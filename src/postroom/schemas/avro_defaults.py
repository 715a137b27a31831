"""Defaults of record fields: from their JSON form in the schema to the Python values that are written.

Avro writes defaults in its own JSON form: bytes and fixed as text of one character per byte, logical types as their
base type, a union as its first branch (Avro 1.12, "Schema Record", attribute `default`).
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

from postroom.schemas.avro_leaves import LeafError, from_raw, kind_of
from postroom.schemas.avro_nodes import Array, Field, Leaf, Map, Node, Record, Union
from postroom.schemas.event_checker import find_violations

if TYPE_CHECKING:
    from collections.abc import Iterable


@dataclass(frozen=True, slots=True)
class DefaultError:
    """A default that is no value of its field, and why."""

    field: Field
    text: str


class _NotADefaultError(Exception):
    """Carries the reason up to the field."""


def fill_defaults(pending: Iterable[tuple[Field, object]]) -> list[DefaultError]:
    """Set the default of each field from its JSON form, and check it; gives those that are wrong."""
    return _Filler(pending).fill()


class _Filler:
    """Fields wait for the defaults of the records inside their own; one that waits for itself never ends."""

    def __init__(self, pending: Iterable[tuple[Field, object]]) -> None:
        self._raw = {id(field): (field, raw) for field, raw in pending}
        self._done: set[int] = set()
        self._under_way: set[int] = set()

    def fill(self) -> list[DefaultError]:
        errors = []
        for field, _ in self._raw.values():
            try:
                self._settle(field)
            except _NotADefaultError as error:
                self._under_way.clear()
                errors.append(DefaultError(field, str(error)))
        if errors:
            return errors
        for field, _ in self._raw.values():
            wrong = find_violations(field.type, field.default)
            if wrong:
                errors.append(DefaultError(field, f"{wrong[0].rule}, found {wrong[0].found}"))
        return errors

    def _settle(self, field: Field) -> None:
        if id(field) in self._done:
            return
        if id(field) in self._under_way:
            raise _NotADefaultError("it holds itself")
        self._under_way.add(id(field))
        field.default = self._value(field.type, self._raw[id(field)][1])
        self._under_way.discard(id(field))
        self._done.add(id(field))

    def _value(self, node: Node, raw: object) -> object:
        if isinstance(node, Union):
            return self._first_branch(node.branches[0], raw)
        if isinstance(node, Leaf):
            return _leaf(node, raw)
        if isinstance(node, Array):
            if not isinstance(raw, list):
                raise _NotADefaultError(f"expected array, found {kind_of(raw)}")
            return [self._value(node.items, item) for item in raw]
        if not isinstance(raw, dict):
            raise _NotADefaultError(f"expected {node}, found {kind_of(raw)}")
        if isinstance(node, Map):
            return {key: self._value(node.values, item) for key, item in raw.items()}
        return self._record(node, raw)

    def _first_branch(self, branch: Node, raw: object) -> object:
        value = self._value(branch, raw)
        wrong = find_violations(branch, value)
        if wrong:
            raise _NotADefaultError(f"{wrong[0].rule} for the union's first branch, found {wrong[0].found}")
        return value

    def _record(self, node: Record, raw: dict[str, object]) -> dict[str, object]:
        value: dict[str, object] = {}
        for field in node.fields:
            if field.name in raw:
                value[field.name] = self._value(field.type, raw[field.name])
            elif field.has_default:
                self._settle(field)
                value[field.name] = field.default
            else:
                raise _NotADefaultError(f"field {field.name} of {node} is missing")
        if raw.keys() - node.names:
            raise _NotADefaultError(f"a field that {node} does not have")
        return value


def _leaf(leaf: Leaf, raw: object) -> object:
    """The Python value of a leaf's default. The right JSON kind is checked here, the range by the slow road."""
    if leaf.base in ("float", "double") and type(raw) is int:
        raw = _exact_float(raw)
    if leaf.base in ("bytes", "fixed") and type(raw) is str:
        try:
            raw = raw.encode("latin-1")
        except UnicodeEncodeError:
            raise _NotADefaultError("text with characters above U+00FF for bytes") from None
    if leaf.row == leaf.base:
        return raw
    expected = {"int": int, "long": int, "string": str}.get(leaf.base, bytes)
    if type(raw) is not expected:
        raise _NotADefaultError(f"expected the {leaf.base} behind {leaf.row}, found {kind_of(raw)}")
    if isinstance(raw, bytes) and leaf.base == "fixed" and len(raw) != leaf.size:
        raise _NotADefaultError(f"expected {leaf.size} bytes, found {len(raw)}")
    try:
        return from_raw(leaf, raw)
    except LeafError as error:
        raise _NotADefaultError(error.found) from None


def _exact_float(number: int) -> object:
    try:
        return float(number) if float(number) == number else number
    except OverflowError:
        return number
