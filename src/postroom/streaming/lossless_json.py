"""An event as JSON text and back, without loss: equal values of equal types.

The form is specified in docs/specs/lossless-json.md. Values that JSON has no place for are tagged
(`{"$decimal": "1.50"}`); what the table does not list is refused, nothing is coerced.
"""

from __future__ import annotations

import json
import math
import re
from typing import TYPE_CHECKING, NoReturn, cast

import msgspec

from postroom.libs.exceptions import DecodeError, NotRepresentableError
from postroom.streaming.lossless_tags import (
    READERS,
    SAFE_INT,
    WRITERS,
    UnfitError,
    has_lone_surrogate,
    int_text,
    kind_name,
    special_float_text,
    surrogates_text,
)

if TYPE_CHECKING:
    from collections.abc import Mapping
    from typing import TypeAlias

    _Sequence: TypeAlias = "list[object] | tuple[object, ...]"

MEDIA_TYPE = "application/vnd.postroom.event+json"

MAX_DEPTH = 64
"""Containers inside each other, the event itself included."""

MAX_BYTES = 16 * 1024 * 1024
"""The longest text that is written or read."""

MAX_VALUES = 1_000_000
"""Values in one event that is written, counted wherever they stand: a few shared lists can unfold without end."""

_FIELD_NAME = re.compile(r"[A-Za-z_][A-Za-z0-9_]{0,63}")
_TOO_DEEP = f"more than {MAX_DEPTH} containers inside each other"
_TOO_LONG = f"a text above {MAX_BYTES} bytes"


def encode(event: Mapping[str, object]) -> bytes:
    """Return the JSON text of an event, from which `decode` makes an equal event with equal types.

    Raises `NotRepresentableError` with a path and a kind, never a value, for what the form cannot hold: types
    that are not listed (subclasses too), keys that are no text, more than 64 containers inside each other,
    more than a million values, a text above 16 MiB.
    """
    try:
        members = dict(event)
    except Exception:  # noqa: BLE001  a caller's mapping may raise anything at all
        raise NotRepresentableError("event: a mapping that cannot be read") from None
    try:
        text = msgspec.json.encode(_Writer().value(members, 0))
    except UnfitError as exc:
        raise NotRepresentableError(f"{exc.path()}: {exc.kind} cannot be kept in a dead letter") from None
    if len(text) > MAX_BYTES:
        raise NotRepresentableError(f"event: {_TOO_LONG} cannot be kept in a dead letter")
    return text


def decode(text: bytes) -> dict[str, object]:
    """Return the event that `encode` wrote as `text`.

    Raises `DecodeError`, with a path and without values, for everything that `encode` would not have written,
    white space aside.
    """
    if len(text) > MAX_BYTES:
        raise DecodeError(f"lossless JSON: event: {_TOO_LONG}")
    try:
        event = _read(_parse(text), 0)
    except UnfitError as exc:
        raise DecodeError(f"lossless JSON: {exc.path()}: {exc.kind}") from None
    if type(event) is not dict:
        raise DecodeError("lossless JSON: event: something that is no event")
    return event


def _step(name: object, place: int) -> str:
    """A member's step in a path: its name if it looks like a field's, else its place (a key may be data)."""
    return name if type(name) is str and _FIELD_NAME.fullmatch(name) else f"{{{place}}}"


def _is_tag(members: Mapping[str, object]) -> bool:
    return len(members) == 1 and next(iter(members)).startswith("$")


# Writing


