"""Asks a Schema Registry: a server that speaks Confluent's REST API, or a folder that answers the same questions.

    registry = SchemaRegistryClient()                       # as kafka.yaml says
    registry.get_schema("user_events").schema_id
    SchemaRegistryClient("http://localhost:8081").register("clicks-value", schema_json)
    SchemaRegistryClient("/srv/schemas").subjects()         # a folder

Why not the official client: it caches "latest" for ever or makes every event wait when the registry is slow, it
follows redirects with the credentials, and it reads an answer of any size. Here a question ends within a known
time and memory, and what is kept is kept on purpose: schemas by id, which never change, and nothing else.
"""

from __future__ import annotations

import json
from pathlib import Path
from typing import TYPE_CHECKING, Self

from postroom.libs.clock import SYSTEM_CLOCK, Clock
from postroom.libs.exceptions import (
    ConfigurationError,
    InvalidSchemaError,
    LifecycleError,
    SchemaRegistryError,
    SubjectNotFoundError,
)
from postroom.schemas.registration import Registration, as_registration
from postroom.schemas.registry_protocol import (
    MAX_SCHEMA_BYTES,
    Compatibility,
    RegisteredSchema,
    Registry,
    Version,
    check_subject,
    check_version,
    subject_name,
)

if TYPE_CHECKING:
    from types import TracebackType

    from postroom.libs.settings import SchemaRegistrySettings

__all__ = ["Compatibility", "RegisteredSchema", "SchemaRegistryClient", "subject_name"]

_CACHED_IDS = 10_000


