"""A Schema Registry in a folder: the same questions and answers as a server's, with nothing to install.

Everything stands in one file, `schemas.json`:

    {"format": 2, "schemas": {"1": "<schema text>"}, "subjects": {"clicks-value": [1]},
     "compatibility": {"clicks-value": "BACKWARD"}}

`subjects` lists the ids of a subject's versions, the first is version 1. `compatibility` holds the rules of subjects
that were given one; without any the file has format 1 and not this key, as earlier versions of postroom wrote it.

A change is made under a lock (the file `lock`), written to a file beside, fsynced and renamed into place: a reader sees
the old state or the new one, a crash leaves one of the two, and an id that was given out is never given to another
schema. Several processes may use one folder.
"""

from __future__ import annotations

import contextlib
import json
import sys
from dataclasses import dataclass, field
from typing import IO, TYPE_CHECKING

from postroom.libs.clock import SYSTEM_CLOCK, Clock
from postroom.libs.durable_files import replace_durably
from postroom.libs.exceptions import (
    IncompatibleSchemaError,
    InvalidSchemaError,
    RegistryUnavailableError,
    SchemaRegistryError,
    SubjectNotFoundError,
)
from postroom.schemas.avro_schema import try_schema
from postroom.schemas.compatibility import breaks, for_registry
from postroom.schemas.registry_protocol import Compatibility, RegisteredSchema, Version
from postroom.schemas.schema_shape import shape_of

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence
    from pathlib import Path

    from postroom.schemas.compatibility import Break
    from postroom.schemas.registration import Registration

_FORMATS = (1, 2)  # the second has rules of compatibility
_LEVELS = tuple(level.value for level in Compatibility)
_STATE = "schemas.json"
_LOCK = "lock"
_LOCK_WAIT_S = 10.0
_LOCK_POLL_S = 0.02


@dataclass(slots=True)
class _State:
    """What the file holds. `schemas`: text by id; `subjects`: ids by subject, oldest first; `rules` by subject."""

    schemas: dict[int, str] = field(default_factory=dict)
    subjects: dict[str, list[int]] = field(default_factory=dict)
    rules: dict[str, Compatibility] = field(default_factory=dict)

    def rule(self, subject: str) -> Compatibility:
        """The rule of a subject; none holds where none was given."""
        return self.rules.get(subject, Compatibility.NONE)

    def texts(self, subject: str) -> list[str]:
        """The schemas of a subject, oldest first."""
        return [self.schemas[number] for number in self.subjects.get(subject, ())]

    def id_of(self, schema: str) -> int | None:
        """The id of a schema that is the same JSON, whatever its spaces and the order of its keys."""
        wanted = _canonical(schema)
        return next((number for number, text in self.schemas.items() if _canonical(text) == wanted), None)


