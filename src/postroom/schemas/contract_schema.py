"""The schema of a contract: asks more of it than Avro does, and says in which line of the file it falls short."""

from __future__ import annotations

import difflib
from typing import TYPE_CHECKING

from postroom.schemas.avro_nodes import Leaf, Node, Record, Union
from postroom.schemas.avro_schema import AvroSchema, dotted, try_schema

if TYPE_CHECKING:
    from postroom.schemas.contract_file import ContractText

_KEY_ROWS = ("string", "enum", "uuid", "int", "long", "bytes", "fixed")


def checked_schema(text: ContractText) -> AvroSchema | None:
    """The resolved schema of a contract, or None; what is wrong is added to the text's problems.

    A contract's schema is a record, every value finds its branch, and the key is a field that can be one.
    """
    if text.schema_is_missing:
        return None
    schema, problems = try_schema(text.schema)
    for problem in (*problems, *(schema.doubts if schema else ())):
        key = dotted(problem.path)
        text.wrong(f"schema{'.' if key else ''}{key}", problem.text, problem.remedy, ("schema", *problem.path))
    if schema is None:
        return None
    if not isinstance(schema.root, Record):
        text.wrong("schema", "is no record", "write type: record, with name and fields", ("schema",))
        return None
    _check_key(text, schema.root)
    return schema


def _check_key(text: ContractText, record: Record) -> None:
    if text.key_field is None:
        return
    field = next((item for item in record.fields if item.name == text.key_field), None)
    if field is None:
        near = difflib.get_close_matches(text.key_field, record.names, n=1)
        remedy = f"did you mean {near[0]}?" if near else "name a field of the schema"
        text.wrong("key", "is no field of the schema", remedy, ("key",))
    elif not _can_be_key(field.type):
        remedy = f"choose a field of type {', '.join(_KEY_ROWS)}"
        text.wrong("key", f"names a field of type {field.type}, which cannot be a key", remedy, ("key",))


def _can_be_key(node: Node) -> bool:
    """True for what has one obvious form in bytes; also when null is allowed beside it (a record without key then)."""
    if isinstance(node, Union):
        rest = [branch for branch in node.branches if not (isinstance(branch, Leaf) and branch.row == "null")]
        return len(rest) == 1 and _can_be_key(rest[0])
    return isinstance(node, Leaf) and node.row in _KEY_ROWS
