"""The metadata of a contract in Confluent's form: properties, tags of fields, and which properties are sensitive."""

from __future__ import annotations

import re
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any, Final, TypeAlias

from postroom.schemas.avro_graph import walk
from postroom.schemas.avro_nodes import Record
from postroom.schemas.contract_parts import whole_file

if TYPE_CHECKING:
    from postroom.schemas.avro_nodes import Node
    from postroom.schemas.contract_file import ContractText
    from postroom.schemas.contract_parts import Part

FieldTags: TypeAlias = "dict[tuple[str, str], frozenset[str]]"
"""The tags of each tagged field, by the full name of its record and its own name."""

_KEYS: Final = ("properties", "tags", "sensitive")


@dataclass(frozen=True, slots=True)
class Metadata:
    """What a contract says about itself and its fields, beside the schema.

    `tags` pairs a pattern over `record.field` with tags; docs/specs/contract-file.md says what patterns mean.
    """

    properties: tuple[tuple[str, str], ...] = ()
    tags: tuple[tuple[str, tuple[str, ...]], ...] = ()
    sensitive: tuple[str, ...] = ()

    def as_json(self) -> dict[str, Any]:
        """The same in the form of the registry's REST API; empty parts are left out."""
        parts = {
            "properties": dict(self.properties),
            "tags": {pattern: list(tags) for pattern, tags in self.tags},
            "sensitive": list(self.sensitive),
        }
        return {name: part for name, part in parts.items() if part}

    def shown(self) -> Metadata:
        """The same for everybody's eyes: of a sensitive property the name stands in `sensitive`, its value nowhere."""
        return replace(self, properties=tuple(pair for pair in self.properties if pair[0] not in self.sensitive))


def read_metadata(contract: ContractText) -> None:
    """Take `metadata` out of the contract's file; what is wrong with it is noted there."""
    part = whole_file(contract).part("metadata")
    if part is None:
        return
    part.check_keys(_KEYS, "metadata")
    contract.metadata = Metadata(part.texts_by_name("properties"), _tags(part), part.texts("sensitive"))
    names = {name for name, _ in contract.metadata.properties}
    for name in contract.metadata.sensitive:
        if name not in names:
            part.wrong("sensitive", "names a property that there is not", "name one of metadata.properties")


def _tags(part: Part) -> tuple[tuple[str, tuple[str, ...]], ...]:
    inner = part.part("tags")
    return () if inner is None else tuple((pattern, inner.texts(pattern)) for pattern in inner.nodes)


def tags_of_fields(contract: ContractText, root: Node) -> FieldTags:
    """The tags of each field that has some: its own and those of the patterns that meet it.

    A pattern that meets no field is noted as wrong: it is a private field that nobody would hide.
    """
    patterns = [(pattern, _compiled(pattern), set(tags)) for pattern, tags in contract.metadata.tags]
    unmet = {pattern for pattern, _, _ in patterns}
    found: FieldTags = {}
    for record in walk(root):
        if not isinstance(record, Record):
            continue
        for field in record.fields:
            tags = set(field.tags)
            for pattern, compiled, more in patterns:
                if compiled.fullmatch(f"{record.name}.{field.name}"):
                    unmet.discard(pattern)
                    tags |= more
            if tags:
                found[record.name, field.name] = frozenset(tags)
    for pattern in sorted(unmet):
        remedy = "write record.field as in the schema, such as **.email"
        contract.wrong("metadata.tags", "has a pattern that meets no field", remedy, ("metadata", "tags", pattern))
    return found


def _compiled(pattern: str) -> re.Pattern[str]:
    """Confluent's patterns over names with dots: `*` and `?` stay between two dots, `**` does not."""
    wild = {"**": ".*", "*": "[^.]*", "?": "[^.]"}
    parts = re.findall(r"\*\*|[*?]|[^*?]+", pattern.replace("**.*", "**"))
    return re.compile("".join(wild.get(part, re.escape(part)) for part in parts))
