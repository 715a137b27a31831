"""What every kind of Schema Registry can be asked, and the words in which it answers."""

from __future__ import annotations

from dataclasses import dataclass, field
from enum import StrEnum
from typing import TYPE_CHECKING, Any, Literal, Protocol, TypeAlias

from postroom.libs.exceptions import SchemaRegistryError, SubjectNotFoundError

if TYPE_CHECKING:
    from collections.abc import Mapping

    from postroom.schemas.registration import Registration

Version: TypeAlias = int | Literal["latest"]
"""A subject's version: 1 and up, or the word `latest`."""

MAX_SCHEMA_BYTES = 1024 * 1024
"""The longest schema text that is registered."""

_MAX_SUBJECT_CHARACTERS = 1024


@dataclass(frozen=True, slots=True)
class RegisteredSchema:
    """A schema as a registry holds it. `schema` is its JSON text, `schema_id` the number in every record.

    `metadata` and `rule_set` are Confluent's, None where the registry holds none. With `has_references` the text names
    types that stand under other subjects.
    """

    subject: str
    version: int
    schema_id: int
    schema: str
    metadata: Mapping[str, Any] | None = field(default=None, hash=False)
    rule_set: Mapping[str, Any] | None = field(default=None, hash=False)
    has_references: bool = False


class Compatibility(StrEnum):
    """What a new version of a subject must be able to do with the data of the old ones (Confluent's words)."""

    NONE = "NONE"
    BACKWARD = "BACKWARD"
    BACKWARD_TRANSITIVE = "BACKWARD_TRANSITIVE"
    FORWARD = "FORWARD"
    FORWARD_TRANSITIVE = "FORWARD_TRANSITIVE"
    FULL = "FULL"
    FULL_TRANSITIVE = "FULL_TRANSITIVE"


class Registry(Protocol):
    """A Schema Registry, far or near. Every method may raise a SchemaRegistryError; see `SchemaRegistryClient`."""

    def get(self, subject: str, version: Version) -> RegisteredSchema | None:
        """That version, or None when there is no such subject. A missing version raises SubjectNotFoundError."""
        ...

    def register(self, subject: str, registration: Registration) -> int:
        """Make the schema the subject's latest unless it has it already; its id."""
        ...

    def lookup(self, subject: str, registration: Registration) -> RegisteredSchema:
        """The version of the subject that has this schema. Raises SchemaRegistryError for an answer of another one."""
        ...

    def by_id(self, schema_id: int) -> str:
        """The text of the schema with that id, with all that it refers to in it."""
        ...

    def versions(self, subject: str) -> tuple[int, ...]:
        """The numbers of the subject's versions, rising."""
        ...

    def subjects(self) -> tuple[str, ...]:
        """All subjects, sorted."""
        ...

    def check_compatibility(self, subject: str, registration: Registration, version: Version) -> bool:
        """Whether the schema may follow that one version under the subject's rule, transitive or not."""
        ...

    def get_compatibility(self, subject: str) -> Compatibility:
        """The rule that holds for the subject."""
        ...

    def own_compatibility(self, subject: str) -> Compatibility | None:
        """The rule that the subject itself was given; None when it has none, or is not there."""
        ...

    def set_compatibility(self, subject: str, level: Compatibility) -> None:
        """Give the subject a rule."""
        ...

    def prepare(self) -> None:
        """Have everything that a first question needs, without asking one."""
        ...

    def close(self) -> None:
        """Let go of what is held. Asking afterwards is an error."""
        ...


def subject_name(strategy: str, topic: str, record_name: str) -> str:
    """The subject under which the schema of a topic's values stands, by Confluent's three strategies.

    `strategy` is `topic_name`, `record_name` or `topic_record_name`; `record_name` is the record's full name.
    Raises ValueError for another strategy.
    """
    if strategy == "topic_name":
        return f"{topic}-value"
    if strategy == "record_name":
        return record_name
    if strategy == "topic_record_name":
        return f"{topic}-{record_name}"
    raise ValueError("a subject name strategy is topic_name, record_name or topic_record_name")


def check_subject(subject: str) -> str:
    """The subject itself, if it can be one. Raises SchemaRegistryError when it is no name."""
    if not subject or len(subject) > _MAX_SUBJECT_CHARACTERS or not subject.isprintable() or subject in {".", ".."}:
        raise SchemaRegistryError(
            "That is no name of a subject", remedy="use 1 to 1024 printable characters, and not just dots"
        )
    return subject


def check_version(version: Version) -> Version:
    """The version itself, if it can be one. Raises SubjectNotFoundError when no subject can have it."""
    if version == "latest" or (type(version) is int and version >= 1):  # a bool is an int, and no version
        return version
    raise SubjectNotFoundError("No subject has such a version", remedy="ask for 1 and up, or for latest")
