"""Strict YAML: what is written is what is read, every value knows its line, and no file can exhaust memory.

Differences to plain PyYAML, each of them on purpose:

- Only `true`, `false`, `null`, decimal whole numbers and decimal fractions are typed, and only when written plain.
  Everything else is text: `no`, `on`, `12:30:45`, `2024-01-01`, `012`, `1_000`, `0x1F`, `.inf`.
- Duplicate keys, tags, merge keys (`<<`), several documents and keys that are not plain texts are refused.
- At most 1 MiB, 64 levels and 20,000 values, aliases counted as often as they are used.
- Error texts hold positions and kinds, never content: the file may hold a password.
"""

from __future__ import annotations

import re
import stat
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, TypeAlias

import yaml

from postroom.libs.exceptions import ConfigurationError, PostroomError

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping
    from pathlib import Path

MAX_BYTES = 1024 * 1024
MAX_DEPTH = 64
MAX_VALUES = 20_000

Scalar: TypeAlias = "str | int | float | bool | None"

_NULL = {"", "~", "null", "Null", "NULL"}
_TRUE = {"true", "True", "TRUE"}
_FALSE = {"false", "False", "FALSE"}
_INTEGER = re.compile(r"[-+]?(0|[1-9][0-9]{0,39})")
_FRACTION = re.compile(r"[-+]?(0|[1-9][0-9]{0,39})?(\.[0-9]*)?([eE][-+]?[0-9]{1,3})?")
_QUOTED_CONTENT = re.compile(r"'(?!<)[^'\s]{2,}'")


@dataclass(frozen=True, slots=True)
class Node:
    """One value of a YAML file: a scalar, a tuple of nodes or a mapping from text to nodes.

    `line` counts from 1; for a value in a mapping it is the line of its key. `plain` is False for quoted
    and block scalars. `size` counts this value and all below it, `depth` the levels below it.
    """

    value: Scalar | tuple[Node, ...] | Mapping[str, Node]
    line: int
    plain: bool = True
    size: int = 1
    depth: int = 0

    def unwrap(self) -> object:
        """The value with plain dicts, lists and scalars inside; lines are gone."""
        if isinstance(self.value, dict):
            return {key: node.unwrap() for key, node in self.value.items()}
        if isinstance(self.value, tuple):
            return [node.unwrap() for node in self.value]
        return self.value


def scalar_of(text: str) -> Scalar:
    """What a plain scalar of this text means: null, a boolean, a whole number, a fraction, or the text itself."""
    if text in _NULL:
        return None
    if text in _TRUE:
        return True
    if text in _FALSE:
        return False
    if _INTEGER.fullmatch(text):
        return int(text)
    if any(digit.isdigit() for digit in text.lower().partition("e")[0]) and _FRACTION.fullmatch(text):
        number = float(text)
        return text if number in {float("inf"), float("-inf")} else number
    return text


def kind_of(value: object) -> str:
    """The kind of a YAML value in words a reader of the file uses."""
    kinds: tuple[tuple[type, str], ...] = (
        (bool, "true or false"),
        (int, "a whole number"),
        (float, "a fraction"),
        (str, "a text"),
        (dict, "a mapping"),
        (tuple, "a list"),
        (list, "a list"),
    )
    if value is None:
        return "nothing (null)"
    return next((name for kind, name in kinds if isinstance(value, kind)), type(value).__name__)


def read_yaml(path: Path, *, error: type[PostroomError] = ConfigurationError) -> Node:
    """The content of the YAML file `path`, as `parse_yaml` reads it.

    Raises `error` when the file is missing, no regular file, unreadable, larger than 1 MiB, empty, not UTF-8,
    or not the strict YAML that this module describes. A UTF-8 byte order mark is skipped.
    """
    try:
        if not stat.S_ISREG(path.stat().st_mode):
            what = "a folder" if path.is_dir() else "no regular file"
            raise error(f"{path} is {what}", remedy="name a YAML file")
        with path.open("rb") as file:
            data = file.read(MAX_BYTES + 1)
    except FileNotFoundError as exc:
        raise error(f"{path} does not exist", remedy="name a YAML file that exists") from exc
    except OSError as exc:
        raise error(
            f"{path} cannot be read: {exc.strerror or type(exc).__name__}",
            remedy="check the path and its permissions",
        ) from exc
    if len(data) > MAX_BYTES:
        raise error(f"{path} is larger than {MAX_BYTES} bytes", remedy="check that this is the right file")
    return parse_yaml(_decode(data, str(path), error), source=str(path), error=error)


