"""Hides private values of an event before it becomes a dead letter: docs/design/0007-contract-rules.md, "Privacy".

What is known and not private is kept, nothing else: a broken event may hold a private value in the wrong place.
"""

from __future__ import annotations

import hashlib
import hmac
import json
from typing import TYPE_CHECKING, Any, Final

from postroom.libs.exceptions import DecodeError
from postroom.schemas.avro_leaves import is_plain_name
from postroom.schemas.avro_nodes import MAX_DEPTH, Array, Field, Leaf, Map, Node, Record, Union, python_type
from postroom.schemas.avro_schema import AvroSchema
from postroom.schemas.avro_unions import choose_branch
from postroom.schemas.event_checker import find_violations
from postroom.schemas.json_reader import from_json, read_json, to_json

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping

    from postroom.libs.event import Event
    from postroom.schemas.data_contracts import Contract

FULL: Final = "full"
REDACTED: Final = "redacted"
HASHED: Final = "hashed"
LEFT_OUT: Final = "left_out"

_STRICTEST_FIRST: Final = (REDACTED, HASHED)
_CLOSED: Final = ("enum", "fixed")
"""Of these the contract says which values there are: any other one is none that is known."""
_HASH_PREFIX: Final = "hmac-sha256:"


class Mask:
    """Hides what the tags of one contract's fields ask for. Safe to share between threads."""

    def __init__(self, avro: AvroSchema, hidden: Mapping[tuple[str, str], str], key: bytes) -> None:
        self._avro = avro
        self._hidden = dict(hidden)
        self._key = key
        self.privacy = REDACTED if REDACTED in self._hidden.values() else HASHED
        """What is done at most: `redacted` where any field is, else `hashed`."""

    def hides(self, record: str, field: str) -> bool:
        """Whether the field of a record, both by their names, is one that is hidden."""
        return (record, field) in self._hidden

    def masked(self, event: Event | bytes) -> dict[str, Any] | None:
        """The event, a mapping or JSON in bytes, with hidden values; None for what is no event at all.

        Never raises on account of the event, and does not change it.
        """
        try:
            whole = from_json(self._avro, read_json(event)) if isinstance(event, bytes) else dict(event)
            seen = self._node(self._avro.root, whole, 1)
        except DecodeError:
            return None
        except Exception:  # noqa: BLE001 - an object inside a broken event may raise anything when it is looked at
            return None
        return seen if isinstance(seen, dict) else None

    def _node(self, node: Node, value: Any, depth: int) -> Any:
        if isinstance(node, Union):
            at = choose_branch(node, value)
            return REDACTED if at is None else self._node(node.branches[at], value, depth)
        if depth > MAX_DEPTH or not _has_shape(node, value):
            return REDACTED
        if isinstance(node, Leaf):
            return value if node.row not in _CLOSED or not find_violations(node, value) else REDACTED
        if isinstance(node, Array):
            return [self._node(node.items, item, depth + 1) for item in value]
        if isinstance(node, Map):
            return {key: self._node(node.values, item, depth + 1) for key, item in value.items() if type(key) is str}
        return self._record(node, value, depth)

    def _record(self, record: Record, value: dict[object, Any], depth: int) -> dict[str, Any]:
        fields = {field.name: field for field in record.fields}
        seen: dict[str, Any] = {}
        for name, inner in value.items():
            field = fields.get(name) if type(name) is str else None
            if field is None:  # a name of nobody knows what: perhaps a private value itself
                seen[str(name) if is_plain_name(name) else REDACTED] = REDACTED
            elif (record.name, field.name) in self._hidden:
                seen[field.name] = self._hide(self._hidden[record.name, field.name], field, inner)
            else:
                seen[field.name] = self._node(field.type, inner, depth + 1)
        return seen

    def _hide(self, how: str, field: Field, value: Any) -> str | None:
        if value is None:
            return None  # there was nothing
        if how == REDACTED or find_violations(field.type, value):
            return REDACTED
        return _HASH_PREFIX + hmac.new(self._key, self._text(field.type, value), hashlib.sha256).hexdigest()

    def _text(self, node: Node, value: Any) -> bytes:
        """What is hashed: a text as it is, so that it can be done elsewhere too; anything else in its JSON form."""
        if type(value) is str:
            return value.encode()
        form = to_json(AvroSchema(node, self._avro.recursive, ()), value)
        return json.dumps(form, ensure_ascii=False, sort_keys=True, separators=(",", ":")).encode()


def _has_shape(node: Leaf | Array | Map | Record, value: object) -> bool:
    return type(value) is python_type(node)


def strictest(tags: Iterable[str], privacy: Mapping[str, str]) -> str:
    """What is done to a field with these tags: of several words the strictest counts, `full` where none is said."""
    asked = {privacy.get(tag, FULL) for tag in tags}
    return next((word for word in _STRICTEST_FIRST if word in asked), FULL)


def mask_of(contract: Contract, privacy: Mapping[str, str], key: bytes) -> Mask | None:
    """What hides the private values of a contract's events, None where nothing is to be hidden.

    `privacy` says for each tag `full`, `redacted` or `hashed`; of several the strictest counts. `key` is for hashes.
    """
    hidden = {}
    for place, tags in contract.field_tags.items():
        how = strictest(tags, privacy)
        if how != FULL:
            hidden[place] = how
    return Mask(contract.avro, hidden, key) if hidden else None
