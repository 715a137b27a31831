"""What a contract could say better: nothing here is wrong, all of it costs somebody time later.

A finding is silenced in the contract file, by its code alone or with its path: `lint_ignore: [doc_missing device]`.
"""

from __future__ import annotations

import re
from dataclasses import dataclass
from typing import TYPE_CHECKING, Final

from postroom.schemas.schema_shape import NAMED, Shape, Slot, shape_of

if TYPE_CHECKING:
    from collections.abc import Iterator

    from postroom.schemas.contract_metadata import FieldTags
    from postroom.schemas.data_contracts import Contract

CODES: Final[dict[str, str]] = {
    "description_missing": "say in a sentence what the event is: description:",
    "owner_missing": "name the team that answers for it: owner:",
    "key_missing": "name the field whose events keep their order: key:",
    "compatibility_missing": "say what the next version has to keep: compatibility: BACKWARD",
    "examples_missing": "add a good event that contracts test can try: examples:",
    "namespace_missing": "give the record a namespace, so that its name is unique in the organisation",
    "doc_missing": "say what it means, in which unit, and whether it can be empty: doc:",
    "name_style": "write names of fields in small letters with underscores, of types in CamelCase",
    "timestamp_without_logical_type": "write {type: long, logicalType: timestamp-millis}, so that the unit is known",
    "money_as_float": "write {type: bytes, logicalType: decimal, precision: 18, scale: 2}: floats have no 0.1",
    "enum_without_default": "give the enum itself a default: then old readers survive a new symbol",
    "optional_without_default": "add default: null, so that the field may be left out and the next version may drop it",
    "union_of_many": "use a record with one nullable field for each kind, or one contract for each",
    "dead_letters_expire_first": "keep dead letters at least as long as events: somebody has to find the time for them",
    "rule_doc_missing": "say in a sentence what must be true: doc: stands in the answer to whoever breaks the rule",
    "private_without_tag": 'tag it, so that it can be kept out of dead letters: "confluent:tags": [PII]',
    "unused_ignore": "remove it from lint_ignore: it silences nothing",
}
"""Every code with its remedy."""

_FIELD_NAME: Final = re.compile(r"_?[a-z][a-z0-9]*(_[a-z0-9]+)*")
_TYPE_NAME: Final = re.compile(r"[A-Z][A-Za-z0-9]*")
_TIME_NAME: Final = re.compile(r"(.*_)?(timestamp|datetime|time|at|ts|date)(_(ms|millis|us|micros))?")
_MONEY_NAME: Final = re.compile(r"(.*_)?(price|amount|cost|total|subtotal|tax|fee|balance|salary|revenue)(_.*)?")
_PRIVATE_NAME: Final = re.compile(
    r"name|(.*_)?(first|last|full|given|family|middle|sur|nick|maiden|user|customer|contact|person)_?name(_.*)?"
    r"|(.*_)?(e?mail|phone|mobile|fax|ip|ipv4|ipv6|iban|ssn|passport|password|card_number|birthday|birth_?date"
    r"|date_of_birth|street|zip|zip_code|post_?code|postal_code|gender|religion)(_.*)?|(.*_)?address"
)
_SAYS_NOTHING: Final = frozenset(("null", "boolean", "enum", "int", "long", "float", "double"))


@dataclass(frozen=True, slots=True)
class Finding:
    """What could be better, where (a path in the schema, or a key of the contract)."""

    path: str
    code: str
    text: str

    @property
    def remedy(self) -> str:
        """What to do about it."""
        return CODES[self.code]

    def __str__(self) -> str:
        return f"{self.path}: {self.text}. {self.remedy[0].upper()}{self.remedy[1:]} [{self.code}]"


def lint(contract: Contract) -> list[Finding]:
    """What is not silenced, the contract's own keys first, then the schema in its order; unused silences last."""
    used: set[str] = set()
    left = []
    for finding in (*_of_contract(contract), *_Schema(contract.field_tags).walk(shape_of(contract.schema))):
        silenced = {finding.code, f"{finding.code} {finding.path}"} & set(contract.governance.lint_ignore)
        used |= silenced
        if not silenced:
            left.append(finding)
    for entry in dict.fromkeys(contract.governance.lint_ignore):
        if entry not in used:
            what = "finds nothing" if entry.split()[0] in CODES else "is no code of lint"
            left.append(Finding("lint_ignore", "unused_ignore", f"{entry} {what}"))
    return left