class _Writer:
    """Turns an event into plain JSON values, counting what the text will take at least."""

    __slots__ = ("_bytes_left", "_values_left")

    def __init__(self) -> None:
        self._bytes_left = MAX_BYTES
        self._values_left = MAX_VALUES

    def value(self, value: object, depth: int) -> object:
        """Return the JSON value for `value`, which stands inside `depth` containers."""
        self._values_left -= 1
        if self._values_left < 0:
            raise UnfitError(f"more than {MAX_VALUES} values")
        kind = type(value)
        if kind is str:
            return self._text(cast("str", value))
        if value is None or kind is bool:
            return value
        if kind is int or kind is float:
            return self._number(cast("int | float", value))
        if kind is dict or kind is list or kind is tuple:
            return self._container(cast("dict[object, object] | _Sequence", value), depth)
        return self._tagged(value, kind)

    def _spend(self, size: int) -> None:
        self._bytes_left -= size
        if self._bytes_left < 0:
            raise UnfitError(_TOO_LONG)

    def _text(self, value: str) -> object:
        self._spend(len(value))
        return {"$text": surrogates_text(value)} if has_lone_surrogate(value) else value

    def _number(self, value: float) -> object:
        if isinstance(value, int):
            if -SAFE_INT <= value <= SAFE_INT:
                return value
            self._spend(value.bit_length() // 4)
            return {"$int": int_text(value)}
        name = special_float_text(value)
        return {"$float": name} if name else value

    def _tagged(self, value: object, kind: type) -> object:
        known = WRITERS.get(kind)
        if known is None:
            name = kind_name(kind)
            raise UnfitError(f"{'an' if name[0] in 'aeiou' else 'a'} {name}")
        if kind is bytes:
            self._spend(len(cast("bytes", value)))
        tag, write = known
        text = write(value)
        self._spend(len(text))
        return {tag: text}

    def _container(self, value: dict[object, object] | _Sequence, depth: int) -> object:
        if depth >= MAX_DEPTH:
            raise UnfitError(_TOO_DEEP)
        if isinstance(value, dict):
            members = self._members(value, depth + 1)
            return {"$object": members} if _is_tag(members) else members
        items = self._items(value, depth + 1)
        return {"$tuple": items} if isinstance(value, tuple) else items

    def _items(self, items: _Sequence, depth: int) -> list[object]:
        written = []
        for place, item in enumerate(tuple(items)):  # a copy: another thread may be at work on the list
            try:
                written.append(self.value(item, depth))
            except UnfitError as exc:
                exc.steps.append(place)
                raise
        return written

    def _members(self, members: dict[object, object], depth: int) -> dict[str, object]:
        written: dict[str, object] = {}
        for place, (name, item) in enumerate(list(members.items())):  # a copy, as above
            try:
                written[self._name(name)] = self.value(item, depth)
            except UnfitError as exc:
                exc.steps.append(_step(name, place))
                raise
        return written

    def _name(self, name: object) -> str:
        if type(name) is not str:
            raise UnfitError(f"a key of type {kind_name(type(name))}")
        if has_lone_surrogate(name):
            raise UnfitError("a key with a lone surrogate")
        self._spend(len(name) + 2)
        return name


# Reading


def _parse(text: bytes) -> object:
    """Strict JSON to plain values: no duplicate names, no NaN, numbers in range."""
    try:
        tree: object = json.loads(
            text.decode(),
            object_pairs_hook=_unique,
            parse_int=_plain_int,
            parse_float=_plain_float,
            parse_constant=_refuse_constant,
        )
    except UnicodeDecodeError:
        raise UnfitError("not UTF-8") from None
    except json.JSONDecodeError as exc:
        raise UnfitError(f"not JSON at line {exc.lineno}, column {exc.colno}") from None
    except RecursionError:
        raise UnfitError(_TOO_DEEP) from None
    return tree


def _unique(pairs: list[tuple[str, object]]) -> dict[str, object]:
    members = dict(pairs)
    if len(members) != len(pairs):
        raise UnfitError("a name that is there twice")
    return members


def _plain_int(text: str) -> int:
    if len(text) > 17 or text == "-0" or not -SAFE_INT <= (number := int(text)) <= SAFE_INT:
        raise UnfitError("an integer that needs a tag")
    return number


def _plain_float(text: str) -> float:
    number = float(text)
    if not math.isfinite(number) or special_float_text(number):
        raise UnfitError("a number that overflows a double, or needs a tag")
    return number


def _refuse_constant(_: str) -> NoReturn:
    raise UnfitError("a bare NaN or Infinity")


def _read(value: object, depth: int) -> object:
    """Return the Python value for the JSON value `value`, which stands inside `depth` containers."""
    if isinstance(value, str):
        return _sound(value)
    if isinstance(value, dict):
        return _read_tagged(value, depth) if _is_tag(value) else _read_members(value, depth)
    if isinstance(value, list):
        return _read_items(value, depth)
    return value


def _read_tagged(members: dict[str, object], depth: int) -> object:
    ((tag, content),) = members.items()
    if tag == "$tuple" and isinstance(content, list):
        return tuple(_read_items(content, depth))
    if tag == "$object" and isinstance(content, dict) and _is_tag(content):
        return _read_members(content, depth)
    read = READERS.get(tag)
    if read is None or not isinstance(content, str):
        raise UnfitError("an unknown tag, or one around the wrong kind of thing")
    value = read(content)
    if value is None:
        raise UnfitError(f"the content of {tag} is not written as specified")
    return value


def _read_items(items: list[object], depth: int) -> list[object]:
    _within(depth)
    read = []
    for place, item in enumerate(items):
        try:
            read.append(_read(item, depth + 1))
        except UnfitError as exc:
            exc.steps.append(place)
            raise
    return read


def _read_members(members: dict[str, object], depth: int) -> dict[str, object]:
    _within(depth)
    read: dict[str, object] = {}
    for place, (name, item) in enumerate(members.items()):
        try:
            read[_sound(name)] = _read(item, depth + 1)
        except UnfitError as exc:
            exc.steps.append(_step(name, place))
            raise
    return read


def _within(depth: int) -> None:
    if depth >= MAX_DEPTH:
        raise UnfitError(_TOO_DEEP)


def _sound(text: str) -> str:
    if has_lone_surrogate(text):
        raise UnfitError("a lone surrogate")
    return text
