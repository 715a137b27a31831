"""Where a rule of type CEL_FIELD applies: the fields it chooses, their values in an event, all of it as one condition.

The walk is Confluent's (`confluent_kafka.schema_registry.common.avro.transform`): through arrays, maps and unions down
to values of primitive types. Enums and fixed are none there; a record's own fields have tags of their own.
"""

from __future__ import annotations

import functools
import json
import re
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Final

from postroom.schemas.avro_graph import walk
from postroom.schemas.avro_nodes import Array, Field, Leaf, Map, Node, Record, Union
from postroom.schemas.avro_schema import PRIMITIVES
from postroom.schemas.avro_unions import choose_branch
from postroom.schemas.rule_types import only_branch
from postroom.schemas.rule_view import view_of

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    from postroom.schemas.contract_metadata import FieldTags
    from postroom.schemas.rule_set import Rule

_CEL_TYPES: Final = {"null": "null_type", "boolean": "bool", "bytes": "bytes", "string": "string", "enum": "string"}
_CEL_TYPES_BY_ROW: Final = {"decimal": "double", "uuid": "string", "fixed": "bytes"}

_MOST_NODES: Final = 10_000
"""One expression is written path by path, and records in several places make far more paths than types."""


class NotOneExpressionError(Exception):
    """The condition on the chosen fields cannot be written as one expression: they must be walked."""


@dataclass(frozen=True, slots=True)
class Place:
    """A field that a rule chooses, in its record, with all its tags."""

    record: Record
    field: Field
    tags: tuple[str, ...]

    def constants(self, leaf: Leaf) -> dict[str, Any]:
        """What a rule sees of the field when its value is of type `leaf`, without the value."""
        name = self.field.name
        full_name = f"{self.record.name}.{name}"
        return {"fullName": full_name, "name": name, "typeName": leaf.base.upper(), "tags": list(self.tags)}


@dataclass(frozen=True, slots=True)
class Case:
    """A type that the values of a place may have.

    It is the only one where it is `alone`; else null may be there beside `nullable`, or, where that is None, anything.
    """

    leaf: Leaf
    alone: bool = True
    nullable: Leaf | None = None


class Chosen:
    """The fields of one schema that one rule chooses: those with any of its tags, all if it has none."""

    def __init__(self, rule: Rule, root: Node, tags: FieldTags) -> None:
        self._root = root
        self._view = functools.cache(view_of)
        self._sees_message = _mentions(rule.expr, "message")
        self._places: dict[tuple[str, str], Place] = {}
        for record in (node for node in walk(root) if isinstance(node, Record)):
            for field in record.fields:
                own = tags.get((record.name, field.name), frozenset())
                if not rule.tags or own.intersection(rule.tags):
                    self._places[record.name, field.name] = Place(record, field, tuple(sorted(own)))

    def places(self) -> Iterator[tuple[Place, list[Case]]]:
        """Each chosen field that can have a value that a rule sees, with the types of these values."""
        for place in self._places.values():
            cases = list(_cases(place.field.type))
            if cases:
                yield place, cases

    # -- one expression

    def expression(self, guard: str, condition: str, is_met: Callable[[Place, Leaf], bool | None]) -> str:
        """One expression over `message` that is true when all chosen values meet the condition.

        `is_met` says whether the guard is met whatever the value is, None when that depends on it. Raises
        NotOneExpressionError.
        """

        def leaf(place: Place, leaf: Leaf, ref: str) -> str:
            met = is_met(place, leaf) if guard else True
            if met is False:
                return ""
            text = f"(\n{condition}\n)" if met else f"((\n{guard}\n) ? (\n{condition}\n) : true)"
            if _mentions(text, "message") and place.record is not self._root:
                raise NotOneExpressionError
            for name, value in {"value": ref, **place.constants(leaf)}.items():
                if _mentions(text, name):
                    bound = value if name == "value" else json.dumps(value, ensure_ascii=False)
                    text = f"cel.bind({name}, {bound}, {text})"
            return text

        return _Writer(self._places, leaf).node(self._root, "message", None, ()) or "true"

    # -- one value after the other

    def values(self, event: object) -> Iterator[tuple[str, dict[str, Any]]]:
        """The path of each chosen value of a valid event, and the variables that the rule sees for it."""
        return self._values(self._root, event, "", None, None)

    def _values(
        self, node: Node, value: Any, path: str, place: Place | None, holder: Any
    ) -> Iterator[tuple[str, dict[str, Any]]]:
        if isinstance(node, Union):
            at = choose_branch(node, value)
            if at is not None:
                yield from self._values(node.branches[at], value, path, place, holder)
        elif isinstance(node, Record):
            for field in node.fields:
                inner = value.get(field.name, field.default)
                chosen = self._places.get((node.name, field.name))
                yield from self._values(
                    field.type, inner, f"{path}.{field.name}" if path else field.name, chosen, (node, value)
                )
        elif isinstance(node, (Array, Map)):
            part, items = (node.items, value) if isinstance(node, Array) else (node.values, value.values())
            for at, item in enumerate(items):  # entries of a map by number: their keys are data
                yield from self._values(part, item, f"{path}[{at}]", place, holder)
        elif place is not None and node.base in PRIMITIVES:
            seen = {"value": self._view(node)(value), **place.constants(node)}
            if self._sees_message:
                record, whole = holder
                seen["message"] = self._view(record)(whole)
            yield path, seen


