"""What only a real Schema Registry can show: its refusals, and its absence."""

from __future__ import annotations

import json
import uuid
from typing import TYPE_CHECKING

import pytest

from postroom.libs.exceptions import (
    IncompatibleSchemaError,
    InvalidSchemaError,
    RegistryUnavailableError,
    SchemaRegistryError,
    SubjectNotFoundError,
)
from postroom.libs.settings import SchemaRegistrySettings
from postroom.schemas.schema_registry_client import Compatibility, SchemaRegistryClient

if TYPE_CHECKING:
    from collections.abc import Iterator

    from postroom.testing.local_stack import LocalStack


def play(*fields: dict[str, object]) -> str:
    return json.dumps({"type": "record", "name": "Play", "fields": [{"name": "user", "type": "string"}, *fields]})


FIRST = play()
GOOD = play({"name": "device", "type": "string", "default": ""})
BAD = play({"name": "country", "type": "string"})


@pytest.fixture
def client(stack: LocalStack) -> Iterator[SchemaRegistryClient]:
    """Impatient, so that a registry that is away shows soon."""
    settings = SchemaRegistrySettings(url=stack.registry_url, timeout_s=1.0, retries=1)
    stack.restore()
    with SchemaRegistryClient(settings=settings) as registry:
        yield registry
    stack.restore()


@pytest.fixture
def subject() -> str:
    return f"plays-{uuid.uuid4().hex[:12]}-value"


def test_a_successor_that_breaks_the_rule_is_refused_with_the_place(client: SchemaRegistryClient, subject: str) -> None:
    client.register(subject, FIRST)
    client.set_compatibility(subject, Compatibility.BACKWARD)
    assert client.check_compatibility(subject, GOOD) is True
    assert client.check_compatibility(subject, GOOD, 1) is True
    assert client.check_compatibility(subject, BAD) is False
    with pytest.raises(IncompatibleSchemaError, match="/fields/1") as caught:
        client.register(subject, BAD)
    assert not caught.value.retriable
    assert client.versions(subject) == (1,)


def test_a_subject_without_a_rule_has_the_registry_s(client: SchemaRegistryClient, subject: str) -> None:
    client.register(subject, FIRST)
    assert client.get_compatibility(subject) in set(Compatibility)
    with pytest.raises(SubjectNotFoundError):
        client.get_compatibility(f"no-{subject}")


def test_a_broken_schema_is_refused_when_it_is_judged_too(client: SchemaRegistryClient, subject: str) -> None:
    client.register(subject, FIRST)
    with pytest.raises(InvalidSchemaError):
        client.check_compatibility(subject, '{"type": "record"}')


def test_a_path_that_is_no_registry_s_is_said_with_the_remedy(stack: LocalStack) -> None:
    with SchemaRegistryClient(f"http://127.0.0.1:{stack.registry.port}") as registry:
        with pytest.raises(SchemaRegistryError, match="/apis/ccompat/v7") as caught:
            registry.get_schema("user_events")
        assert not isinstance(caught.value, SubjectNotFoundError)


def test_a_killed_registry_is_unavailable_and_what_was_asked_before_is_still_known(
    stack: LocalStack, client: SchemaRegistryClient, subject: str
) -> None:
    schema_id = client.register(subject, FIRST)
    text = client.by_id(schema_id)
    stack.registry.kill()
    with pytest.raises(RegistryUnavailableError, match="could not be asked") as caught:
        client.get_schema(subject)
    assert caught.value.retriable
    assert client.by_id(schema_id) == text
    stack.registry.start()
    assert client.get_schema(subject).schema_id == schema_id


def test_a_frozen_registry_is_unavailable_in_time(
    stack: LocalStack, client: SchemaRegistryClient, subject: str
) -> None:
    client.register(subject, FIRST)
    stack.registry.pause()
    with pytest.raises(RegistryUnavailableError, match="within 1 s"):
        client.versions(subject)
    stack.registry.resume()
    assert client.versions(subject) == (1,)