class SchemaRegistryClient:
    """One registry, safe to share between threads and usable in a forked child. Made without asking anything.

    Without arguments it goes where `schema_registry` in the settings says; `settings` is that section read
    before; `url` alone is an http(s) address without credentials, or a folder. Every method may raise:

    RegistryUnavailableError    no answer, after the retries, within `timeout_s` each (or 429, 5xx)
    RegistryAuthError           401, 403, or the server wants a client certificate
    SubjectNotFoundError        no such subject, version or id (40401, 40402, 40403)
    IncompatibleSchemaError     409
    InvalidSchemaError          42201
    UnsupportedByRegistryError  this registry cannot do that
    SchemaRegistryError         any other answer: a redirect, too big, not understandable
    LifecycleError              the client is closed
    """

    def __init__(
        self,
        url: str | Path | None = None,
        *,
        settings: SchemaRegistrySettings | None = None,
        clock: Clock = SYSTEM_CLOCK,
    ) -> None:
        if url is not None and settings is not None:
            raise ConfigurationError("A registry client takes an address or settings, not both")
        self._url = url
        self._settings = settings
        self._clock = clock
        self._registry: Registry | None = None
        self._closed = False
        self._texts: dict[int, str] = {}

    def get_schema(self, name: str, version: Version = "latest") -> RegisteredSchema:
        """The schema of a subject, or of a topic's values.

        `name` is taken as a subject first. If there is no subject of that name, `<name>-value` is asked for,
        which is where a topic's schema stands by default: `get_schema("user_events")` finds
        `user_events-value`. The answer says which subject it was. `latest` is asked for anew each time.
        """
        check_subject(name)
        check_version(version)
        registry = self._connected()
        found = registry.get(name, version) or registry.get(f"{name}-value", version)
        if found is None:
            raise SubjectNotFoundError(
                f"The registry has neither a subject {name} nor {name}-value",
                remedy="register its contract: postroom contracts register",
            )
        if not found.has_references:  # by id it is read with all that it refers to
            self._keep(found.schema_id, found.schema)
        return found

    def register(self, subject: str, schema: str | Registration, *, normalize: bool = False) -> int:
        """Make the schema the latest of the subject and return its id; a schema that it has keeps its id and version.

        With `normalize` the registry treats schemas that mean the same as the same (Confluent's flag). A `Registration`
        says that itself, and more; each of its references must be in the registry with the same schema.
        """
        registration = self._checked(schema, normalize=normalize)
        return self._connected().register(check_subject(subject), registration)

    def lookup(self, subject: str, schema: str | Registration) -> int:
        """The id under which the subject has this schema. Registers nothing.

        Raises SchemaRegistryError too when what the registry shows for it, or for a reference, is another schema.
        """
        return self.kept(subject, schema).schema_id

    def kept(self, subject: str, schema: str | Registration) -> RegisteredSchema:
        """The version of the subject that has this schema, with what the registry holds of metadata and rules."""
        registration = self._checked(schema)
        return self._connected().lookup(check_subject(subject), registration)

    def by_id(self, schema_id: int) -> str:
        """The JSON text of the schema with that id. An id's schema never changes, so it is asked for once."""
        known = self._texts.get(schema_id)
        if known is not None:
            return known
        if type(schema_id) is not int or not 0 <= schema_id < 1 << 32:
            raise SubjectNotFoundError("A schema id is a whole number between 0 and 2^32-1")
        text = self._connected().by_id(schema_id)
        self._keep(schema_id, text)
        return text

    def versions(self, subject: str) -> tuple[int, ...]:
        """The numbers of the subject's versions, rising."""
        return self._connected().versions(check_subject(subject))

    def subjects(self) -> tuple[str, ...]:
        """All subjects, sorted."""
        return self._connected().subjects()

    def check_compatibility(self, subject: str, schema: str | Registration, version: Version = "latest") -> bool:
        """Whether the schema may follow that version under the subject's rule.

        For `latest` under a transitive rule every version is asked about: registries look at one only, and refuse
        later what they said yes to. Under no rule everything may follow: Apicurio judges by BACKWARD then, and
        registers it all the same. Registries differ about a subject that does not exist: true, or
        SubjectNotFoundError.
        """
        registration = self._checked(schema)
        registry, subject = self._connected(), check_subject(subject)
        fits = registry.check_compatibility(subject, registration, check_version(version))
        if fits and version != "latest":
            return True
        rule = self._rule(registry, subject)
        if not fits:
            return rule is Compatibility.NONE
        if not rule.value.endswith("TRANSITIVE"):
            return True
        return all(registry.check_compatibility(subject, registration, one) for one in registry.versions(subject)[:-1])

    def get_compatibility(self, subject: str) -> Compatibility:
        """The rule that holds for the subject: its own, else the registry's."""
        return self._connected().get_compatibility(check_subject(subject))

    def own_compatibility(self, subject: str) -> Compatibility | None:
        """The rule that the subject itself was given; None without one, and for a subject that is not there.

        A server such as Apicurio does not tell NONE from "not said" and may answer NONE for both.
        """
        return self._connected().own_compatibility(check_subject(subject))

    def set_compatibility(self, subject: str, level: Compatibility | str) -> None:
        """Give the subject a rule. Raises ValueError when `level` is none of `Compatibility`."""
        self._connected().set_compatibility(check_subject(subject), Compatibility(level))

    def prepare(self) -> None:
        """Have everything that a first question needs, without asking one. Raises ConfigurationError."""
        self._connected().prepare()

    def close(self) -> None:
        """Let go of connections. Asking afterwards raises LifecycleError."""
        self._closed = True
        if self._registry is not None:
            self._registry.close()

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()

    def _rule(self, registry: Registry, subject: str) -> Compatibility:
        try:
            return registry.get_compatibility(subject)
        except SubjectNotFoundError:  # what a subject without versions has to follow is nothing
            return Compatibility.NONE

    def _checked(self, schema: str | Registration, *, normalize: bool = False) -> Registration:
        """What is sent for the schema, after a look at it and at what it refers to."""
        if not isinstance(schema, Registration):
            _check_schema(schema)
        registration = as_registration(schema, normalize=normalize)
        for one in registration.references:
            found = self._connected().get(check_subject(one.subject), check_version(one.version))
            if found is None:
                raise SubjectNotFoundError(
                    f"The registry has no subject {one.subject}, where {one.name} should stand",
                    remedy="register the referenced schema first",
                )
            others = tuple(other for other in registration.references if other is not one)
            Registration(one.schema, others).check_is(found.schema)
        return registration

    def _keep(self, schema_id: int, text: str) -> None:
        if len(self._texts) < _CACHED_IDS:
            self._texts[schema_id] = text

    def _connected(self) -> Registry:
        """The registry itself, made at the first question. Two threads may make two: the loser's holds nothing yet."""
        if self._closed:
            raise LifecycleError("The registry client is closed")
        if self._registry is None:
            self._registry = self._make_registry()
        return self._registry

    def _make_registry(self) -> Registry:
        settings = self._settings or self._settings_for_url()
        if settings.url == "embedded":
            raise ConfigurationError(
                "schema_registry.url is embedded, which only postroom run knows",
                remedy="name an http(s) address or a folder in schema_registry.url",
            )
        if settings.is_remote:
            from postroom.schemas.http_registry import HttpRegistry

            return HttpRegistry(settings, clock=self._clock)
        from postroom.schemas.folder_registry import FolderRegistry

        return FolderRegistry(Path(settings.url).expanduser(), clock=self._clock)

    def _settings_for_url(self) -> SchemaRegistrySettings:
        from postroom.libs.setting_formats import FormatError, registry_url
        from postroom.libs.settings import SchemaRegistrySettings

        if self._url is None:
            from postroom.libs.config_loader import load_config

            return load_config().schema_registry
        try:
            return SchemaRegistrySettings(url=registry_url(str(self._url)))
        except FormatError as exc:
            raise ConfigurationError(f"The registry's address {exc.what}", remedy=exc.remedy) from None


def _check_schema(schema_json: str) -> None:
    if not isinstance(schema_json, str):
        raise InvalidSchemaError("A schema is handed over as JSON text")
    try:
        size = len(schema_json.encode())
    except UnicodeEncodeError:
        raise InvalidSchemaError("The schema holds half a character (a lone surrogate)") from None
    if size > MAX_SCHEMA_BYTES:
        raise SchemaRegistryError(f"A schema of more than {MAX_SCHEMA_BYTES} bytes is not registered")
    try:
        json.loads(schema_json)
    except (ValueError, RecursionError):
        # Said here, because some servers take an empty text for a schema.
        raise InvalidSchemaError("The schema is no JSON") from None