class FolderRegistry:
    """The questions of `registry_protocol.Registry`, answered from a folder that appears with the first schema.

    A subject has the rule NONE until it is given another.
    """

    def __init__(self, folder: Path, *, clock: Clock = SYSTEM_CLOCK) -> None:
        self._folder = folder
        self._clock = clock

    def get(self, subject: str, version: Version) -> RegisteredSchema | None:
        """That version, or None when there is no such subject."""
        state = self._read()
        ids = state.subjects.get(subject)
        if ids is None:
            return None
        number = len(ids) if version == "latest" else version
        if number > len(ids):
            raise SubjectNotFoundError(f"{subject} has no version {number}, the latest is {len(ids)}")
        schema_id = ids[number - 1]
        return RegisteredSchema(subject, number, schema_id, state.schemas[schema_id])

    def register(self, subject: str, registration: Registration) -> int:
        """The id of the schema, registered unless the subject has it. On return it is on the disk.

        Schemas that are the same JSON are the same here, with `normalize` and without. What a schema refers to is
        written into it; metadata and rules are not kept. Raises IncompatibleSchemaError for one that breaks the
        subject's rule.
        """
        schema = _complete(registration)
        with self._locked():
            state = self._read()
            schema_id = state.id_of(schema)
            if schema_id is not None and schema_id in state.subjects.get(subject, ()):
                return schema_id
            broken = _broken(schema, state.texts(subject), state.rule(subject))
            if broken:
                raise _incompatible(subject, state.rule(subject), broken)
            if schema_id is None:
                schema_id = max(state.schemas, default=0) + 1
                state.schemas[schema_id] = schema
            state.subjects.setdefault(subject, []).append(schema_id)
            self._write(state)
            return schema_id

    def lookup(self, subject: str, registration: Registration) -> RegisteredSchema:
        """The version of the subject that has the schema."""
        schema = _complete(registration)
        state = self._read()
        schema_id = state.id_of(schema)
        ids = self._ids(state, subject) if schema_id is not None else []
        if schema_id is None or schema_id not in ids:
            raise SubjectNotFoundError(f"{subject} does not have this schema")
        return RegisteredSchema(subject, ids.index(schema_id) + 1, schema_id, state.schemas[schema_id])

    def by_id(self, schema_id: int) -> str:
        """The text of the schema with that id."""
        text = self._read().schemas.get(schema_id)
        if text is None:
            raise SubjectNotFoundError(f"The registry in {self._folder} has no schema with id {schema_id}")
        return text

    def versions(self, subject: str) -> tuple[int, ...]:
        """The subject's versions: 1, 2, 3 ..."""
        return tuple(range(1, len(self._ids(self._read(), subject)) + 1))

    def subjects(self) -> tuple[str, ...]:
        """All subjects, sorted."""
        return tuple(sorted(self._read().subjects))

    def check_compatibility(self, subject: str, registration: Registration, version: Version) -> bool:
        """Whether the schema may follow that one version under the subject's rule; true for an unknown subject."""
        schema = _complete(registration)
        state = self._read()
        if subject not in state.subjects:
            return True
        earlier = self.get(subject, version)
        assert earlier is not None
        return not _broken(schema, [earlier.schema], state.rule(subject))

    def get_compatibility(self, subject: str) -> Compatibility:
        """The rule that the subject was given, else NONE."""
        state = self._read()
        if subject not in state.rules:
            self._ids(state, subject)
        return state.rule(subject)

    def own_compatibility(self, subject: str) -> Compatibility | None:
        """The rule that the subject was given; None when it was not."""
        return self._read().rules.get(subject)

    def set_compatibility(self, subject: str, level: Compatibility) -> None:
        """Give the subject a rule, also before its first schema. On return it is on the disk."""
        with self._locked():
            state = self._read()
            state.rules[subject] = level
            self._write(state)

    def prepare(self) -> None:
        """Nothing is needed for a question."""

    def close(self) -> None:
        """Nothing is held between two questions."""

    def _ids(self, state: _State, subject: str) -> list[int]:
        ids = state.subjects.get(subject)
        if ids is None:
            raise SubjectNotFoundError(f"The registry in {self._folder} has no subject {subject}")
        return ids

    # -- the file --------------------------------------------------------------------------------------

    def _read(self) -> _State:
        path = self._folder / _STATE
        try:
            data = json.loads(path.read_bytes())
        except FileNotFoundError:
            return _State()
        except OSError as exc:
            raise RegistryUnavailableError(f"{path} cannot be read ({exc.strerror})") from exc
        except (ValueError, RecursionError):
            raise self._damaged() from None
        state = _parse(data)
        if state is None:
            raise self._damaged()
        return state

    def _damaged(self) -> SchemaRegistryError:
        return SchemaRegistryError(
            f"{self._folder / _STATE} is damaged or of another version of postroom",
            remedy="restore it from a copy; ids in records that were published point into it",
        )

    def _write(self, state: _State) -> None:
        """Replace the file: written beside, fsynced, renamed, and the folder fsynced."""
        schemas = {str(number): text for number, text in state.schemas.items()}
        content: dict[str, object] = {"format": 1, "schemas": schemas, "subjects": state.subjects}
        if state.rules:
            content |= {"format": 2, "compatibility": state.rules}
        text = json.dumps(content, indent=1)
        path = self._folder / _STATE
        try:
            replace_durably(path, text.encode(), prefix=".schemas-")
        except OSError as exc:
            raise RegistryUnavailableError(f"{path} cannot be written ({exc.strerror})") from exc

    @contextlib.contextmanager
    def _locked(self) -> Iterator[None]:
        """Let one at a time change the file, across threads and processes. Waits at most ten seconds."""
        try:
            self._folder.mkdir(parents=True, exist_ok=True)
            file = (self._folder / _LOCK).open("ab")
        except OSError as exc:
            raise RegistryUnavailableError(f"{self._folder} cannot be written to ({exc.strerror})") from exc
        with file:
            deadline = self._clock.monotonic() + _LOCK_WAIT_S
            while not _try_lock(file):
                if self._clock.monotonic() >= deadline:
                    raise RegistryUnavailableError(f"{self._folder / _LOCK} is held by another process")
                self._clock.sleep(_LOCK_POLL_S)
            try:
                yield
            finally:
                _unlock(file)  # not by closing alone: a child forked meanwhile would hold it on


