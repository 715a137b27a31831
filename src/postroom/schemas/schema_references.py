"""Schemas that use types which stand under subjects of their own (Confluent's `references`).

A contract lists them with a local file for each, so that it can be checked and its events encoded without a registry:

    references:
      - {name: com.example.Address, subject: address, version: 3, file: address.avsc}
"""

from __future__ import annotations

import json
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, Final

from postroom.libs.exceptions import DecodeError, SchemaRegistryError
from postroom.libs.safe_yaml import kind_of
from postroom.schemas.avro_schema import canonical_json
from postroom.schemas.json_reader import read_json

if TYPE_CHECKING:
    from collections.abc import Iterable
    from pathlib import Path

    from postroom.schemas.contract_file import ContractText

_PRIMITIVES: Final = frozenset({"null", "boolean", "int", "long", "float", "double", "bytes", "string"})
_NAMED: Final = frozenset({"record", "error", "enum", "fixed"})
_INNER: Final = {"array": "items", "map": "values"}
_KEYS: Final = {"name": str, "subject": str, "version": int, "file": str}
_WORDS: Final = {str: "a text", int: "a whole number"}
_MAX_FILE_BYTES: Final = 1024 * 1024
MOST_REFERENCES: Final = 64


@dataclass(frozen=True, slots=True)
class Reference:
    """A type by its full name, where a registry has it, and its schema as canonical JSON text."""

    name: str
    subject: str
    version: int
    schema: str = field(repr=False)

    def as_json(self) -> dict[str, Any]:
        """The reference in Confluent's form."""
        return {"name": self.name, "subject": self.subject, "version": self.version}


def with_references(raw: Any, references: Iterable[Reference]) -> Any:
    """The schema with each referenced type written out where its name stands first. `raw` is not changed.

    Raises SchemaRegistryError for a referenced text that is no JSON, ValueError for what nests without end.
    """
    types = {one.name: one.schema for one in references}
    return _Inlining(types).of(raw, "") if types else raw


class _Inlining:
    def __init__(self, types: dict[str, str]) -> None:
        self._types = types
        self._defined: set[str] = set()

    def of(self, raw: Any, namespace: str) -> Any:
        if isinstance(raw, str):
            return self._named(raw, namespace)
        if isinstance(raw, list):
            return [self.of(one, namespace) for one in raw]
        if not isinstance(raw, dict):
            return raw
        kind = raw.get("type")
        if isinstance(kind, str) and kind in _NAMED:
            full, namespace = _full_name(raw, namespace)
            self._defined.add(full)
            fields = raw.get("fields")
            if not isinstance(fields, list):
                return raw
            return raw | {"fields": [self._field(one, namespace) for one in fields]}
        return raw | {name: self.of(raw[name], namespace) for name in ("type", "items", "values") if name in raw}

    def _field(self, one: Any, namespace: str) -> Any:
        return one | {"type": self.of(one["type"], namespace)} if isinstance(one, dict) and "type" in one else one

    def _named(self, name: str, namespace: str) -> Any:
        full = name if "." in name or not namespace else f"{namespace}.{name}"
        if name in _PRIMITIVES or full in self._defined:
            return name
        text = self._types.get(full, self._types.get(name))
        if text is None or name in self._defined:
            return name
        try:
            raw = json.loads(text)
        except (ValueError, RecursionError):
            raise SchemaRegistryError(f"The schema of the reference {full} is no JSON") from None
        # A type without a namespace would take the one around it.
        return self.of(raw | {"namespace": _full_name(raw, "")[1]}, "") if isinstance(raw, dict) else name


def _full_name(raw: dict[str, Any], namespace: str) -> tuple[str, str]:
    """The full name of a named type, and the namespace of what is in it."""
    name = raw.get("name")
    name = name if isinstance(name, str) else ""
    if "." in name:
        return name, name.rpartition(".")[0]
    own = raw.get("namespace", namespace)
    own = own if isinstance(own, str) else ""
    return (f"{own}.{name}" if own else name), own


