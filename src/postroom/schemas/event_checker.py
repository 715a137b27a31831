"""The slow road: walks an event beside its schema and names every way in which the two disagree.

It runs only after the fast road has said no, so it may take its time; it must be right for whatever objects it is
given, and it never prints one.
"""

from __future__ import annotations

from typing import Final, cast

from postroom.libs.event import Violation
from postroom.schemas.avro_leaves import LeafError, is_plain_name, kind_of, to_raw
from postroom.schemas.avro_nodes import MAX_DEPTH, Array, Leaf, Map, Node, Record, Union, python_type
from postroom.schemas.avro_unions import choose_branch

MAX_VIOLATIONS: Final = 100
"""More than so many are not listed: one last violation of rule `more` says that there are others."""


class _EnoughError(Exception):
    """The list is full."""


def find_violations(node: Node, event: object) -> list[Violation]:
    """Every violation, fields in the schema's order and unknown fields after them; empty for a valid event.

    Never raises, whatever objects the event is made of. At most MAX_VIOLATIONS and one of rule `more`.
    """
    walk = _Walk()
    try:
        walk.check(node, event, "", 1)
    except _EnoughError:
        walk.found.append(Violation("", "more", f"at most {MAX_VIOLATIONS} violations listed", "more of them"))
    return walk.found


class _Walk:
    """One pass over one event. `depth` is the number of the next record, array or map, the outermost being 1."""

    __slots__ = ("found",)

    def __init__(self) -> None:
        self.found: list[Violation] = []

    def say(self, path: str, rule: str, expected: object, found: str) -> None:
        if len(self.found) == MAX_VIOLATIONS:
            raise _EnoughError
        self.found.append(Violation(path, rule, str(expected), found))

    def check(self, node: Node, value: object, path: str, depth: int) -> None:
        if isinstance(node, Leaf):
            try:
                to_raw(node, value)
            except LeafError as error:
                self.say(path, error.rule, node, error.found)
        elif isinstance(node, Union):
            self._union(node, value, path, depth)
        elif type(value) is not python_type(node):
            self.say(path, "wrong_type", node, kind_of(value))
        elif depth > MAX_DEPTH:
            self.say(path, "too_deep", f"at most {MAX_DEPTH} levels", "more levels")
        else:
            self._inside(node, value, path, depth)

    def _inside(self, node: Array | Map | Record, value: object, path: str, depth: int) -> None:
        try:
            if isinstance(node, Record):
                self._record(node, cast("dict[object, object]", value), path, depth)
            elif isinstance(node, Array):
                self._array(node, cast("list[object]", value), path, depth)
            else:
                self._map(node, cast("dict[object, object]", value), path, depth)
        except _EnoughError:
            raise
        except Exception:  # noqa: BLE001  a key's own __hash__ or __eq__ may raise anything, and so may a change meanwhile
            self.say(path, "unreadable", node, f"{kind_of(value)} that cannot be read")

    def _union(self, node: Union, value: object, path: str, depth: int) -> None:
        at = choose_branch(node, value)
        if at is not None:
            self.check(node.branches[at], value, path, depth)
            return
        near = [branch for branch in node.branches if _type_of(branch) is type(value)]
        if near:
            self.say(path, "wrong_branch", _either(near), _what(value))
        else:
            self.say(path, "wrong_type", node, kind_of(value))

    def _array(self, node: Array, value: list[object], path: str, depth: int) -> None:
        for at, item in enumerate(value):
            self.check(node.items, item, f"{path}[{at}]", depth + 1)

    def _map(self, node: Map, value: dict[object, object], path: str, depth: int) -> None:
        # Keys of a map are data: an entry is named by its number, never by its key.
        for at, (key, item) in enumerate(value.items()):
            inner = f"{path}[{at}]"
            if type(key) is not str:
                self.say(inner, "wrong_type", "str as key", f"key of type {kind_of(key)}")
            elif not _is_text(key):
                self.say(inner, "not_text", "text as key", "key with a lone surrogate")
            self.check(node.values, item, inner, depth + 1)

    def _record(self, node: Record, value: dict[object, object], path: str, depth: int) -> None:
        known = 0
        for item in node.fields:
            inner = f"{path}.{item.name}" if path else item.name
            if item.name in value:
                known += 1
                self.check(item.type, value[item.name], inner, depth + 1)
            elif item.has_default:
                # The default is written in its place, and must find room there.
                self.check(item.type, item.default, inner, depth + 1)
            else:
                self.say(inner, "missing_field", item.type, "absent")
        if known == len(value):
            return
        names = node.names
        for key, other in value.items():
            if key not in names:
                shown = str(key) if is_plain_name(key) else "<unprintable>"
                inner = f"{path}.{shown}" if path else shown
                self.say(inner, "unknown_field", f"only fields of {node}", kind_of(other))


def _type_of(branch: Node) -> type | None:
    return None if isinstance(branch, Union) else python_type(branch)


def _either(branches: list[Node]) -> str:
    return " or ".join(str(branch) for branch in branches)


def _what(value: object) -> str:
    if type(value) is dict:
        return "dict whose fields fit none of them"
    return f"{kind_of(value)} that fits none of them"


def _is_text(text: str) -> bool:
    try:
        text.encode()
    except UnicodeEncodeError:
        return False
    return True
