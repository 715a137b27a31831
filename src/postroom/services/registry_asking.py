"""What the pipeline asks a Schema Registry for, and with how much patience."""

from __future__ import annotations

import threading
from typing import TYPE_CHECKING, NamedTuple, Protocol, TypeVar

from postroom.libs.exceptions import RegistryUnavailableError

if TYPE_CHECKING:
    from collections.abc import Callable

    from postroom.schemas.registration import Registration
    from postroom.schemas.registry_protocol import RegisteredSchema

_T = TypeVar("_T")


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


class Bounded:
    """A registry whose every answer is there within `patience_s` seconds, or RegistryUnavailableError.

    A client's own limit does not hold while the operating system looks up the name of the server, which takes half a
    minute where no name server answers, and cannot be interrupted: the question is left to a thread of its own.
    """

    def __init__(self, registry: Registry, patience_s: float) -> None:
        self._registry = registry
        self._patience_s = patience_s

    def lookup(self, subject: str, schema: Registration) -> int:
        """Return the id of a schema that is registered under `subject`."""
        return self._within(lambda: self._registry.lookup(subject, schema))

    def register(self, subject: str, schema: Registration) -> int:
        """Register the schema under `subject` and return its id."""
        return self._within(lambda: self._registry.register(subject, schema))

    def kept(self, subject: str, schema: Registration) -> RegisteredSchema:
        """Return the version of the subject that has this schema, as the registry holds it."""
        return self._within(lambda: self._registry.kept(subject, schema))

    def close(self) -> None:
        """Let go of connections."""
        self._registry.close()

    def _within(self, question: Callable[[], _T]) -> _T:
        answers: list[_T] = []
        errors: list[BaseException] = []

        def ask() -> None:
            try:
                answers.append(question())
            except BaseException as exc:  # noqa: BLE001 - raised again by who asked
                errors.append(exc)

        thread = threading.Thread(target=ask, name="postroom-registry-start", daemon=True)
        thread.start()
        thread.join(self._patience_s)
        if errors:
            raise errors[0]
        if not answers:
            raise RegistryUnavailableError(
                f"The Schema Registry did not answer within {self._patience_s:g} s",
                remedy="check that it runs, and that its name can be looked up",
            )
        return answers[0]