def parsing_form(raw: Any, namespace: str = "") -> Any:
    """The schema's parsing canonical form, in JSON form: what decides how bytes are read, and nothing else.

    Avro 1.12, "Transforming into Parsing Canonical Form". `raw` has to be a schema; anything may be raised otherwise.
    """
    if isinstance(raw, str):
        return raw if raw in _PRIMITIVES or "." in raw or not namespace else f"{namespace}.{raw}"
    if isinstance(raw, list):
        return [parsing_form(one, namespace) for one in raw]
    kind = raw["type"]
    if not isinstance(kind, str) or (kind not in _NAMED and kind not in _INNER):
        return parsing_form(kind, namespace)
    if kind in _INNER:
        return {"type": kind, _INNER[kind]: parsing_form(raw[_INNER[kind]], namespace)}
    full, inner = _full_name(raw, namespace)
    form: dict[str, Any] = {"name": full, "type": kind}
    if kind == "enum":
        form["symbols"] = raw["symbols"]
    elif kind == "fixed":
        form["size"] = int(raw["size"])
    else:
        form["fields"] = [{"name": one["name"], "type": parsing_form(one["type"], inner)} for one in raw["fields"]]
    return form


# -- the key `references` of a contract file


def read_references(text: ContractText, listed: object) -> tuple[Reference, ...]:
    """The references that a contract lists; what is wrong with them is added to the text's problems."""
    if listed is None:
        return ()
    if not isinstance(listed, list):
        text.wrong("references", f"is {kind_of(listed)}", "write a list", ("references",))
        return ()
    if len(listed) > MOST_REFERENCES:
        text.wrong("references", f"lists more than {MOST_REFERENCES}", "refer to fewer types", ("references",))
        return ()
    found: dict[str, Reference] = {}
    for number, one in enumerate(listed):
        reference = _read(text, number, one)
        if reference is not None and found.setdefault(reference.name, reference) is not reference:
            _wrong(text, number, "name", f"is {reference.name}, as in another reference", "list each type once")
    return tuple(found.values())


def _wrong(text: ContractText, number: int, key: str, what: str, remedy: str) -> None:
    text.wrong(f"references[{number}].{key}", what, remedy, ("references", number, key))


def _read(text: ContractText, number: int, one: object) -> Reference | None:
    if not isinstance(one, dict):
        remedy = f"write a mapping with {', '.join(_KEYS)}"
        text.wrong(f"references[{number}]", f"is {kind_of(one)}", remedy, ("references", number))
        return None
    before = len(text.problems)
    for key in one:
        if key not in _KEYS:
            _wrong(text, number, str(key)[:40], "is no key of a reference", f"known keys: {', '.join(_KEYS)}")
    for key, kind in _KEYS.items():
        if type(one.get(key)) is not kind or one[key] == "":
            _wrong(text, number, key, "is missing or of another kind", f"write {_WORDS[kind]}")
    if len(text.problems) > before:
        return None
    if not 1 <= one["version"] < 2**31:
        _wrong(text, number, "version", "is no version of a subject", "write its number, from 1")
        return None
    assert text.path is not None
    schema = _schema_of(text, number, text.path.parent / one["file"], one["name"])
    return None if schema is None else Reference(one["name"], one["subject"], one["version"], schema)


def _schema_of(text: ContractText, number: int, path: Path, name: str) -> str | None:
    try:
        with path.open("rb") as file:
            raw = read_json(file.read(_MAX_FILE_BYTES + 1), max_bytes=_MAX_FILE_BYTES)
    except (OSError, ValueError) as error:
        why = getattr(error, "strerror", None) or type(error).__name__
        _wrong(text, number, "file", f"cannot be read: {why}", "name a file beside the contract")
        return None
    except DecodeError as error:
        _wrong(text, number, "file", f"is not JSON: {error.message}", "write the Avro schema as JSON")
        return None
    if not isinstance(raw, dict) or raw.get("type") not in _NAMED or _full_name(raw, "")[0] != name:
        _wrong(text, number, "file", f"does not define {name}", "name the file with that type, by its full name")
        return None
    return canonical_json(raw)
