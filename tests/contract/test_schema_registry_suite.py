"""One behaviour, two registries: the folder and the real server answer the same questions in the same way."""

from __future__ import annotations

import json
import os
import threading
import uuid
from typing import TYPE_CHECKING, Any

import pytest

from postroom.libs.exceptions import (
    IncompatibleSchemaError,
    InvalidSchemaError,
    LifecycleError,
    SchemaRegistryError,
    SubjectNotFoundError,
)
from postroom.schemas.registration import Registration, register_and_read_back
from postroom.schemas.registry_protocol import Version
from postroom.schemas.schema_references import Reference
from postroom.schemas.schema_registry_client import Compatibility, RegisteredSchema, SchemaRegistryClient

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator
    from pathlib import Path


def record(name: str, *fields: str) -> str:
    """A record schema whose fields are ints with a default."""
    return json.dumps(
        {"type": "record", "name": name, "fields": [{"name": f, "type": "int", "default": 0} for f in fields]}
    )


ONE = record("Play", "a")
TWO = record("Play", "a", "b")


@pytest.fixture(params=["folder", pytest.param("server", marks=pytest.mark.kafka)])
def address(request: pytest.FixtureRequest, tmp_path: Path) -> str:
    """Where the registry is."""
    if request.param == "folder":
        return str(tmp_path / "registry")
    return str(request.getfixturevalue("postroom_stack").registry_url)


@pytest.fixture
def client(address: str) -> Iterator[SchemaRegistryClient]:
    with SchemaRegistryClient(address) as registry:
        yield registry


@pytest.fixture
def subject() -> str:
    """A subject that nobody used before: the server is shared."""
    return f"plays-{uuid.uuid4().hex[:12]}-value"


@pytest.fixture
def unique() -> Callable[[str], str]:
    """A schema that nobody registered before, with a field of a chosen name."""
    name = f"R{uuid.uuid4().hex[:12]}"
    return lambda field: record(name, field)