def _parse(data: object) -> _State | None:
    """The state in the file's JSON, or None when it is not what this version writes."""
    if not isinstance(data, dict) or data.get("format") not in _FORMATS:
        return None
    schemas, subjects = data.get("schemas"), data.get("subjects")
    if not isinstance(schemas, dict) or not isinstance(subjects, dict):
        return None
    if not all(key.isascii() and key.isdigit() and isinstance(text, str) for key, text in schemas.items()):
        return None
    rules = data.get("compatibility", {})
    if not isinstance(rules, dict) or not all(level in _LEVELS for level in rules.values()):
        return None
    levels = {subject: Compatibility(level) for subject, level in rules.items()}
    state = _State({int(key): text for key, text in schemas.items()}, subjects, levels)
    for ids in subjects.values():
        if not isinstance(ids, list) or not ids or not all(type(one) is int and one in state.schemas for one in ids):
            return None
    return state


def _canonical(schema: str) -> str:
    return json.dumps(json.loads(schema), sort_keys=True, separators=(",", ":"))


def _complete(registration: Registration) -> str:
    """The text of the schema with all that it refers to.

    Raises InvalidSchemaError, with the first things that are wrong, unless it is an Avro schema.
    """
    raw = registration.complete_schema()
    _, problems = try_schema(raw)
    if problems:
        raise InvalidSchemaError("That is no Avro schema: " + "; ".join(str(problem) for problem in problems[:3]))
    return json.dumps(raw, ensure_ascii=False) if registration.references else registration.schema


def _broken(schema: str, earlier: Sequence[str], level: Compatibility) -> tuple[Break, ...]:
    """What keeps a schema from following the earlier ones, all of them texts that `_complete` has seen."""
    if level is Compatibility.NONE:
        return ()
    shapes = [shape_of(json.loads(text)) for text in earlier]
    return for_registry(breaks(shape_of(json.loads(schema)), shapes, level))


def _incompatible(subject: str, level: Compatibility, broken: Sequence[Break]) -> IncompatibleSchemaError:
    told = "; ".join(f"version {one.earlier + 1}: {one.misfit}" for one in broken[:3])
    more = f" and {len(broken) - 3} more" if len(broken) > 3 else ""
    return IncompatibleSchemaError(f"The schema for {subject} breaks its rule {level}: {told}{more}")


def _try_lock(file: IO[bytes]) -> bool:
    try:
        if sys.platform == "win32":
            import msvcrt

            file.seek(0)
            msvcrt.locking(file.fileno(), msvcrt.LK_NBLCK, 1)
        else:
            import fcntl

            fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except OSError:
        return False
    return True


def _unlock(file: IO[bytes]) -> None:
    if sys.platform == "win32":
        import msvcrt

        file.seek(0)
        msvcrt.locking(file.fileno(), msvcrt.LK_UNLCK, 1)
    else:
        import fcntl

        fcntl.flock(file, fcntl.LOCK_UN)
