"""What the pipeline asks a Schema Registry for, and with how much patience."""

from __future__ import annotations

from typing import TYPE_CHECKING, NamedTuple, Protocol

if TYPE_CHECKING:
    from postroom.schemas.registration import Registration
    from postroom.schemas.registry_protocol import RegisteredSchema


class Registry(Protocol):
    """What the pipeline asks a Schema Registry for."""

    def lookup(self, subject: str, schema: Registration) -> int:
        """Return the id of a schema that is registered under `subject`."""
        ...

    def register(self, subject: str, schema: Registration) -> int:
        """Register the schema under `subject` and return its id."""
        ...

    def kept(self, subject: str, schema: Registration) -> RegisteredSchema:
        """Return the version of the subject that has this schema, as the registry holds it."""
        ...

    def close(self) -> None:
        """Let go of connections."""
        ...


class Askers(NamedTuple):
    """One registry with three kinds of patience."""

    at_start: Registry  # for a contract without a copy: all tries
    with_copy: Registry  # at the start, with a copy in the hand: one short try
    again: Registry  # beside the events: one try