def parse_yaml(text: str, *, source: str, error: type[PostroomError] = ConfigurationError) -> Node:
    """The one document in `text`; `source` names it in errors.

    Raises `error` (the message starts with `source:line`) for everything this module refuses.
    """
    if len(text) > MAX_BYTES:
        raise error(f"{source} is larger than {MAX_BYTES} bytes", remedy="check that this is the right file")
    return _Builder(source, error).build(text)


def _decode(data: bytes, source: str, error: type[PostroomError]) -> str:
    if not data.strip():
        raise error(f"{source} is empty", remedy="write settings into it, or remove it")
    if data.startswith((b"\xff\xfe", b"\xfe\xff")):
        raise error(f"{source} is UTF-16 text", remedy="save it as UTF-8")
    try:
        return data.decode("utf-8-sig")
    except UnicodeDecodeError as exc:
        line = data.count(b"\n", 0, exc.start) + 1
        raise error(f"{source}:{line} is not UTF-8 text", remedy="save it as UTF-8") from None


@dataclass(slots=True)
class _Open:
    """A list or mapping whose end has not been read yet."""

    line: int
    anchor: str | None
    items: list[Node] | None
    entries: dict[str, Node] | None
    key: str | None = None
    key_line: int = 0
    size: int = 1
    depth: int = 0


