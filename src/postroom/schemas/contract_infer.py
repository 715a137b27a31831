"""Drafts a contract from sample events: what they have in common as a schema, and what is a guess as comments.

Every sample is a valid event of the draft, except where the draft says that it left something out. No value of a
sample stands in it but the symbols of clear enums, and none of those where the name of the field sounds private.
"""

from __future__ import annotations

import json
import re
from typing import TYPE_CHECKING, Any, Final

from postroom.schemas.avro_nodes import INT_RANGES
from postroom.schemas.contract_starter import topic_name, type_name, yaml_text
from postroom.schemas.sample_shape import FORMATS, NAME, Seen

if TYPE_CHECKING:
    from collections.abc import Iterator

_PRIVATE: Final = re.compile(
    r"(?i).*(name|mail|phone|mobile|address|street|city|zip|postal|birth|gender|sex|religion|ssn|passport|iban|card|"
    r"password|secret|token|account|diagnos|salary|ip).*"
)
_TIME_NAME: Final = re.compile(r"(?i).*(time|date|timestamp|_at|_ts|^at|^ts)(_?(ms|millis|us|micros))?$")
_MILLIS: Final = (10**12, 5 * 10**12)  # the years 2001 to 2128
_MICROS: Final = (10**15, 5 * 10**15)
_SECONDS: Final = (10**9, 5 * 10**9)
_EXACT: Final = 2**53  # a double holds every whole number up to here
_AS_IT_IS: Final = {"boolean": "boolean", "float": "double"}


class Inference:
    """Takes samples one after the other, in bounded memory, and drafts a contract at the end."""

    def __init__(self) -> None:
        self._seen = Seen()

    @property
    def count(self) -> int:
        """The number of samples so far."""
        return self._seen.count

    def add(self, event: dict[str, Any]) -> None:
        """Take one more sample into account."""
        self._seen.add(event)

    def draft(self, name: str) -> str:
        """The text of a contract file for the event type `name`, as `contracts check` takes it."""
        return "\n".join(_Draft(name, self._seen).lines()) + "\n"


