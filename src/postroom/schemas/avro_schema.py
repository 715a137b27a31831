"""An Avro schema in JSON form, parsed into a resolved tree (Avro 1.12, "Schema Declaration").

Two kinds of complaint: a *problem* means that this is no Avro schema; a *doubt* means that it is one, but that events
could not be written by it without surprise (an ambiguous union, a logicalType that Avro ignores). Reading what others
have written needs no doubts resolved; a contract does.
"""

from __future__ import annotations

import json
import re
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Final, TypeAlias

from postroom.libs.exceptions import InvalidContractError
from postroom.schemas.avro_defaults import DefaultError, fill_defaults
from postroom.schemas.avro_graph import is_recursive, never_ends, static_depth, takes_no_bytes, walk
from postroom.schemas.avro_logical import LOGICAL_TYPES, logical_leaf
from postroom.schemas.avro_nodes import MAX_DEPTH, Array, Field, Leaf, Map, Node, Record, Union
from postroom.schemas.avro_unions import ambiguities

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

Path: TypeAlias = "tuple[str | int, ...]"

PRIMITIVES: Final = ("null", "boolean", "int", "long", "float", "double", "bytes", "string")
_COMPLEX: Final = ("record", "enum", "array", "map", "fixed")
_NAME: Final = re.compile(r"[A-Za-z_][A-Za-z0-9_]*")
_ATTRIBUTE: Final = re.compile(r"[A-Za-z_$@][A-Za-z0-9_.:$@-]*")
_MAX_NESTING: Final = 4 * MAX_DEPTH
_NO_NODE: Final = Leaf("null", "null")


@dataclass(frozen=True, slots=True)
class Problem:
    """What is wrong with a schema, where (keys and indexes from its outermost level), and what to do."""

    path: Path
    text: str
    remedy: str

    def __str__(self) -> str:
        return f"{dotted(self.path) or 'schema'}: {self.text} ({self.remedy})"


@dataclass(frozen=True, slots=True, eq=False)
class AvroSchema:
    """A parsed schema. `doubts` holds what keeps it from being a good contract."""

    root: Node
    recursive: bool
    doubts: tuple[Problem, ...]


def dotted(path: Path) -> str:
    """A path as people write it: `fields[2].type`."""
    text = ""
    for step in path:
        text += f"[{step}]" if isinstance(step, int) else f".{step}" if text else step
    return text


def parse_schema(raw: Mapping[str, Any] | Sequence[Any] | str) -> AvroSchema:
    """The resolved tree of a schema; InvalidContractError with all its problems when it is none.

    `raw` is the JSON form as Python values. It is not changed, and nothing of it is kept but names and numbers.
    """
    schema, problems = try_schema(raw)
    if schema is None:
        raise InvalidContractError(
            "not an Avro schema: " + "; ".join(str(problem) for problem in problems),
            remedy="see https://avro.apache.org/docs/1.12.0/specification/",
        )
    return schema


def try_schema(raw: object) -> tuple[AvroSchema | None, tuple[Problem, ...]]:
    """The resolved tree, or None and every problem and doubt that could be found at once."""
    parser = _Parser()
    root = parser.node(raw, "", (), 0)
    if not parser.problems:
        parser.settle(root)
    if parser.problems:
        return None, (*parser.problems, *parser.doubts)
    return AvroSchema(root, is_recursive(root), tuple(parser.doubts)), ()


def canonical_json(raw: object) -> str:
    """The schema as one line of JSON for a registry: the same text for the same schema, with docs and defaults.

    Attributes come in a fixed order; the order of fields, symbols and branches is the author's, since it has meaning.
    """
    return json.dumps(_in_order(raw), ensure_ascii=False, separators=(",", ":"), allow_nan=False)


_ATTRIBUTES: Final = ("type", "name", "namespace", "doc", "aliases", "logicalType", "precision", "scale", "size")