class _Builder:
    """Turns PyYAML's events into nodes, without recursion, so that no depth can exhaust the stack."""

    def __init__(self, source: str, error: type[PostroomError]) -> None:
        self._source = source
        self._error = error
        self._anchors: dict[str, Node] = {}
        self._open: list[_Open] = []
        self._values = 0
        self._root: Node | None = None

    def build(self, text: str) -> Node:
        try:
            for event in self._events(text):
                self._take(event)
        except yaml.reader.ReaderError as exc:
            line = text.count("\n", 0, exc.position) + 1
            raise self._broken(line, "holds a control character", "check that this is a text file") from None
        except yaml.MarkedYAMLError as exc:
            raise self._not_yaml(exc) from None  # the text of PyYAML's error quotes the file
        if self._root is None:
            raise self._error(f"{self._source} is empty", remedy="write settings into it, or remove it")
        return self._root

    def _events(self, text: str) -> Iterator[yaml.Event]:
        loader = yaml.SafeLoader(text)
        try:
            while loader.check_event():
                yield loader.get_event()  # type: ignore[no-untyped-call]  # its stub has no types
        except (ValueError, OverflowError):  # PyYAML asks for the character, whatever its number
            what = "is not YAML: a character that does not exist"
            raise self._broken(loader.line + 1, what, "write the character itself") from None

    def _broken(self, line: int, what: str, remedy: str) -> PostroomError:
        return self._error(f"{self._source}:{line} {what}", remedy=remedy)

    def _not_yaml(self, exc: yaml.MarkedYAMLError) -> PostroomError:
        line = _line(exc.problem_mark or exc.context_mark)
        found = exc.problem or "syntax error"
        if r"'\t'" in found:
            return self._broken(line, "is not YAML: a tab in the indentation", "indent with spaces")
        problem = _QUOTED_CONTENT.sub("something", found)
        remedy = "put texts with special characters (${...} inside braces, too) into quotes; indent with spaces"
        return self._broken(line, f"is not YAML: {problem}", remedy)

    def _take(self, event: yaml.Event) -> None:
        line = _line(event.start_mark)
        if isinstance(event, yaml.DocumentStartEvent):
            if self._root is not None:
                raise self._broken(line, "starts a second document", "keep one document in a file")
        elif isinstance(event, yaml.AliasEvent):
            self._add(self._alias(event, line), line)
        elif isinstance(event, yaml.NodeEvent):
            self._take_node(event, line)
        elif isinstance(event, (yaml.MappingEndEvent, yaml.SequenceEndEvent)):
            self._close()

    def _take_node(self, event: yaml.NodeEvent, line: int) -> None:
        tag: str | None = getattr(event, "tag", None)
        if tag is not None:
            remedy = "remove the tag; a text that begins with ! must be quoted"
            raise self._broken(line, "uses a YAML tag, and tags are refused", remedy)
        self._count(line, 1)
        if isinstance(event, yaml.ScalarEvent):
            plain, text = bool(event.implicit[0]), self._whole_text(event.value, line)
            parent = self._open[-1] if self._open else None
            if parent is not None and parent.entries is not None and parent.key is None:
                self._take_key(parent, text, line, plain=plain)
                return
            node = Node(scalar_of(text) if plain else text, line, plain)
            if event.anchor is not None:
                self._anchors[event.anchor] = node
            self._add(node, line)
            return
        self._limit_depth(line, 1)
        mapping = isinstance(event, yaml.MappingStartEvent)
        self._refuse_complex_key(line)
        self._open.append(_Open(line, event.anchor, None if mapping else [], {} if mapping else None))

    def _whole_text(self, text: str, line: int) -> str:
        r"""The text with `\ud83d\ude00`, as JSON writes what is beyond 16 bits, as the one character that it means."""
        if text.isascii():
            return text
        try:
            return text.encode("utf-16", "surrogatepass").decode("utf-16")
        except UnicodeDecodeError:
            remedy = "write the character itself"
            raise self._broken(line, "holds half of a surrogate pair", remedy) from None

    def _take_key(self, parent: _Open, key: str, line: int, *, plain: bool) -> None:
        if plain and key == "<<":
            raise self._broken(line, "uses a merge key (<<), and those are refused", "write the values out")
        if plain and not key:
            raise self._broken(line, "has an empty key", "write a name before the colon")
        if parent.entries is not None and key in parent.entries:
            first = parent.entries[key].line
            what = f"has the key {printable(key)} a second time (first in line {first})"
            raise self._broken(line, what, "keep one of the two")
        parent.key, parent.key_line = key, line

    def _refuse_complex_key(self, line: int) -> None:
        parent = self._open[-1] if self._open else None
        if parent is not None and parent.entries is not None and parent.key is None:
            what = "uses a list, a mapping or an alias as a key"
            raise self._broken(line, what, "write a plain text before the colon")

    def _alias(self, event: yaml.AliasEvent, line: int) -> Node:
        self._refuse_complex_key(line)
        node = self._anchors.get(event.anchor or "")
        if node is None:
            what = "uses an alias (*) whose anchor is not complete before it"
            raise self._broken(line, what, "a text that begins with * must be quoted")
        self._count(line, node.size)
        self._limit_depth(line, node.depth)
        return node

    def _count(self, line: int, values: int) -> None:
        self._values += values
        if self._values > MAX_VALUES:
            what = f"makes more than {MAX_VALUES} values, aliases counted as often as they are used"
            raise self._broken(line, what, "check that this is the right file")

    def _limit_depth(self, line: int, below: int) -> None:
        if len(self._open) + below > MAX_DEPTH:
            raise self._broken(line, f"is nested deeper than {MAX_DEPTH} levels", "flatten it")

    def _add(self, node: Node, line: int) -> None:
        if not self._open:
            self._root = replace(node, line=line)
            return
        parent = self._open[-1]
        parent.size += node.size
        parent.depth = max(parent.depth, node.depth)
        if parent.items is not None:
            parent.items.append(replace(node, line=line))
        elif parent.entries is not None and parent.key is not None:
            parent.entries[parent.key] = replace(node, line=parent.key_line)
            parent.key = None

    def _close(self) -> None:
        done = self._open.pop()
        value = tuple(done.items) if done.items is not None else done.entries
        node = Node(value, done.line, size=done.size, depth=done.depth + 1)
        if done.anchor is not None:
            self._anchors[done.anchor] = node
        self._add(node, done.line)


def _line(mark: object) -> int:
    return int(getattr(mark, "line", 0)) + 1


def printable(text: str, limit: int = 60) -> str:
    """`text` fit for an error message or a terminal: control characters escaped, cut after `limit` characters."""
    shown = "".join(char if char.isprintable() else char.encode("unicode_escape").decode() for char in text[:limit])
    return shown + ("..." if len(text) > limit else "")
