"""What many JSON values at one place have in common: which kinds, how often, in which range, in which format.

Memory is bounded: of texts only a few distinct ones are kept (for enums), of numbers the ends, of objects at most
1,000 names. No value gets out of here but the symbols of what is clearly an enum.
"""

from __future__ import annotations

import functools
import re
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Final

from postroom.schemas.avro_schema import AvroSchema, parse_schema
from postroom.schemas.event_checker import find_violations
from postroom.schemas.lexical_forms import from_json

if TYPE_CHECKING:
    from collections.abc import Iterable

NAME: Final = re.compile(r"[A-Za-z_][A-Za-z0-9_]{0,63}")
MOST_SYMBOLS: Final = 12
_MOST_NAMES: Final = 1000
_MOST_DISTINCT: Final = MOST_SYMBOLS + 1

FORMATS: Final[dict[str, dict[str, str]]] = {
    "uuid": {"type": "string", "logicalType": "uuid"},
    "timestamp-millis": {"type": "long", "logicalType": "timestamp-millis"},
    "timestamp-micros": {"type": "long", "logicalType": "timestamp-micros"},
    "date": {"type": "int", "logicalType": "date"},
}
"""The logical types that texts are tried against, and how they are written in a schema."""


@dataclass(slots=True)
class Seen:
    """Everything that is kept of the values at one place."""

    count: int = 0
    nulls: int = 0
    booleans: int = 0
    integers: int = 0
    floats: int = 0
    texts: int = 0
    arrays: int = 0
    objects: int = 0
    low: int = 0
    high: int = 0
    formats: set[str] = field(default_factory=lambda: set(FORMATS))
    distinct: dict[str, int] = field(default_factory=dict)
    items: Seen | None = None
    fields: dict[str, Seen] = field(default_factory=dict)
    more_fields: Seen | None = None

    def add(self, value: object) -> None:
        """Take one more value into account."""
        self.count += 1
        if value is None:
            self.nulls += 1
        elif isinstance(value, bool):
            self.booleans += 1
        elif isinstance(value, int):
            self.low, self.high = (min(self.low, value), max(self.high, value)) if self.integers else (value, value)
            self.integers += 1
        elif isinstance(value, float):
            self.floats += 1
        elif isinstance(value, str):
            self._add_text(value)
        elif isinstance(value, list):
            self.arrays += 1
            self.items = self.items or Seen()
            for item in value:
                self.items.add(item)
        elif isinstance(value, dict):
            self._add_object(value)

    def _add_text(self, text: str) -> None:
        self.texts += 1
        if self.formats:
            self.formats = {name for name in self.formats if is_of(name, text)}
        if len(self.distinct) < _MOST_DISTINCT or text in self.distinct:
            self.distinct[text] = self.distinct.get(text, 0) + 1

    def _add_object(self, value: dict[str, object]) -> None:
        """By its names; from 1,000 names on it is a map, and what is new goes into one place."""
        self.objects += 1
        for name, inner in value.items():
            if name in self.fields or len(self.fields) < _MOST_NAMES:
                self.fields.setdefault(name, Seen()).add(inner)
            else:
                self.more_fields = self.more_fields or Seen()
                self.more_fields.add(inner)

    def values(self) -> Seen:
        """All values of the objects together, as those of a map."""
        return merged([*self.fields.values(), *([self.more_fields] if self.more_fields else [])])

    @property
    def kinds(self) -> list[str]:
        """The kinds that were seen beside null, in the order in which a union has to name them."""
        seen = (
            ("boolean", self.booleans), ("integer", self.integers), ("float", self.floats), ("text", self.texts),
            ("object", self.objects), ("array", self.arrays),
        )  # fmt: skip
        return [name for name, count in seen if count]

    @property
    def is_map(self) -> bool:
        """Whether the objects are maps: their names are no names of fields, or there are many and each is rare."""
        names = self.fields
        if self.more_fields or not all(NAME.fullmatch(name) for name in names):
            return True
        rare = sum(1 for seen in names.values() if seen.count * 5 < self.objects)
        return not names or (len(names) > 50 and rare * 2 > len(names))

    @property
    def symbols(self) -> list[str]:
        """The symbols of an enum, sorted, if the texts are clearly one: few names, each again and again."""
        few = 2 <= len(self.distinct) <= MOST_SYMBOLS
        often = self.texts >= 50 and all(count >= 5 for count in self.distinct.values())
        return sorted(self.distinct) if few and often and all(NAME.fullmatch(text) for text in self.distinct) else []


def merged(parts: Iterable[Seen]) -> Seen:
    """What was seen at several places, as if it had been one."""
    whole = Seen()
    for part in parts:
        if part.integers:
            low, high = (whole.low, whole.high) if whole.integers else (part.low, part.high)
            whole.low, whole.high = min(low, part.low), max(high, part.high)
        for name in ("count", "nulls", "booleans", "integers", "floats", "texts", "arrays", "objects"):
            setattr(whole, name, getattr(whole, name) + getattr(part, name))
        if part.texts:
            whole.formats &= part.formats
        for text, count in part.distinct.items():
            if len(whole.distinct) < _MOST_DISTINCT or text in whole.distinct:
                whole.distinct[text] = whole.distinct.get(text, 0) + count
        whole.items = _both(whole.items, part.items)
        whole.more_fields = _both(whole.more_fields, part.more_fields)
        for name, seen in part.fields.items():
            if name in whole.fields or len(whole.fields) < _MOST_NAMES:
                whole.fields[name] = _both(whole.fields.get(name), seen) or seen
            else:
                whole.more_fields = _both(whole.more_fields, seen)
    return whole


def _both(one: Seen | None, other: Seen | None) -> Seen | None:
    if one is None or other is None:
        return one or other
    return merged((one, other))


@functools.cache
def _schema(name: str) -> AvroSchema:
    return parse_schema(FORMATS[name])


def is_of(name: str, text: str) -> bool:
    """Whether a contract would read the text as a value of that logical type."""
    schema = _schema(name)
    return not find_violations(schema.root, from_json(schema, text))