class _Draft:
    def __init__(self, name: str, seen: Seen) -> None:
        self._name = name
        self._seen = seen
        self._types: set[str] = {type_name(name)}
        self._unsure: list[str] = []

    def lines(self) -> Iterator[str]:
        fields = [line for name, seen in self._seen.fields.items() for line in self._top_field(name, seen)]
        yield f"# A draft from {self._seen.count:,} samples. It says what they have in common, not what was meant:"
        yield "# read every line, above all those after a comment, and add what only people know."
        yield f"name: {yaml_text(self._name)}"
        yield "version: 1"
        yield 'description: ""            # what happened when this event is sent'
        yield 'owner: ""                  # who answers for it'
        yield f"topic: {yaml_text(topic_name(self._name))}"
        yield from self._key()
        yield "schema:"
        yield "  type: record"
        yield f"  name: {yaml_text(type_name(self._name))}"
        if not fields:
            yield "  # unsure: the samples have no fields that could be named"
        yield "  fields:" if fields else "  fields: []"
        yield from fields
        if self._seen.more_fields:
            yield f"    # left out: the fields behind the first {len(self._seen.fields):,}"

    def _key(self) -> Iterator[str]:
        for name, seen in self._seen.fields.items():
            is_id = name == "id" or name.endswith(("_id", "Id"))
            always = seen.count == self._seen.count and not seen.nulls and seen.kinds in (["text"], ["integer"])
            if is_id and always and NAME.fullmatch(name):
                yield f"# key: {name}   # unsure: always there, and sounds like what events are about"
                return

    def _top_field(self, name: str, seen: Seen) -> Iterator[str]:
        if not NAME.fullmatch(name):
            yield "    # left out: a field whose name is none in Avro (letters, digits and underscores, no digit first)"
            return
        self._unsure = []
        field = self._field(name, seen, self._seen.objects, name)
        for text in self._unsure:
            yield f"    # unsure: {text}"
        yield f"    - {flow(field)}"

    # -- types

    def _field(self, name: str, seen: Seen, objects: int, path: str) -> dict[str, Any]:
        kind = self._type(seen, path)
        if seen.nulls or seen.count < objects:
            branches = kind if isinstance(kind, list) else [kind]
            return {"name": name, "type": ["null", *branches], "default": None}
        return {"name": name, "type": kind}

    def _type(self, seen: Seen, path: str) -> Any:
        """The type of what is not null; a list of types for a union."""
        kinds = seen.kinds
        if not kinds:
            self._unsure.append(f"{path} was always null")
            return "string"
        if kinds == ["integer", "float"] and max(abs(seen.low), abs(seen.high)) <= _EXACT:
            return "double"
        if len(kinds) > 1:
            self._unsure.append(f"{path} is of several kinds: {', '.join(kinds)}")
        types = [self._one(kind, seen, path, alone=len(kinds) == 1) for kind in kinds]
        return types[0] if len(types) == 1 else types

    def _one(self, kind: str, seen: Seen, path: str, *, alone: bool) -> Any:
        if kind in _AS_IT_IS:
            return _AS_IT_IS[kind]
        if kind == "integer":
            return self._integer(seen, path, alone=alone)
        if kind == "text":
            return self._text(seen, path) if alone else "string"
        if kind == "array":
            return {"type": "array", "items": self._inner(seen.items or Seen(), f"{path}[]")}
        return self._object(seen, path)

    def _object(self, seen: Seen, path: str) -> dict[str, Any]:
        if seen.is_map:
            self._unsure.append(f"{path} may be a map: its names look like data")
            return {"type": "map", "values": self._inner(seen.values(), f"{path}{{}}")}
        record = {"type": "record", "name": self._fresh(path)}
        fields = [self._field(name, inner, seen.objects, f"{path}.{name}") for name, inner in seen.fields.items()]
        return {**record, "fields": fields}

    def _inner(self, seen: Seen, path: str) -> Any:
        """The type of items and values; null among them makes it a union."""
        if not seen.count:
            self._unsure.append(f"{path} was always empty")
            return "string"
        kind = self._type(seen, path)
        if not seen.nulls:
            return kind
        return ["null", *(kind if isinstance(kind, list) else [kind])]

    def _integer(self, seen: Seen, path: str, *, alone: bool) -> Any:
        low, high = INT_RANGES["long"]
        if not low <= seen.low <= seen.high <= high:
            self._unsure.append(f"{path} has whole numbers of more than 64 bits")
            digits = max(len(str(abs(seen.low))), len(str(abs(seen.high))))
            return {"type": "bytes", "logicalType": "decimal", "precision": digits, "scale": 0}
        if alone and _TIME_NAME.fullmatch(path.rpartition(".")[2]):
            for unit, name in ((_MILLIS, "timestamp-millis"), (_MICROS, "timestamp-micros")):
                if unit[0] <= seen.low <= seen.high <= unit[1]:
                    self._unsure.append(f"{path} holds numbers that look like a {name}")
                    return dict(FORMATS[name])
            if _SECONDS[0] <= seen.low <= seen.high <= _SECONDS[1]:
                self._unsure.append(
                    f"{path} holds numbers that look like seconds since 1970, which Avro has no type for"
                )
        return "long"

    def _text(self, seen: Seen, path: str) -> Any:
        for name, schema in FORMATS.items():
            if name in seen.formats:
                return dict(schema)
        symbols = seen.symbols
        if symbols and not _PRIVATE.fullmatch(path):
            self._unsure.append(f"{path} had only these values in {seen.texts:,} samples")
            return {"type": "enum", "name": self._fresh(path), "symbols": symbols}
        return "string"

    def _fresh(self, path: str) -> str:
        """A name for a type that the draft does not have yet."""
        base = type_name(path)
        name, number = base, 2
        while name in self._types:
            name, number = f"{base}{number}", number + 1
        self._types.add(name)
        return name


def flow(value: object) -> str:
    """A value as YAML on one line, quoted only where it has to be."""
    if isinstance(value, dict):
        return "{" + ", ".join(f"{flow(key)}: {flow(inner)}" for key, inner in value.items()) + "}"
    if isinstance(value, list):
        return "[" + ", ".join(flow(inner) for inner in value) + "]"
    if isinstance(value, str):
        return yaml_text(value)
    return json.dumps(value)
