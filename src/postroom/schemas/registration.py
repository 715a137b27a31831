"""What is sent to a Schema Registry for a contract, and whether what it says back is the same."""

from __future__ import annotations

import hashlib
import json
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, Protocol

from postroom.libs.exceptions import SchemaRegistryError
from postroom.schemas.registry_protocol import subject_name
from postroom.schemas.schema_references import Reference, parsing_form, with_references

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping

    from postroom.libs.config_loader import Config
    from postroom.schemas.data_contracts import Contract
    from postroom.schemas.registry_protocol import RegisteredSchema


@dataclass(frozen=True, slots=True)
class Registration:
    """A schema as a registry is to hold it: its JSON text, what it refers to, Confluent's metadata and rules.

    With `normalize` the registry treats schemas that mean the same as the same.
    """

    schema: str
    references: tuple[Reference, ...] = ()
    metadata: Mapping[str, Any] | None = field(default=None, hash=False)
    rule_set: Mapping[str, Any] | None = field(default=None, hash=False)
    normalize: bool = True

    @property
    def fingerprint(self) -> str:
        """SHA-256 of the schema and of all it refers to, in hexadecimal: what an id stands for."""
        digest = hashlib.sha256()
        for part in self._parts():
            data = part.encode()
            digest.update(len(data).to_bytes(8, "big") + data)
        return digest.hexdigest()

    def _parts(self) -> Iterator[str]:
        yield self.schema
        for one in self.references:
            yield from (one.name, one.subject, str(one.version), one.schema)

    def question(self) -> dict[str, Any]:
        """The body that asks for this schema: what gives a schema its id."""
        body: dict[str, Any] = {"schema": self.schema}
        if self.references:
            body["references"] = [one.as_json() for one in self.references]
        return body

    def body(self) -> dict[str, Any]:
        """The body that registers it: the metadata and the rules go along."""
        extras = {"metadata": self.metadata, "ruleSet": self.rule_set}
        return self.question() | {name: value for name, value in extras.items() if value}

    def complete_schema(self) -> Any:
        """The schema in JSON form with all that it refers to in it. Raises ValueError for a text that is no JSON."""
        return with_references(json.loads(self.schema), self.references)

    def check_is(self, text: str) -> None:
        """Return if `text`, which a registry sent for this schema, is the same. Raises SchemaRegistryError.

        The same is what has the same parsing canonical form (Avro 1.12, "Parsing Canonical Form for Schemas"): what is
        written under the one is read under the other.
        """
        try:
            found = parsing_form(with_references(json.loads(text), self.references))
            same = found == parsing_form(self.complete_schema())
        except (ValueError, LookupError, TypeError, AttributeError, RecursionError):  # it is no schema at all
            same = False
        if not same:
            raise SchemaRegistryError(
                "The Schema Registry answers with another schema than the one that was asked for",
                remedy="check schema_registry.url: something that is no registry may answer there",
            )


def subject_of(contract: Contract, config: Config) -> str:
    """Return the subject under which the schema of a contract stands with these settings."""
    strategy = config.schema_registry.subject_strategy
    return subject_name(strategy, config.topic(contract.topic), contract.record_name)


def registration_of(contract: Contract) -> Registration:
    """What a registry is to hold for the contract: its schema with references, metadata and rules."""
    rules = [rule.as_json() for rule in contract.rules]
    return Registration(
        contract.schema_json,
        contract.references,
        metadata=contract.metadata.as_json() or None,
        rule_set={"domainRules": rules} if rules else None,
    )


def as_registration(schema: str | Registration, *, normalize: bool = False) -> Registration:
    """The registration itself, or one of a schema's text alone."""
    return schema if isinstance(schema, Registration) else Registration(schema, normalize=normalize)


class Registers(Protocol):
    """What registering needs of a registry client."""

    def register(self, subject: str, schema: Registration) -> int:
        """Register the schema under `subject` and return its id."""
        ...

    def kept(self, subject: str, schema: Registration) -> RegisteredSchema:
        """Return the version of the subject that has this schema, as the registry holds it."""
        ...


@dataclass(frozen=True, slots=True)
class Registered:
    """The id that a registry gave, and which parts of the metadata and rules it did not keep: `metadata.tags`, ..."""

    schema_id: int
    dropped: tuple[str, ...] = ()


def register_and_read_back(registry: Registers, subject: str, registration: Registration) -> Registered:
    """Register it, and look what the registry made of its metadata and rules: some answer 200 and drop them."""
    schema_id = registry.register(subject, registration)
    if not (registration.metadata or registration.rule_set):
        return Registered(schema_id)
    return Registered(schema_id, dropped_parts(registration, registry.kept(subject, registration)))


def dropped_parts(sent: Registration, kept: RegisteredSchema) -> tuple[str, ...]:
    """Which parts of the metadata and rules the registry does not hold as they were sent: `metadata.tags`, ...

    What it adds of its own does not matter.
    """
    return tuple(
        f"{name}.{part}"
        for name, wanted, found in (
            ("metadata", sent.metadata, kept.metadata),
            ("ruleSet", sent.rule_set, kept.rule_set),
        )
        for part, value in (wanted or {}).items()
        if not _holds((found or {}).get(part), value)
    )


def _holds(found: object, wanted: object) -> bool:
    if isinstance(wanted, dict):
        return isinstance(found, dict) and all(_holds(found.get(name), value) for name, value in wanted.items())
    if isinstance(wanted, list):
        if not isinstance(found, list) or len(found) != len(wanted):
            return False
        if all(isinstance(one, str) for one in (*wanted, *found)):  # tags: a set
            return set(wanted) == set(found)
        return all(_holds(one, other) for one, other in zip(found, wanted, strict=True))
    return found == wanted