def _cases(node: Node) -> Iterator[Case]:
    if isinstance(node, Leaf):
        if node.base in PRIMITIVES:
            yield Case(node)
    elif isinstance(node, (Array, Map)):
        yield from _cases(node.items if isinstance(node, Array) else node.values)
    elif isinstance(node, Union):
        only, _ = only_branch(node)
        for branch in node.branches:
            for case in _cases(branch):
                if isinstance(branch, Leaf) and len(node.branches) > 1:
                    yield Case(branch, alone=False, nullable=only if isinstance(only, Leaf) else None)
                else:
                    yield case


class _Writer:
    """Writes the condition on the chosen fields below a node; "" where there are none."""

    def __init__(self, places: dict[tuple[str, str], Place], leaf: Callable[[Place, Leaf, str], str]) -> None:
        self._places = places
        self._leaf = leaf
        self._nodes = 0

    def node(self, node: Node, ref: str, place: Place | None, inside: tuple[Node, ...]) -> str:
        self._nodes += 1
        if self._nodes > _MOST_NODES:
            raise NotOneExpressionError
        if isinstance(node, Leaf):
            return self._leaf(place, node, ref) if place is not None and node.base in PRIMITIVES else ""
        if node in inside:
            raise NotOneExpressionError  # it holds itself
        inside = (*inside, node)
        if isinstance(node, Record):
            parts = [
                self.node(field.type, f"{ref}.`{field.name}`", self._places.get((node.name, field.name)), inside)
                for field in node.fields
            ]
            return " && ".join(part for part in parts if part)
        if isinstance(node, Union):
            return self._union(node, ref, place, inside)
        item = f"_item{len(inside)}"
        inner = (
            self.node(node.items, item, place, inside)
            if isinstance(node, Array)
            else self.node(node.values, f"{ref}[{item}]", place, inside)
        )
        return f"{ref}.all({item}, {inner})" if inner else ""

    def _union(self, union: Union, ref: str, place: Place | None, inside: tuple[Node, ...]) -> str:
        kinds = [_cel_type(branch) for branch in union.branches]
        parts = [self.node(branch, ref, place, inside) for branch in union.branches]
        if not any(parts):
            return ""
        if len(set(kinds)) < len(kinds):
            raise NotOneExpressionError  # CEL cannot tell the branches apart
        text = "true"
        for kind, part in zip(kinds, parts, strict=True):
            if part:
                text = f"(type({ref}) == {kind} ? {part} : {text})"
        return text


def _cel_type(branch: Node) -> str:
    if isinstance(branch, Array):
        return "list"
    if not isinstance(branch, Leaf):
        return "map"
    if branch.row.startswith(("timestamp", "local-timestamp")):
        return "google.protobuf.Timestamp"
    number = "double" if branch.base in {"float", "double"} else "int"
    return _CEL_TYPES_BY_ROW.get(branch.row) or _CEL_TYPES.get(branch.base, number)


def _mentions(text: str, name: str) -> bool:
    return re.search(rf"\b{name}\b", text) is not None