class TestRegistering:
    def test_a_registered_schema_is_found_by_subject_by_version_and_by_id(
        self, client: SchemaRegistryClient, subject: str
    ) -> None:
        schema_id = client.register(subject, ONE)
        versions: tuple[Version, ...] = ("latest", 1)
        for version in versions:
            found = client.get_schema(subject, version)
            assert (found.subject, found.version, found.schema_id) == (subject, 1, schema_id)
            assert json.loads(found.schema) == json.loads(ONE)
        assert json.loads(client.by_id(schema_id)) == json.loads(ONE)
        assert client.lookup(subject, ONE) == schema_id
        assert client.versions(subject) == (1,)
        assert subject in client.subjects()
        assert isinstance(found, RegisteredSchema)

    def test_registering_again_changes_nothing(self, client: SchemaRegistryClient, subject: str) -> None:
        first = client.register(subject, ONE)
        assert client.register(subject, ONE) == first
        assert client.register(subject, ONE, normalize=True) == first
        assert client.versions(subject) == (1,)

    def test_spaces_and_the_order_of_keys_make_no_new_schema(self, client: SchemaRegistryClient, subject: str) -> None:
        first = client.register(subject, ONE)
        reordered = json.dumps(dict(reversed(json.loads(ONE).items())), indent=3)
        assert client.register(subject, reordered) == first
        assert client.lookup(subject, reordered) == first

    def test_another_schema_is_another_version_with_another_id(
        self, client: SchemaRegistryClient, subject: str
    ) -> None:
        first, second = client.register(subject, ONE), client.register(subject, TWO)
        assert first != second
        assert client.versions(subject) == (1, 2)
        assert client.get_schema(subject).schema_id == second
        assert client.get_schema(subject, 1).schema_id == first

    def test_an_older_version_registered_again_stays_the_older_version(
        self, client: SchemaRegistryClient, subject: str
    ) -> None:
        first, second = client.register(subject, ONE), client.register(subject, TWO)
        assert client.register(subject, ONE) == first
        assert client.versions(subject) == (1, 2)
        assert client.get_schema(subject).schema_id == second

    def test_the_same_schema_has_one_id_in_all_subjects(self, client: SchemaRegistryClient, subject: str) -> None:
        assert client.register(subject, ONE) == client.register(f"other-{subject}", ONE)

    @pytest.mark.parametrize(
        "name", ["a/b c", "ä-ü.日本", "a?b#c", "100%", "%41", "a+b", "semi;colon", ":.context:x", "x" * 200, "..%2f"]
    )
    def test_any_printable_name_is_a_subject(self, client: SchemaRegistryClient, subject: str, name: str) -> None:
        full = f"{name} {subject}"
        schema_id = client.register(full, ONE)
        assert client.get_schema(full).subject == full
        assert client.lookup(full, ONE) == schema_id
        assert full in client.subjects()

    @pytest.mark.parametrize("name", ["", ".", "..", "a\nb", "a\x00", "\ud800", "x" * 1025])
    def test_other_names_are_refused_before_anything_is_asked(self, client: SchemaRegistryClient, name: str) -> None:
        with pytest.raises(SchemaRegistryError, match="no name of a subject"):
            client.register(name, ONE)
        with pytest.raises(SchemaRegistryError, match="no name of a subject"):
            client.get_schema(name)

    @pytest.mark.parametrize(
        "broken",
        [
            "",
            "{",
            "nonsense",
            "17",
            "null",
            '{"type": "record", "name": "X"}',
            '{"type": "recrod", "name": "X", "fields": []}',
            '{"type": "record", "name": "X", "fields": [{"name": "a", "type": "unheard-of"}]}',
            '"\ud800"',
            "[" * 2_000 + "]" * 2_000,
        ],
    )
    def test_what_is_no_avro_schema_is_refused(self, client: SchemaRegistryClient, subject: str, broken: str) -> None:
        with pytest.raises(InvalidSchemaError) as caught:
            client.register(subject, broken)
        assert not caught.value.retriable
        with pytest.raises(SubjectNotFoundError):
            client.versions(subject)

    def test_a_schema_of_more_than_a_mebibyte_is_refused(self, client: SchemaRegistryClient, subject: str) -> None:
        with pytest.raises(SchemaRegistryError, match="1048576 bytes"):
            client.register(subject, record("x" * 1_048_577, "a"))

    def test_many_threads_register_the_same_and_different_schemas_at_once(
        self, client: SchemaRegistryClient, subject: str
    ) -> None:
        schemas = [record("Race", f"f{number % 5}") for number in range(20)]
        ids: dict[int, int] = {}

        def register(number: int) -> None:
            ids[number] = client.register(f"{subject}-{number % 5}", schemas[number])

        threads = [threading.Thread(target=register, args=(number,)) for number in range(20)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
        assert len(ids) == 20
        assert len(set(ids.values())) == 5
        for number, schema_id in ids.items():
            assert json.loads(client.by_id(schema_id)) == json.loads(schemas[number])
            assert client.versions(f"{subject}-{number % 5}") == (1,)


class TestFinding:
    def test_a_topic_s_name_finds_the_subject_of_its_values(self, client: SchemaRegistryClient, subject: str) -> None:
        topic = subject.removesuffix("-value")
        schema_id = client.register(subject, ONE)
        assert client.get_schema(topic).subject == subject
        assert client.get_schema(topic, 1).schema_id == schema_id

    def test_a_subject_of_exactly_that_name_goes_first(self, client: SchemaRegistryClient, subject: str) -> None:
        topic = subject.removesuffix("-value")
        client.register(subject, ONE)
        client.register(topic, TWO)
        assert client.get_schema(topic).subject == topic
        with pytest.raises(SubjectNotFoundError):
            client.get_schema(topic, 2)

    def test_an_unknown_name_is_said_with_both_subjects_that_were_tried(
        self, client: SchemaRegistryClient, subject: str
    ) -> None:
        with pytest.raises(SubjectNotFoundError, match=f"neither a subject {subject} nor {subject}-value"):
            client.get_schema(subject)

    def test_unknown_things_are_subject_not_found_errors(self, client: SchemaRegistryClient, subject: str) -> None:
        with pytest.raises(SubjectNotFoundError):
            client.versions(subject)
        with pytest.raises(SubjectNotFoundError):
            client.lookup(subject, ONE)
        client.register(subject, ONE)
        with pytest.raises(SubjectNotFoundError):
            client.get_schema(subject, 2)
        with pytest.raises(SubjectNotFoundError):
            client.lookup(subject, TWO)
        with pytest.raises(SubjectNotFoundError):
            client.by_id(4_000_000_000)

    @pytest.mark.parametrize("version", [0, -1, True, 1.0, "newest", None])
    def test_what_is_no_version_is_never_found(
        self, client: SchemaRegistryClient, subject: str, version: object
    ) -> None:
        client.register(subject, ONE)
        with pytest.raises(SubjectNotFoundError):
            client.get_schema(subject, version)  # type: ignore[arg-type]  # on purpose

    @pytest.mark.parametrize("schema_id", [-1, True, 1.0, "1", 1 << 32, 10**30])
    def test_what_is_no_id_is_never_found(self, client: SchemaRegistryClient, schema_id: object) -> None:
        with pytest.raises(SubjectNotFoundError):
            client.by_id(schema_id)  # type: ignore[arg-type]  # on purpose

    def test_latest_is_asked_for_anew(self, client: SchemaRegistryClient, address: str, subject: str) -> None:
        client.register(subject, ONE)
        assert client.get_schema(subject).version == 1
        with SchemaRegistryClient(address) as another:
            another.register(subject, TWO)
        assert client.get_schema(subject).version == 2

    def test_a_second_client_sees_what_the_first_registered(
        self, client: SchemaRegistryClient, address: str, subject: str, unique: Callable[[str], str]
    ) -> None:
        schema_id = client.register(subject, unique("a"))
        with SchemaRegistryClient(address) as another:
            assert json.loads(another.by_id(schema_id)) == json.loads(unique("a"))


class TestLife:
    def test_a_closed_client_says_so(self, client: SchemaRegistryClient) -> None:
        client.subjects()
        client.close()
        client.close()
        with pytest.raises(LifecycleError, match="closed"):
            client.subjects()

    @pytest.mark.filterwarnings("ignore:.*fork.*:DeprecationWarning")
    def test_a_client_works_in_a_forked_child(self, client: SchemaRegistryClient, subject: str) -> None:
        client.register(subject, ONE)
        pid = os.fork()
        if pid == 0:
            try:
                client.register(subject, TWO)
            finally:
                os._exit(0)
        os.waitpid(pid, 0)
        assert client.versions(subject) == (1, 2)


def order(*fields: dict[str, Any]) -> str:
    return json.dumps({"type": "record", "name": "Order", "fields": list(fields)})


A: dict[str, Any] = {"name": "a", "type": "int"}
B: dict[str, Any] = {"name": "b", "type": "int"}
B_LONG = {"name": "b", "type": "long", "default": 0}
B_INT = {"name": "b", "type": "int", "default": 0}
B_TEXT = {"name": "b", "type": "string", "default": ""}


class TestCompatibility:
    @pytest.mark.parametrize(
        ("level", "new", "fits"),
        [
            ("BACKWARD", order(A, B_INT), True),
            ("BACKWARD", order(A, B), False),
            ("BACKWARD", order(), True),
            ("FORWARD", order(A, B), True),
            ("FORWARD", order(), False),
            ("FULL", order(A, B_INT), True),
            ("FULL", order(A, B), False),
            ("FULL", order({"name": "a", "type": "long"}), False),
            ("NONE", order(B), True),
        ],
    )
    def test_a_successor_is_judged_as_the_rule_asks_and_refused_when_it_breaks_it(
        self, client: SchemaRegistryClient, subject: str, level: str, new: str, fits: bool
    ) -> None:
        client.register(subject, order(A))
        client.set_compatibility(subject, level)
        assert client.get_compatibility(subject) is Compatibility(level)
        assert client.check_compatibility(subject, new) is fits
        assert client.check_compatibility(subject, new, 1) is fits
        if fits:
            client.register(subject, new)
            assert client.versions(subject) == (1, 2)
        else:
            with pytest.raises(IncompatibleSchemaError) as caught:
                client.register(subject, new)
            assert not caught.value.retriable
            assert client.versions(subject) == (1,)

    @pytest.mark.parametrize(("level", "fits"), [("BACKWARD", True), ("BACKWARD_TRANSITIVE", False)])
    def test_a_transitive_rule_looks_at_all_versions(
        self, client: SchemaRegistryClient, subject: str, level: str, fits: bool
    ) -> None:
        for schema in (order(A), order(A, B_TEXT), order(A, B_INT)):
            client.register(subject, schema)
        client.set_compatibility(subject, level)
        new = order(A, B_LONG)
        assert client.check_compatibility(subject, new, 1) is True
        assert client.check_compatibility(subject, new, 2) is False
        assert client.check_compatibility(subject, new, 3) is True
        assert client.check_compatibility(subject, new) is fits
        if fits:
            client.register(subject, new)
        else:
            with pytest.raises(IncompatibleSchemaError):
                client.register(subject, new)

    def test_without_a_rule_everything_may_follow(self, client: SchemaRegistryClient, subject: str) -> None:
        client.register(subject, order(A))
        assert client.get_compatibility(subject) is Compatibility.NONE
        assert client.check_compatibility(subject, order(B)) is True
        assert client.check_compatibility(subject, order(B), 1) is True
        client.register(subject, order(B))

    def test_what_a_subject_has_already_is_not_judged_again(self, client: SchemaRegistryClient, subject: str) -> None:
        first = client.register(subject, order(A))
        client.register(subject, order(A, B))
        client.set_compatibility(subject, "FULL_TRANSITIVE")
        assert client.register(subject, order(A)) == first

    def test_a_rule_given_before_the_first_schema_holds_from_the_second_on(
        self, client: SchemaRegistryClient, subject: str
    ) -> None:
        client.set_compatibility(subject, "BACKWARD")
        client.register(subject, order(A))
        assert client.get_compatibility(subject) is Compatibility.BACKWARD
        with pytest.raises(IncompatibleSchemaError):
            client.register(subject, order(A, B))

    def test_a_subject_s_own_rule_is_told_from_none(self, client: SchemaRegistryClient, subject: str) -> None:
        assert client.own_compatibility(subject) in {None, Compatibility.NONE}
        client.register(subject, order(A))
        assert client.own_compatibility(subject) in {None, Compatibility.NONE}
        client.set_compatibility(subject, "FORWARD")
        assert client.own_compatibility(subject) is Compatibility.FORWARD

    def test_a_version_that_is_not_there_is_not_judged(self, client: SchemaRegistryClient, subject: str) -> None:
        client.register(subject, order(A))
        with pytest.raises(SubjectNotFoundError):
            client.check_compatibility(subject, order(A, B), 7)

    def test_an_unheard_of_rule_is_refused(self, client: SchemaRegistryClient, subject: str) -> None:
        with pytest.raises(ValueError, match="SIDEWAYS"):
            client.set_compatibility(subject, "SIDEWAYS")


class TestReferences:
    def test_a_type_under_a_subject_of_its_own_is_referred_to(self, client: SchemaRegistryClient, subject: str) -> None:
        enum = json.dumps({"type": "enum", "name": f"a.E{uuid.uuid4().hex[:8]}", "symbols": ["X", "Y"]})
        name = json.loads(enum)["name"]
        client.register(f"e-{subject}", enum)
        play = {"type": "record", "name": "Play", "fields": [{"name": n, "type": name} for n in ("one", "two")]}
        registration = Registration(json.dumps(play), (Reference(name, f"e-{subject}", 1, enum),))
        schema_id = client.register(subject, registration)
        assert client.register(subject, registration) == schema_id
        assert client.lookup(subject, registration) == schema_id
        assert client.get_schema(subject).schema_id == schema_id
        whole = json.loads(client.by_id(schema_id))
        assert whole["fields"][0]["type"]["symbols"] == ["X", "Y"]
        assert whole["fields"][1]["type"] == name

    def test_another_schema_in_the_file_than_in_the_registry_is_refused(
        self, client: SchemaRegistryClient, subject: str
    ) -> None:
        enum = json.dumps({"type": "enum", "name": "a.E", "symbols": ["X", "Y"]})
        client.register(f"e-{subject}", json.dumps({"type": "enum", "name": "a.E", "symbols": ["Y", "X"]}))
        play = {"type": "record", "name": "Play", "fields": [{"name": "one", "type": "a.E"}]}
        with pytest.raises(SchemaRegistryError, match="another schema"):
            client.register(subject, Registration(json.dumps(play), (Reference("a.E", f"e-{subject}", 1, enum),)))
        with pytest.raises(SubjectNotFoundError):
            client.versions(subject)


class TestWhatIsKept:
    def test_metadata_and_rules_that_are_dropped_are_named(self, client: SchemaRegistryClient, subject: str) -> None:
        registration = Registration(
            ONE,
            metadata={"properties": {"owner": "team"}},
            rule_set={
                "domainRules": [{"name": "r", "kind": "CONDITION", "mode": "WRITE", "type": "CEL", "expr": "true"}]
            },
        )
        got = register_and_read_back(client, subject, registration)
        assert got.schema_id == client.lookup(subject, ONE)
        assert got.dropped == ("metadata.properties", "ruleSet.domainRules")

    def test_normalised_and_as_it_is_are_the_same_schema(self, client: SchemaRegistryClient, subject: str) -> None:
        spelled = '{"type": "record", "name": "Play", "fields": [{"name": "a", "type": {"type": "int"}, "default": 0}]}'
        first = client.register(subject, Registration(spelled))
        assert client.lookup(subject, Registration(spelled)) == first
        assert client.lookup(subject, spelled) == first