def _in_order(raw: object) -> object:
    if isinstance(raw, list):
        return [_in_order(item) for item in raw]
    if not isinstance(raw, dict) or "type" not in raw:
        return raw
    known = [key for key in _ATTRIBUTES if key in raw]
    others = sorted(key for key in raw if key not in _ATTRIBUTES)
    return {key: raw[key] if key == "default" else _in_order(raw[key]) for key in (*known, *others)}


class _Parser:
    """One pass that resolves names and collects complaints, then one over the finished tree."""

    def __init__(self) -> None:
        self.problems: list[Problem] = []
        self.doubts: list[Problem] = []
        self._named: dict[str, Node] = {}
        self._pending: list[tuple[Field, object, Path]] = []
        self._paths: dict[int, Path] = {}

    def wrong(self, path: Path, text: str, remedy: str) -> None:
        self.problems.append(Problem(path, text, remedy))

    def node(self, raw: object, namespace: str, path: Path, nesting: int) -> Node:
        if nesting > _MAX_NESTING:
            self.wrong(path[:3], "nested too deeply", f"keep within {MAX_DEPTH} levels")
        elif isinstance(raw, str):
            return self._reference(raw, namespace, path)
        elif isinstance(raw, list):
            return self._union(raw, namespace, path, nesting)
        elif isinstance(raw, dict):
            return self._object(raw, namespace, path, nesting)
        else:
            self.wrong(path, "is no schema", "write the name of a type, an object with a type, or a list of them")
        return _NO_NODE

    def _reference(self, name: str, namespace: str, path: Path) -> Node:
        if name in PRIMITIVES:
            return Leaf(name, name)
        full = name if "." in name or not namespace else f"{namespace}.{name}"
        known = self._named.get(full)
        if known is None:
            shown = full if _is_full_name(full) else "this"
            if name in _COMPLEX:
                self.wrong(path, f"{name} needs more than its name", f"write an object: type: {name}, ...")
            else:
                self.wrong(path, f"{shown} is no type", f"use one of {', '.join(PRIMITIVES)}, or define it before")
            return _NO_NODE
        return known

    def _union(self, raw: list[Any], namespace: str, path: Path, nesting: int) -> Node:
        branches = [self.node(item, namespace, (*path, at), nesting + 1) for at, item in enumerate(raw)]
        if not branches:
            self.wrong(path, "is a union of nothing", "name at least one type")
        seen: set[str] = set()
        for at, branch in enumerate(branches):
            if isinstance(branch, Union):
                self.wrong((*path, at), "is a union inside a union", "write all branches into the outer one")
                return _NO_NODE
            name = branch_name(branch)
            if name in seen and branch is not _NO_NODE:
                self.wrong((*path, at), f"has {name} a second time", "keep each type once in a union")
            seen.add(name)
        union = Union(tuple(branches))
        self._paths[id(union)] = path
        return union

    def _check_attributes(self, raw: dict[Any, Any], path: Path) -> None:
        """Half a sentence as a key is what YAML makes of a text with a comma and without quotes."""
        if not all(isinstance(key, str) and _ATTRIBUTE.fullmatch(key) for key in raw):
            self.doubts.append(Problem(path, "has a key that is no name", "put texts with commas into quotes"))

    def _object(self, raw: dict[str, Any], namespace: str, path: Path, nesting: int) -> Node:
        self._check_attributes(raw, path)
        kind = raw.get("type")
        if kind == "record":
            return self._record(raw, namespace, path, nesting)
        if kind == "array":
            return self._array(raw, namespace, path, nesting)
        if kind == "map":
            return self._map(raw, namespace, path, nesting)
        if kind in ("enum", "fixed"):
            return self._named_leaf(raw, namespace, path)
        if isinstance(kind, str):
            base = self._reference(kind, namespace, (*path, "type"))
            return self._with_logical(base, raw, path) if kind in PRIMITIVES else base
        self.wrong(path, "has no type, or one that is not a name", "add type: and the name of a type")
        return _NO_NODE

    def _array(self, raw: dict[str, Any], namespace: str, path: Path, nesting: int) -> Node:
        if "items" not in raw:
            self.wrong(path, "array has no items", "add items: and the type of the items")
            return _NO_NODE
        array = Array(self.node(raw["items"], namespace, (*path, "items"), nesting + 1))
        self._paths[id(array)] = path
        return array

    def _map(self, raw: dict[str, Any], namespace: str, path: Path, nesting: int) -> Node:
        if "values" not in raw:
            self.wrong(path, "map has no values", "add values: and the type of the values")
            return _NO_NODE
        return Map(self.node(raw["values"], namespace, (*path, "values"), nesting + 1))

    def _with_logical(self, base: Node, raw: dict[str, Any], path: Path) -> Node:
        name = raw.get("logicalType")
        if not isinstance(base, Leaf) or not isinstance(name, str) or name not in LOGICAL_TYPES:
            return base  # an unknown logical type is ignored, as Avro asks
        leaf, text, remedy = logical_leaf(base, name, raw)
        if text:
            self.wrong(path, text, remedy)
        return leaf

    def _full_name(self, raw: dict[str, Any], namespace: str, path: Path) -> str:
        """The full name of a named type, "" when it has none that is right; it is complained about here."""
        name, own = raw.get("name"), raw.get("namespace", namespace)
        remedy = "use letters, digits and underscores, no digit first; dots only between the parts of a namespace"
        if not isinstance(name, str) or not _is_full_name(name):
            self.wrong((*path, "name"), "is missing or no Avro name", remedy)
            return ""
        if not isinstance(own, str) or (own and not _is_full_name(own)):
            self.wrong((*path, "namespace"), "is no Avro namespace", remedy)
            return ""
        full = name if "." in name or not own else f"{own}.{name}"
        if full in self._named or name in (*PRIMITIVES, *_COMPLEX):
            self.wrong((*path, "name"), f"defines {full}, which exists already", "choose another name")
            return ""
        self._check_aliases(raw, path)
        return full

    def _check_aliases(self, raw: dict[str, Any], path: Path) -> None:
        aliases = raw.get("aliases", [])
        if not isinstance(aliases, list) or not all(isinstance(name, str) and _is_full_name(name) for name in aliases):
            self.wrong((*path, "aliases"), "is not a list of Avro names", "write a list of names")

    def _named_leaf(self, raw: dict[str, Any], namespace: str, path: Path) -> Node:
        full = self._full_name(raw, namespace, path)
        leaf: Node = self._fixed(raw, full, path) if raw["type"] == "fixed" else self._enum(raw, full, path)
        if full:
            self._named[full] = leaf
        return leaf

    def _fixed(self, raw: dict[str, Any], full: str, path: Path) -> Node:
        size = raw.get("size")
        if type(size) is not int or not 0 <= size < 2**31:
            self.wrong((*path, "size"), "is missing or no length", "write the number of bytes")
            size = 0
        return self._with_logical(Leaf("fixed", "fixed", full, size), raw, path)

    def _enum(self, raw: dict[str, Any], full: str, path: Path) -> Node:
        symbols = raw.get("symbols")
        if not isinstance(symbols, list) or not symbols or not all(_is_name(symbol) for symbol in symbols):
            remedy = "write a list of names: letters, digits and underscores, no digit first"
            self.wrong((*path, "symbols"), "is missing or not a list of Avro names", remedy)
            return Leaf("enum", "enum", full)
        if len(set(symbols)) != len(symbols):
            self.wrong((*path, "symbols"), "has a symbol twice", "keep each symbol once")
        if "default" in raw and raw["default"] not in symbols:
            self.wrong((*path, "default"), "is none of the symbols", "name one of the symbols")
        return Leaf("enum", "enum", full, symbols=tuple(symbols))

    def _record(self, raw: dict[str, Any], namespace: str, path: Path, nesting: int) -> Node:
        full = self._full_name(raw, namespace, path)
        record = Record(full)
        if full:
            self._named[full] = record
        fields = raw.get("fields")
        if not isinstance(fields, list):
            self.wrong((*path, "fields"), "is missing or not a list", "write a list of fields, each with name and type")
            return record
        own = full.rpartition(".")[0]
        for at, item in enumerate(fields):
            self._field(record, item, own, (*path, "fields", at), nesting)
        return record

    def _field(self, record: Record, raw: object, namespace: str, path: Path, nesting: int) -> None:
        if not isinstance(raw, dict) or not _is_name(raw.get("name")):
            remedy = "write name: and type:, the name of letters, digits and underscores, no digit first"
            self.wrong(path, "is no field with an Avro name", remedy)
            return
        name = raw["name"]
        if name in record.names:
            self.wrong((*path, "name"), f"defines the field {name} a second time", "choose another name")
        if "type" not in raw:
            self.wrong(path, f"field {name} has no type", "add type:")
            return
        self._check_aliases(raw, path)
        self._check_attributes(raw, path)
        if raw.get("logicalType") is not None:
            remedy = "move it into the type: {type: long, logicalType: timestamp-millis}"
            self.doubts.append(Problem(path, f"Avro ignores a logicalType beside the type of field {name}", remedy))
        field = Field(name, self.node(raw["type"], namespace, (*path, "type"), nesting + 1))
        field.tags = self._tags(raw, path)
        record.fields.append(field)
        if "default" in raw:
            field.has_default = True
            self._pending.append((field, raw["default"], (*path, "default")))

    def _tags(self, raw: dict[str, Any], path: Path) -> tuple[str, ...]:
        tags = raw.get("confluent:tags", [])
        if isinstance(tags, list) and all(isinstance(tag, str) for tag in tags):
            return tuple(tags)
        self.doubts.append(Problem((*path, "confluent:tags"), "is no list of texts", "write a list such as [PII]"))
        return ()

    def settle(self, root: Node) -> None:
        """What can only be seen once all names are known: defaults, ends, depth, ambiguities."""
        for record in never_ends(root):
            text = f"{record} holds itself without a way out: no event could ever be written"
            self.wrong((), text, "make the inner one nullable, or put it into an array")
        if not is_recursive(root) and static_depth(root) > MAX_DEPTH:
            self.wrong((), f"has more than {MAX_DEPTH} levels", "flatten it")
        if self.problems:
            return
        by_field = {id(field): path for field, _, path in self._pending}
        for error in fill_defaults([(field, raw) for field, raw, _ in self._pending]):
            self.wrong(by_field[id(error.field)], *_default_text(error))
        for node in walk(root):
            path = self._paths.get(id(node), ())
            if isinstance(node, Union):
                self.doubts += [
                    Problem(path, f"leaves a choice open: {text}", remedy) for text, remedy in ambiguities(node)
                ]
            elif isinstance(node, Array) and takes_no_bytes(node.items):
                text = "its items take no bytes, so that a few bytes could claim any number of them"
                self.doubts.append(Problem(path, text, "use a long that counts them"))


def _default_text(error: DefaultError) -> tuple[str, str]:
    remedy = "write a default of the field's type; for a union one of its first branch"
    return f"is no default for {error.field.name}: {error.text}", remedy


def branch_name(node: Leaf | Array | Map | Record) -> str:
    """What Avro's JSON form calls a branch of a union: the full name of a named type, else the type."""
    if isinstance(node, Leaf):
        return node.name or node.base
    if isinstance(node, Record):
        return node.name
    return "array" if isinstance(node, Array) else "map"


def _is_name(text: object) -> bool:
    return isinstance(text, str) and _NAME.fullmatch(text) is not None


def _is_full_name(text: str) -> bool:
    return all(_NAME.fullmatch(part) for part in text.split("."))
