"""The registry in a folder keeps what it answered: through crashes, beside other processes, and says when it can't."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from typing import TYPE_CHECKING

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from postroom.libs.exceptions import (
    IncompatibleSchemaError,
    InvalidSchemaError,
    RegistryUnavailableError,
    SchemaRegistryError,
    SubjectNotFoundError,
)
from postroom.schemas.folder_registry import FolderRegistry
from postroom.schemas.registration import as_registration
from postroom.schemas.registry_protocol import Compatibility
from postroom.testing.manual_clock import ManualClock

if TYPE_CHECKING:
    from pathlib import Path

SCHEMAS = [json.dumps({"type": "fixed", "name": "F", "size": size}) for size in range(1, 6)]


def register(folder: Path, subject: str, schema: str) -> int:
    return FolderRegistry(folder).register(subject, as_registration(schema))


class TestKeeping:
    @given(
        calls=st.lists(
            st.tuples(st.sampled_from(["a", "b", "ä/ c"]), st.sampled_from(SCHEMAS), st.booleans()), max_size=25
        )
    )
    @settings(max_examples=40, deadline=None)
    def test_it_answers_as_a_dictionary_of_subjects_would(
        self, calls: list[tuple[str, str, bool]], tmp_path_factory: pytest.TempPathFactory
    ) -> None:
        folder = tmp_path_factory.mktemp("registry")
        ids: dict[str, int] = {}
        subjects: dict[str, list[int]] = {}
        for subject, schema, normalize in calls:
            got = FolderRegistry(folder).register(subject, as_registration(schema, normalize=normalize))
            assert got == ids.setdefault(schema, len(ids) + 1)
            known = subjects.setdefault(subject, [])
            if got not in known:
                known.append(got)
        registry = FolderRegistry(folder)
        assert registry.subjects() == tuple(sorted(subjects))
        for subject, known in subjects.items():
            assert registry.versions(subject) == tuple(range(1, len(known) + 1))
            for version, schema_id in enumerate(known, start=1):
                found = registry.get(subject, version)
                assert found is not None
                assert found.schema_id == schema_id
                assert ids[found.schema] == schema_id
        for schema, schema_id in ids.items():
            assert registry.by_id(schema_id) == schema

    def test_a_folder_that_nobody_wrote_to_is_an_empty_registry_and_stays_absent(self, tmp_path: Path) -> None:
        registry = FolderRegistry(tmp_path / "none")
        assert registry.subjects() == ()
        assert registry.get("a", "latest") is None
        assert not (tmp_path / "none").exists()

    def test_processes_that_register_at_once_lose_nothing(self, tmp_path: Path) -> None:
        script = (
            "import sys; from pathlib import Path\n"
            "from postroom.schemas.folder_registry import FolderRegistry\n"
            "from postroom.schemas.registration import as_registration\n"
            "registry = FolderRegistry(Path(sys.argv[1]))\n"
            "for size in range(1, 21):\n"
            '    schema = \'{"type": "fixed", "name": "F", "size": %d}\' % size\n'
            "    print(registry.register(f's{size}', as_registration(schema)))\n"
        )
        command = [sys.executable, "-c", script, str(tmp_path / "registry")]
        running = [subprocess.Popen(command, stdout=subprocess.PIPE, text=True) for _ in range(3)]
        answers = []
        for process in running:
            with process:
                answers.append(process.communicate(timeout=60)[0].split())
                assert process.returncode == 0
        assert answers[0] == answers[1] == answers[2]
        assert sorted(int(number) for number in answers[0]) == list(range(1, 21))
        assert len(FolderRegistry(tmp_path / "registry").subjects()) == 20

    @pytest.mark.parametrize("step", ["fsync", "replace"])
    def test_a_crash_while_writing_leaves_the_old_state_and_no_rubbish(
        self, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, step: str
    ) -> None:
        register(tmp_path, "a", SCHEMAS[0])
        with monkeypatch.context() as broken:

            def fail(*_: object) -> None:
                raise OSError(28, "No space left on device")

            broken.setattr(f"postroom.libs.durable_files.os.{step}", fail)
            with pytest.raises(RegistryUnavailableError, match="No space left"):
                register(tmp_path, "a", SCHEMAS[1])
        assert FolderRegistry(tmp_path).versions("a") == (1,)
        assert sorted(path.name for path in tmp_path.iterdir()) == ["lock", "schemas.json"]
        assert register(tmp_path, "a", SCHEMAS[1]) == 2

    def test_a_lock_that_is_never_freed_is_unavailable_after_ten_seconds(self, tmp_path: Path) -> None:
        clock = ManualClock()
        with FolderRegistry(tmp_path)._locked():
            began = clock.monotonic()
            with pytest.raises(RegistryUnavailableError, match="held by another process"):
                FolderRegistry(tmp_path, clock=clock).register("a", as_registration(SCHEMAS[0]))
            assert 10 <= clock.monotonic() - began < 10.1
        assert register(tmp_path, "a", SCHEMAS[0]) == 1

    @pytest.mark.filterwarnings("ignore:.*fork.*:DeprecationWarning")
    def test_a_forked_child_does_not_hold_the_lock_on(self, tmp_path: Path) -> None:
        read_end, write_end = os.pipe()
        with FolderRegistry(tmp_path)._locked():
            pid = os.fork()
            if pid == 0:
                os.read(read_end, 1)
                os._exit(0)
        try:
            assert FolderRegistry(tmp_path, clock=ManualClock()).register("a", as_registration(SCHEMAS[0])) == 1
        finally:
            os.write(write_end, b"x")
            os.waitpid(pid, 0)
            os.close(read_end)
            os.close(write_end)


class TestRules:
    def test_without_a_rule_the_file_is_the_one_of_earlier_versions(self, tmp_path: Path) -> None:
        register(tmp_path, "a", SCHEMAS[0])
        before = json.loads((tmp_path / "schemas.json").read_text())
        assert before == {"format": 1, "schemas": {"1": SCHEMAS[0]}, "subjects": {"a": [1]}}
        FolderRegistry(tmp_path).set_compatibility("a", Compatibility.FULL)
        after = json.loads((tmp_path / "schemas.json").read_text())
        assert after == {**before, "format": 2, "compatibility": {"a": "FULL"}}
        assert FolderRegistry(tmp_path).get_compatibility("a") is Compatibility.FULL

    def test_a_refusal_names_version_path_and_reason_and_changes_nothing(self, tmp_path: Path) -> None:
        register(tmp_path, "a", SCHEMAS[0])
        FolderRegistry(tmp_path).set_compatibility("a", Compatibility.BACKWARD_TRANSITIVE)
        before = (tmp_path / "schemas.json").read_bytes()
        with pytest.raises(IncompatibleSchemaError, match="a breaks its rule BACKWARD_TRANSITIVE: version 1: schema: "):
            register(tmp_path, "a", SCHEMAS[1])
        assert (tmp_path / "schemas.json").read_bytes() == before
        assert register(tmp_path, "b", SCHEMAS[1]) == 2

    def test_nothing_is_known_of_a_subject_that_was_never_named(self, tmp_path: Path) -> None:
        with pytest.raises(SubjectNotFoundError):
            FolderRegistry(tmp_path).get_compatibility("a")
        assert FolderRegistry(tmp_path).check_compatibility("a", as_registration(SCHEMAS[0]), "latest")


class TestDamage:
    @pytest.mark.parametrize(
        "content",
        [
            "", "{", "[]", "null", "{}", '{"format": 3, "schemas": {}, "subjects": {}}',
            '{"format": 2, "schemas": {}, "subjects": {}, "compatibility": {"a": "SIDEWAYS"}}',
            '{"format": 2, "schemas": {}, "subjects": {}, "compatibility": {"a": ["FULL"]}}',
            '{"format": 2, "schemas": {}, "subjects": {}, "compatibility": []}',
            '{"format": 1, "schemas": [], "subjects": {}}',
            '{"format": 1, "schemas": {"x": "int"}, "subjects": {}}',
            '{"format": 1, "schemas": {"1": 5}, "subjects": {}}',
            '{"format": 1, "schemas": {"1": "int"}, "subjects": {"a": []}}',
            '{"format": 1, "schemas": {"1": "int"}, "subjects": {"a": [2]}}',
            '{"format": 1, "schemas": {"1": "int"}, "subjects": {"a": [true]}}',
            '{"format": 1, "schemas": {"1": "int"}, "subjects": {"a": 1}}',
            "[" * 100_000, "\ufeff{}",
        ],
    )  # fmt: skip
    def test_a_damaged_file_is_said_and_left_alone(self, tmp_path: Path, content: str) -> None:
        file = tmp_path / "schemas.json"
        file.write_text(content, encoding="utf-8")
        for ask in (lambda: FolderRegistry(tmp_path).subjects(), lambda: register(tmp_path, "a", SCHEMAS[0])):
            with pytest.raises(SchemaRegistryError, match=r"damaged or of another version") as caught:
                ask()
            assert type(caught.value) is SchemaRegistryError
        assert file.read_text(encoding="utf-8") == content

    def test_bytes_that_are_no_text_are_damage(self, tmp_path: Path) -> None:
        (tmp_path / "schemas.json").write_bytes(b"\xff\xfe\x00")
        with pytest.raises(SchemaRegistryError, match="damaged"):
            FolderRegistry(tmp_path).subjects()

    def test_a_folder_that_is_a_file_is_unavailable(self, tmp_path: Path) -> None:
        (tmp_path / "file").write_text("x", encoding="utf-8")
        with pytest.raises(RegistryUnavailableError):
            register(tmp_path / "file", "a", SCHEMAS[0])
        with pytest.raises(RegistryUnavailableError):
            FolderRegistry(tmp_path / "file").subjects()

    def test_what_is_wrong_with_a_schema_is_named(self, tmp_path: Path) -> None:
        with pytest.raises(InvalidSchemaError, match=r"fields\[0\]"):
            register(tmp_path, "a", '{"type": "record", "name": "R", "fields": [{"name": "a", "type": "nope"}]}')
