"""Reads the answers of a Schema Registry with suspicion: what is not as it should be becomes a typed error."""

from __future__ import annotations

import json
from dataclasses import dataclass
from typing import Any, TypeVar

from postroom.libs.exceptions import (
    IncompatibleSchemaError,
    InvalidSchemaError,
    RegistryAuthError,
    SchemaRegistryError,
    SubjectNotFoundError,
    UnsupportedByRegistryError,
)
from postroom.schemas.registry_protocol import RegisteredSchema
from postroom.schemas.schema_references import MOST_REFERENCES

_Element = TypeVar("_Element", int, str)

_MAX_MESSAGE_CHARACTERS = 300
_NOT_A_REGISTRY = (
    "check schema_registry.url: some registries speak Confluent's API under a path, Apicurio under /apis/ccompat/v7"
)

UNKNOWN_SUBJECT, UNKNOWN_VERSION, UNKNOWN_SCHEMA, NO_RULE_OF_ITS_OWN, INVALID_SCHEMA = 40401, 40402, 40403, 40408, 42201
"""Error codes of Confluent's REST API."""


@dataclass(frozen=True, slots=True)
class Answer:
    """A complete answer: HTTP status, content type and body."""

    status: int
    content_type: str
    body: bytes

    def json(self) -> object:
        """The body as JSON. Raises SchemaRegistryError when it is none or does not say that it is."""
        if "json" not in self.content_type.lower():
            raise SchemaRegistryError(
                "What answered is no Schema Registry: it did not send JSON", remedy=_NOT_A_REGISTRY
            )
        try:
            return json.loads(self.body)
        except (ValueError, RecursionError):
            raise SchemaRegistryError("The Schema Registry's answer is broken JSON") from None

    def error(self) -> tuple[int, str]:
        """The registry's own error code and message; the HTTP status and nothing when it sends none."""
        try:
            data = self.json()
        except SchemaRegistryError:
            return self.status, ""
        if not isinstance(data, dict):
            return self.status, ""
        code, message = data.get("error_code"), data.get("message")
        text = message if isinstance(message, str) else ""
        shown = "".join(letter if letter.isprintable() else " " for letter in text[:_MAX_MESSAGE_CHARACTERS])
        return (code if isinstance(code, int) and not isinstance(code, bool) else self.status), shown


def is_unknown_subject(answer: Answer) -> bool:
    """Whether the registry says that there is no such subject, in distinction to no such version."""
    return answer.status == 404 and answer.error()[0] == UNKNOWN_SUBJECT


def is_unknown_schema(answer: Answer) -> bool:
    """Whether the registry says that the subject is there and does not have this schema."""
    return answer.status == 404 and answer.error()[0] == UNKNOWN_SCHEMA


def error_from(answer: Answer, what: str, url: str) -> SchemaRegistryError:
    """The error that an answer other than 200 stands for. `what` names what was asked for."""
    code, message = answer.error()
    if answer.status in {401, 403}:
        return RegistryAuthError(
            f"The Schema Registry at {url} refuses access (HTTP {answer.status})",
            remedy="check schema_registry.username and password, or the client certificate, and its rights",
        )
    if code in {UNKNOWN_SUBJECT, UNKNOWN_VERSION, UNKNOWN_SCHEMA}:
        return SubjectNotFoundError(f"The Schema Registry does not have {what} ({code})")
    if answer.status == 409:
        return IncompatibleSchemaError(
            f"The Schema Registry refuses the schema for {what}: it breaks the compatibility rule. It says: {message}"
        )
    if code == INVALID_SCHEMA:
        return InvalidSchemaError(f"The Schema Registry cannot read the schema for {what}. It says: {message}")
    if answer.status in {405, 501}:
        return UnsupportedByRegistryError(f"The Schema Registry cannot do that (HTTP {answer.status})")
    said = f", error {code}: {message}" if message else ""
    return SchemaRegistryError(
        f"The Schema Registry at {url} answered HTTP {answer.status} when asked for {what}{said}",
        remedy=_NOT_A_REGISTRY if answer.status == 404 else "",
    )


def _field(data: object, name: str) -> object:
    if not isinstance(data, dict) or name not in data:
        raise SchemaRegistryError(f"The Schema Registry's answer lacks `{name}`", remedy=_NOT_A_REGISTRY)
    return data[name]


def whole_number_field(data: object, name: str) -> int:
    """The field `name`, which must be a whole number from 0 to 2^32-1."""
    value = _field(data, name)
    if isinstance(value, bool) or not isinstance(value, int) or not 0 <= value < 1 << 32:
        raise SchemaRegistryError(f"The Schema Registry's answer has a `{name}` that is no number of a schema")
    return value


def text_field(data: object, name: str) -> str:
    """The field `name`, which must be text."""
    value = _field(data, name)
    if not isinstance(value, str):
        raise SchemaRegistryError(f"The Schema Registry's answer has a `{name}` that is no text")
    return value


def boolean_field(data: object, name: str) -> bool:
    """The field `name`, which must be true or false."""
    value = _field(data, name)
    if not isinstance(value, bool):
        raise SchemaRegistryError(f"The Schema Registry's answer has a `{name}` that is neither true nor false")
    return value


def list_of(kind: type[_Element], data: object) -> list[_Element]:
    """The list itself, if all its elements are of that kind."""
    if not isinstance(data, list) or not all(type(element) is kind for element in data):
        raise SchemaRegistryError("The Schema Registry's answer is no list of what was asked for")
    return data


def avro_text(data: object) -> str:
    """The text of a schema. Raises UnsupportedByRegistryError when it is not an Avro one."""
    if isinstance(data, dict) and data.get("schemaType", "AVRO") != "AVRO":
        raise UnsupportedByRegistryError("The Schema Registry holds another kind of schema there than Avro")
    return text_field(data, "schema")


def schema_from(data: object) -> RegisteredSchema:
    """A subject's version. Raises UnsupportedByRegistryError when the schema is not Avro."""
    return RegisteredSchema(
        subject=text_field(data, "subject"),
        version=whole_number_field(data, "version"),
        schema_id=whole_number_field(data, "id"),
        schema=avro_text(data),
        metadata=_mapping_or_none(data, "metadata"),
        rule_set=_mapping_or_none(data, "ruleSet"),
        has_references=bool(references_from(data)),
    )


def _mapping_or_none(data: object, name: str) -> dict[str, Any] | None:
    value = data.get(name) if isinstance(data, dict) else None
    return value if isinstance(value, dict) else None


def references_from(data: object) -> list[tuple[str, str, int]]:
    """What a schema refers to: name, subject and version of each. At most 64."""
    listed = data.get("references") if isinstance(data, dict) else None
    if not listed:
        return []
    if not isinstance(listed, list) or len(listed) > MOST_REFERENCES:
        raise SchemaRegistryError(f"The Schema Registry's answer has no list of at most {MOST_REFERENCES} references")
    return [(text_field(one, "name"), text_field(one, "subject"), whole_number_field(one, "version")) for one in listed]