def _of_contract(contract: Contract) -> Iterator[Finding]:
    for key, value, code in (
        ("description", contract.description, "description_missing"),
        ("owner", contract.owner, "owner_missing"),
        ("key", contract.key_field, "key_missing"),
        ("compatibility", contract.governance.compatibility, "compatibility_missing"),
        ("examples", contract.governance.examples, "examples_missing"),
    ):
        if not value:
            yield Finding(key, code, "is not said")
    events, dead = contract.retention_ms, contract.dead_letter_retention_ms
    if events is not None and dead is not None and dead != -1 and (events == -1 or dead < events):
        yield Finding("dead_letter_topic", "dead_letters_expire_first", "is kept shorter than the topic")
    for rule in contract.rules:
        if not rule.doc:
            yield Finding(f"ruleSet.{rule.name}", "rule_doc_missing", "has no doc")


class _Schema:
    """One pass over a schema, each type once."""

    def __init__(self, tags: FieldTags) -> None:
        self._tags = tags
        self._seen: set[int] = set()
        self._hidden = 0
        """How many tagged fields are around: a tag stands for all that is inside."""

    def walk(self, root: Shape) -> Iterator[Finding]:
        if "." not in root.name:
            yield Finding("schema", "namespace_missing", f"record {root.name} has no namespace")
        yield from self._type("", root)

    def _type(self, path: str, shape: Shape) -> Iterator[Finding]:
        if id(shape) in self._seen:
            return
        self._seen.add(id(shape))
        here = path or "schema"
        if shape.kind in NAMED and not _TYPE_NAME.fullmatch(shape.short_name):
            yield Finding(here, "name_style", f"{shape.kind} {shape.short_name} is not in CamelCase")
        if shape.kind == "record" and path and not shape.doc:
            yield Finding(here, "doc_missing", f"record {shape.short_name} has no doc")
        if shape.kind == "enum" and shape.default is None:
            yield Finding(here, "enum_without_default", f"enum {shape.short_name} has no default of its own")
        if shape.kind == "union" and len([branch for branch in shape.branches if branch.kind != "null"]) > 1:
            yield Finding(here, "union_of_many", "is a union of more than null and one type")
        for slot in shape.fields:
            tagged = (shape.name, slot.name) in self._tags
            self._hidden += tagged
            yield from self._field(f"{path}.{slot.name}" if path else slot.name, slot)
            self._hidden -= tagged
        if shape.items is not None:
            yield from self._type(f"{path}{'[]' if shape.kind == 'array' else '{}'}", shape.items)
        for branch in shape.branches:
            yield from self._type(path, branch)

    def _field(self, path: str, slot: Slot) -> Iterator[Finding]:
        if not slot.doc:
            yield Finding(path, "doc_missing", "has no doc")
        if not _FIELD_NAME.fullmatch(slot.name):
            yield Finding(path, "name_style", "is not in small letters with underscores")
        plain = _not_null(slot.type)
        if plain.kind == "long" and not plain.logical and _TIME_NAME.fullmatch(slot.name):
            yield Finding(path, "timestamp_without_logical_type", "sounds like a time and is a plain long")
        if plain.kind in ("float", "double") and _MONEY_NAME.fullmatch(slot.name):
            yield Finding(path, "money_as_float", f"sounds like money and is a {plain.kind}")
        if slot.type.kind == "union" and not slot.has_default and any(b.kind == "null" for b in slot.type.branches):
            yield Finding(path, "optional_without_default", "may be null and has no default")
        if not self._hidden and _sounds_private(slot.name, plain):
            yield Finding(path, "private_without_tag", "sounds private and has no tag")
        yield from self._type(path, slot.type)


def _not_null(shape: Shape) -> Shape:
    """The one type beside null, else the type itself."""
    rest = [branch for branch in shape.branches if branch.kind != "null"]
    return rest[0] if len(rest) == 1 else shape


def _sounds_private(name: str, plain: Shape) -> bool:
    """By its name, for what holds text or bytes; of a record its fields are looked at."""
    words = re.sub(r"(?<=[a-z0-9])(?=[A-Z])", "_", name).lower()
    holds_text = plain.kind not in _SAYS_NOTHING and plain.kind != "record"
    return (holds_text or bool(plain.logical)) and _PRIVATE_NAME.fullmatch(words) is not None
